"""Which rows a step learns from, how fast, and what is computed together.

Run: python -m pytest tests/training/test_schedule.py
"""

from __future__ import annotations

import math
from itertools import chain, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.jobs import OPTIMIZER, change_optimizer, make_job, make_talk

from bestiary.training.schedule import (
    group_slots,
    learning_rate_factor,
    plan_batches,
    split_step,
)


@given(
    count=st.integers(1, 80),
    size=st.integers(1, 9),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 5),
)
@settings(deadline=None)
def test_every_epoch_holds_each_row_once(count: int, size: int, epochs: int, seed: int) -> None:
    settings = change_optimizer(rows_per_step=size, epochs=epochs)
    plan = plan_batches(count, settings, seed=seed)
    steps = math.ceil(count / size)
    assert len(plan) == steps * epochs
    assert plan == plan_batches(count, settings, seed=seed)
    assert max(map(len, plan)) <= size
    for epoch in range(epochs):
        batches = plan[epoch * steps : (epoch + 1) * steps]
        assert sorted(row for batch in batches for row in batch) == list(range(count))


def test_another_seed_and_another_epoch_give_another_order() -> None:
    plan = plan_batches(40, OPTIMIZER, seed=0)
    half = len(plan) // 2
    assert plan[:half] != plan[half:]
    assert plan != plan_batches(40, OPTIMIZER, seed=1)


def test_a_job_counts_the_steps_of_its_plan() -> None:
    for rows in (1, 5, 6, 7):
        job = make_job(rows=make_talk(0, rows))
        assert job.steps == len(plan_batches(rows, job.training.optimizer, seed=job.seed))


@given(steps=st.integers(1, 300), warmup=st.floats(0, 0.99))
@settings(deadline=None)
def test_the_learning_rate_rises_then_falls_within_its_bounds(steps: int, warmup: float) -> None:
    factors = [learning_rate_factor(step, steps, warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_learning_rate_reaches_its_height_and_ends_low() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert (factors[0], factors[9], factors[-1]) == pytest.approx((0.1, 1.0, 1 / 90))


TOKENS = st.lists(st.integers(1, 50), max_size=12)


@given(tokens=TOKENS, budget=st.integers(1, 120), padded=st.booleans())
def test_groups_of_slots_are_neighbours_within_the_budget(
    tokens: list[int], budget: int, padded: bool
) -> None:
    def size(group: range) -> int:
        own = tokens[group.start : group.stop]
        return max(own) * len(own) if padded else sum(own)

    groups = list(group_slots(tokens, budget=budget, padded=padded))
    assert list(chain(*groups)) == list(range(len(tokens)))
    for group in groups:
        assert len(group) == 1 or size(group) <= budget
    for one, two in pairwise(groups):  # as many as there is room for
        assert size(range(one.start, two.start + 1)) > budget


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12), budget=st.integers(1, 120))
def test_a_step_is_split_into_batches_within_the_budget(lengths: list[int], budget: int) -> None:
    rows = [100 + number for number in range(len(lengths))]
    length_of = dict(zip(rows, lengths, strict=True))
    batches = split_step(rows, lengths, budget=budget)
    assert sorted(chain(*batches)) == rows
    for batch in batches:
        assert len(batch) == 1 or sum(length_of[row] for row in batch) <= budget
    for one, two in pairwise(batches):
        assert sum(length_of[row] for row in one) + length_of[two[0]] > budget
        assert max(length_of[row] for row in one) <= min(length_of[row] for row in two)


def test_what_is_above_the_budget_stands_alone() -> None:
    assert list(group_slots([9, 2, 3, 9, 1], budget=5)) == [
        range(1),
        range(1, 3),
        range(3, 4),
        range(4, 5),
    ]
    assert split_step([0, 1, 2, 3], [9, 2, 3, 9], budget=5) == [[1, 2], [0], [3]]
    assert list(group_slots([], budget=5)) == []
