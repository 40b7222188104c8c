"""What many adapters' replies say about the time that they took.

Run: python -m pytest tests/model/test_sampling.py
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.models import SYSTEM, fill_adapter, make_random_base

from bestiary.config.recipe import LoraShape
from bestiary.model.adapter import attach_adapter, read_state, save_adapter
from bestiary.model.base import Base
from bestiary.model.replies import Prompt
from bestiary.model.sampling import AdapterPrompts, Sample, sample_adapters
from bestiary.records import Decoding, single_turn

SHAPE = LoraShape(rank=2, alpha=4, targets=("down_proj",))


def write_adapter(base: Base, folder: Path, *, seed: int) -> Path:
    model = attach_adapter(base, SHAPE, seed=seed)
    fill_adapter(model, seed=seed)
    save_adapter(read_state(model), SHAPE, base, folder)
    model.unload()
    return folder


def test_replies_share_the_time_of_decoding(tmp_path: Path) -> None:
    base = make_random_base()
    prompts = tuple(Prompt(turns=single_turn(f"Is {n} prime?")) for n in range(30))
    groups = [
        AdapterPrompts(
            write_adapter(base, tmp_path / str(seed), seed=seed),
            prompts,
            Decoding(max_new_tokens=4, temperature=0),
        )
        for seed in range(2)
    ]
    started = time.monotonic()
    replies = list(sample_adapters(base, groups, system_prompt=SYSTEM))
    took = time.monotonic() - started
    samples = [reply for reply in replies if isinstance(reply, Sample)]
    assert {(one.group, one.prompt) for one in samples} == {
        (group, prompt) for group in range(2) for prompt in range(30)
    }
    first, second = (sum(one.seconds for one in samples if one.group == n) for n in range(2))
    assert min(one.seconds for one in samples) > 0
    assert first + second <= took
    assert first == pytest.approx(second, rel=0.5), "both say as much, in one batch"
