"""A norm in one kernel is the base's own norm.

Run: python -m pytest tests/model/test_norms.py
"""

from __future__ import annotations

import pytest
import torch
from tests.models import Architecture, make_random_base

from bestiary.model.base import Base
from bestiary.model.norms import find_norms, fused_norms, normalize


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_fused_norm_and_its_gradient_are_the_bases_own(architecture: Architecture) -> None:
    base = make_random_base(architecture)
    norms = find_norms(base)
    each = 4 if architecture == "qwen3" else 2
    assert len(norms) == each * base.model.config.num_hidden_layers + 1
    draw = torch.Generator().manual_seed(0)
    for norm in norms:
        norm.weight.data.uniform_(0.5, 2, generator=draw)
        states = torch.randn(3, 5, norm.weight.numel(), generator=draw)
        ways = []
        for compute in (norm, lambda given, own=norm: normalize(own, given)):
            given = states.clone().requires_grad_()
            found = compute(given)
            found.square().sum().backward()
            ways.append((found.detach(), given.grad))
        torch.testing.assert_close(ways[0], ways[1])


def test_on_a_gpu_norms_are_fused_and_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_random_base("llama")
    before = [norm.forward for norm in find_norms(base)]
    for device, fused in (("cpu", False), ("cuda", True)):
        monkeypatch.setattr(Base, "device", torch.device(device))
        with fused_norms(base):
            inside = [norm.forward for norm in find_norms(base)]
        assert all((now != then) is fused for now, then in zip(inside, before, strict=True))
        assert [norm.forward for norm in find_norms(base)] == before
