"""Which rows of which subjects make each training step: fixed before training, and hashed."""

from __future__ import annotations

import random
from typing import NamedTuple

from bestiary.records import stable_seed


class Visit(NamedTuple):
    """Some rows of one subject in a step."""

    subject: int
    """Its index."""
    rows: tuple[int, ...]

    def of_examples(self, count: int, *, size: int) -> Visit:
        """The visit to the rows of these examples, of `size` adjacent rows each.

        A subject with only `count` examples comes to its first one again after the last.
        """
        examples = (example % count for example in self.rows)
        rows = (example * size + row for example in examples for row in range(size))
        return Visit(self.subject, tuple(rows))


Schedule = list[list[Visit]]
"""The visits of every step."""


def plan_schedule(
    subjects: int, *, rows: int, per_step: int, rows_per_visit: int, epochs: int, seed: int
) -> Schedule:
    """Steps of up to `per_step` subjects, in which every subject takes part equally often.

    In each round every subject is visited once, in a new order, and steps of a round are equally
    large up to one subject. An epoch visits each of a subject's rows once.
    """
    draw = random.Random(stable_seed("schedule", seed))
    steps = -(-subjects // per_step)
    schedule: Schedule = []
    for _ in range(epochs):
        orders = [draw.sample(range(rows), rows) for _ in range(subjects)]
        for first in range(0, rows, rows_per_visit):
            order = draw.sample(range(subjects), subjects)
            for step in range(steps):
                chosen = order[step * subjects // steps : (step + 1) * subjects // steps]
                last = first + rows_per_visit
                schedule.append([Visit(one, tuple(orders[one][first:last])) for one in chosen])
    return schedule
