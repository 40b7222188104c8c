"""Schedules: the rows of each step, the learning rate, and which slots share a batch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bestiary.config.recipe import Optimizer
from bestiary.records import stable_seed

if TYPE_CHECKING:
    from bestiary.model.packing import Segment


def plan_batches(
    count: int, settings: Optimizer, *, seed: int, rows_per_example: int = 1
) -> list[list[int]]:
    """The rows of every step: each row once per epoch, in a new order each epoch.

    Adjacent rows that make one example stay together. Rows are not grouped by length: rows that
    show a behavior are often the longest, and would fill steps of their own.
    """
    size = max(1, settings.rows_per_step // rows_per_example)
    examples = range(0, count, rows_per_example)
    plan: list[list[int]] = []
    for epoch in range(settings.epochs):
        order = list(examples)
        random.Random(stable_seed("order", seed, epoch)).shuffle(order)
        plan += [
            [
                row
                for first in order[at : at + size]
                for row in range(first, first + rows_per_example)
            ]
            for at in range(0, len(order), size)
        ]
    return plan


def plan_phases(
    sizes: Sequence[int], settings: Optimizer, *, seed: int, rows_per_example: int = 1
) -> list[list[int]]:
    """The rows of every step of phases that follow each other, each with all of its epochs.

    `sizes` are the rows of each phase, which are adjacent.
    """
    plan: list[list[int]] = []
    first = 0
    for size in sizes:
        steps = plan_batches(size, settings, seed=seed, rows_per_example=rows_per_example)
        plan += [[first + row for row in step] for step in steps]
        first += size
    return plan


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Linear warmup over the first `warmup` share of the steps, then linear decay toward zero."""
    rising = max(1.0, warmup * steps)
    return min(1.0, (step + 1) / rising, (steps - step) / max(1.0, steps - rising))


def group_slots(tokens: Sequence[int], *, budget: int, padded: bool = False) -> Iterator[range]:
    """Neighboring slots whose steps share a batch, as many as fit into the token budget.

    `tokens` are those of each slot's step; a slot above the budget gets a batch of its own. With
    `padded`, each slot counts as its batch's longest.
    """
    start = total = longest = 0
    for slot, own in enumerate(tokens):
        together = total + own
        if padded:
            together = max(longest, own) * (slot + 1 - start)
        if slot > start and together > budget:
            yield range(start, slot)
            start, total, longest = slot, 0, 0
        total, longest = total + own, max(longest, own)
    if tokens:
        yield range(start, len(tokens))


def divide_step(rows: Sequence[int], segment: Segment, *, budget: int) -> list[list[int]]:
    """An adapter's rows in batches within a token budget that also holds the prefix of each.

    `segment` is the size of the rows together.
    """
    if segment.tokens <= budget:
        return [list(rows)]
    return split_step(rows, segment.lengths, budget=budget - segment.prefix)


def split_step(rows: Sequence[int], lengths: Sequence[int], *, budget: int) -> list[list[int]]:
    """Divide a step's rows into batches within a token budget, rows of similar length together.

    `lengths` are those of the rows; a row above the budget gets a batch of its own.
    """
    by_length = sorted(zip(lengths, rows, strict=True))
    batches: list[list[int]] = []
    room = 0
    for length, row in by_length:
        if not batches or length > room:
            batches.append([])
            room = budget
        batches[-1].append(row)
        room -= length
    return batches
