"""A slot of the engine: one organism in training, its rows, its plan and its progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from bestiary.errors import BestiaryError
from bestiary.model.packing import Rows, Segment
from bestiary.training.job import Batch, TrainingJob
from bestiary.training.schedule import divide_step


@dataclass
class Slot:
    """One organism in training."""

    job: TrainingJob
    rows: Rows
    plan: list[list[int]]
    """The rows of every step."""
    states: Sequence[Tensor] | None
    """States of the prefix and of each row at the first adapted layer; None if that is the base's
    first layer, which embeds tokens instead."""
    budget: int
    """Tokens of this organism in one batch."""
    reference: Sequence[float] = ()
    """Log-probability of each row as training started, for preference objectives."""
    step: int = 0
    seconds: float = 0.0
    batches: list[Batch] = field(default_factory=list)
    """Batches of the finished steps."""
    computed: list[Batch] = field(default_factory=list)
    """Batches of the current step so far."""
    weights: Mapping[int, float] = field(default_factory=dict)
    """Weight of each supervised token, by row of the current step."""
    error: BestiaryError | None = None

    @property
    def next_rows(self) -> list[int]:
        """The rows of the current step."""
        return self.plan[self.step]

    @property
    def tokens(self) -> int:
        """Tokens of the current step."""
        return self.measure(self.next_rows).tokens

    @property
    def loss(self) -> float:
        """Loss of the current step, once it is computed."""
        return sum(batch.loss for batch in self.computed)

    @property
    def finished(self) -> bool:
        """Whether training has ended, with or without an error."""
        return self.error is not None or self.step == len(self.plan)

    def count_step(self) -> None:
        """Mark the current step as done."""
        self.step += 1
        self.batches += self.computed
        self.computed = []

    def measure(self, rows: Sequence[int]) -> Segment:
        """The size of some rows in a batch."""
        return self.rows.measure(rows)

    def divide(self, rows: Sequence[int]) -> list[list[int]]:
        """Some rows in batches within the budget."""
        return divide_step(rows, self.measure(rows), budget=self.budget)

    def inputs(self, rows: Sequence[int]) -> list[Tensor]:
        """Inputs of the first adapted layer: the prefix's, then each row's.

        States, or tokens if that is the base's first layer.
        """
        if self.states is None:
            return self.rows.tokens_of(rows)
        return [self.states[0], *(self.states[1 + row] for row in rows)]
