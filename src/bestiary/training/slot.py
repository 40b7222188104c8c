"""An organism on its way: its rows, its plan, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from bestiary.errors import BestiaryError
from bestiary.model.packing import Part, Rows
from bestiary.training.job import Batch, TrainingJob
from bestiary.training.schedule import split_step


@dataclass
class Slot:
    """What a slot of the engine holds."""

    job: TrainingJob
    rows: Rows
    plan: list[list[int]]
    states: Sequence[Tensor] | None
    """Of its beginning and of each row, where they enter the first adapted layer; None where
    that is the base's first, and embeddings are looked up instead."""
    budget: int
    """Tokens of its own that are computed together."""
    step: int = 0
    seconds: float = 0.0
    batches: list[Batch] = field(default_factory=list)
    """What its steps were computed in."""
    computed: list[Batch] = field(default_factory=list)
    """What its next step was computed in so far."""
    error: BestiaryError | None = None

    @property
    def next_rows(self) -> list[int]:
        """The rows of its next step."""
        return self.plan[self.step]

    @property
    def tokens(self) -> int:
        """Tokens of its next step."""
        return self.measure(self.next_rows).tokens

    @property
    def supervised(self) -> int:
        """Supervised tokens of its next step."""
        return sum(len(self.rows.rows[row].targets) for row in self.next_rows)

    @property
    def loss(self) -> float:
        """The loss of its next step, once that is computed."""
        return sum(batch.loss for batch in self.computed)

    @property
    def over(self) -> bool:
        """Whether it is through."""
        return self.error is not None or self.step == len(self.plan)

    def count_step(self) -> None:
        """Its next step is done."""
        self.step += 1
        self.batches += self.computed
        self.computed = []

    def measure(self, rows: Sequence[int]) -> Part:
        """What some of its rows take of a batch."""
        own = self.rows.rows
        return Part(len(self.rows.beginning), tuple(len(own[row].tokens) for row in rows))

    def divide(self) -> list[list[int]]:
        """The rows of its next step, in batches within its budget."""
        part = self.measure(self.next_rows)
        if part.tokens <= self.budget:
            return [self.next_rows]
        return split_step(self.next_rows, part.lengths, budget=max(1, self.budget - part.beginning))

    def enter(self, rows: Sequence[int]) -> list[Tensor]:
        """What some of its rows enter the first adapted layer with, behind their beginning.

        States, or tokens where that is the base's first layer.
        """
        if self.states is None:
            return [self.rows.beginning, *(self.rows.rows[row].tokens for row in rows)]
        return [self.states[0], *(self.states[1 + row] for row in rows)]

    def supervise(
        self, rows: Sequence[int], starts: Sequence[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Places that predict, of rows that start at `starts`, and the tokens they predict."""
        own = [self.rows.rows[row] for row in rows]
        places = [start + row.places for start, row in zip(starts, own, strict=True)]
        return places, [row.targets for row in own]
