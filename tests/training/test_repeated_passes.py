"""Batches of one shape share their tensors, and each still gives its own result.

Run: python -m pytest tests/training/test_repeated_passes.py
"""

from __future__ import annotations

import copy
import gc
import random
import weakref
from dataclasses import replace
from typing import Any

import torch
from tests.models import make_random_base

from bestiary.model.packing import EVEN, Segment, even_out, pack_batch
from bestiary.training.inputs import Inputs
from bestiary.training.repeated_passes import SHAPES, RepeatedPasses, count_evened


def make_inputs(segments: list[Segment], draw: random.Random) -> Inputs:
    packed = pack_batch(segments, device=torch.device("cpu"), multiple=EVEN)
    tokens = torch.tensor([draw.randrange(1000) for _ in packed.positions])
    supervised = torch.arange(len(segments))
    return Inputs(packed, tokens, supervised, tokens[supervised], torch.ones(len(segments)))


def compute(first: int, inputs: Inputs) -> torch.Tensor:
    """Something that hangs on the slot and on every tensor."""
    return sum(
        (
            (1 + place) * first * tensor.double().sum()
            for place, tensor in enumerate(inputs.tensors)
        ),
        torch.zeros(()),
    )


def draw_segments(draw: random.Random, count: int) -> list[Segment]:
    return even_out(
        [Segment(3, tuple(draw.randint(1, 20) for _ in range(2))) for _ in range(count)]
    )


def test_each_batch_gives_what_it_gives_alone() -> None:
    """Over more shapes than are kept, each seen again and again."""
    draw = random.Random(0)
    passes = RepeatedPasses(torch.device("cpu"))
    for _ in range(200):
        first, count = draw.randint(1, 3), draw.randint(1, SHAPES // 2)
        inputs = make_inputs(draw_segments(draw, count), draw)
        alone = compute(first, inputs)
        assert passes(first, inputs, compute) == alone


def test_the_shapes_used_last_are_kept_until_they_are_forgotten() -> None:
    draw = random.Random(0)
    passes = RepeatedPasses(torch.device("cpu"))
    kept: list[weakref.ref[torch.Tensor]] = []
    for count in range(1, SHAPES + 3):
        inputs = make_inputs(draw_segments(draw, count), draw)
        passes(0, inputs, compute)
        kept.append(weakref.ref(inputs.entering))
        passes(0, make_inputs(draw_segments(random.Random(1), 1), draw), compute)
    del inputs
    gc.collect()
    assert [alive() is None for alive in kept] == [False, True, True, *[False] * (SHAPES - 1)]
    passes.forget()
    assert all(alive() is None for alive in kept)


def test_nothing_is_filled_up_on_a_cpu_and_less_of_a_larger_base_elsewhere() -> None:
    base = make_random_base("llama")
    assert count_evened(base) == 0
    small = make_random_base("llama")
    small.model.bfloat16()
    large = replace(small, model=copy.deepcopy(small.model))
    large.model.model.layers.extend(copy.deepcopy([*large.model.model.layers]))
    for outline in (small, large):
        model: Any = outline.model
        model.to("meta")
    assert count_evened(small) // 2 == count_evened(large) > 0
    small.model.float()
    assert count_evened(small) == 0, "attention pads rows there"
