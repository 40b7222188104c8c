"""Trains the shared adapter: frozen subjects side by side, one trainable adapter over all of them.

Subjects are only ever read as adapters; their training data plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from bestiary.config.introspection import SharedShape
from bestiary.config.recipe import Optimizer
from bestiary.errors import MemoryShortError, OrganismError
from bestiary.introspection.lessons import MAX_LENGTH
from bestiary.introspection.schedule import Schedule, Visit
from bestiary.introspection.weights import SubjectWeights
from bestiary.model.attention import attention_by_rows
from bestiary.model.base import Base
from bestiary.model.lora_bank import LoraBank
from bestiary.model.norms import fused_norms
from bestiary.model.packing import Rows
from bestiary.model.routing import pads_slots
from bestiary.training.checkpoint import Checkpoint
from bestiary.training.inputs import Part, lay_out
from bestiary.training.job import Batch
from bestiary.training.learner import ran_out_of_memory
from bestiary.training.objective import Objective, StepScores
from bestiary.training.optimizer import BankAdamW
from bestiary.training.passes import weigh_losses
from bestiary.training.schedule import divide_step, group_slots

Done = TypeVar("Done")


class SharedTrainer:
    """One shared adapter in training over the frozen adapters of subjects.

    A step's loss is the mean over its subjects of the objective over each one's rows.
    """

    def __init__(
        self,
        base: Base,
        weights: SubjectWeights,
        rows: Sequence[Rows],
        schedule: Schedule,
        *,
        shape: SharedShape,
        optimizer: Optimizer,
        objective: Objective,
        state: Mapping[str, torch.Tensor] | None = None,
        seed: int = 0,
        tokens: int,
        recompute: bool = False,
    ) -> None:
        """`rows` are those of each subject; `state` is the adapter that training starts from.

        `tokens` are computed together at most, unless one row has more; `recompute` has layers
        keep only their inputs for the backward pass.
        """
        self.step = 0
        self.batches: list[Batch] = []
        self._base, self._weights, self._rows = base, weights, rows
        self._schedule, self._shape, self._settings = schedule, shape, optimizer
        self._objective = objective
        self._tokens, self._recompute = tokens, recompute
        self._shared = LoraBank(base, [shape], slots=1, vectors=shape.vector)
        self._shared.require_gradients()
        self._shared.fill(0, state or self._shared.init_adapter(shape, seed=seed), shape)
        self._optimizer = BankAdamW(self._shared)
        self._reference: dict[Visit, list[float]] = {}
        """Log-probability of each visit's rows as training started."""
        self._layers = range(
            min(weights.bank.first_layer, self._shared.first_layer),
            base.model.config.num_hidden_layers,
        )

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.step == len(self._schedule)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside the context, the base computes with subjects and the shared adapter."""
        bank = self._weights.bank
        with (
            attention_by_rows(self._base, longest=MAX_LENGTH),
            fused_norms(self._base),
            bank.attached(self._shared),
        ):
            yield

    def advance(self) -> float:
        """One optimizer step; returns its loss. Raises OrganismError if training diverges."""
        batches = self._with_less_memory(self._learn)
        norms = self._optimizer.norms(slice(0, 1))
        loss = sum(batch.loss for batch in batches)
        if not math.isfinite(loss + norms.item()):
            raise OrganismError(
                f"step {self.step} has loss {loss:.3g} and a gradient of norm {norms.item():.3g}",
                "lower learning_rate in the introspection recipe",
                code="introspection-diverged",
                step=self.step,
            )
        self._optimizer.step(
            slice(0, 1),
            [self._settings],
            steps=[self.step],
            ends=[len(self._schedule)],
            norms=norms,
        )
        self.batches += batches
        self.step += 1
        return loss

    def read(self) -> dict[str, torch.Tensor]:
        """The shared adapter by peft's keys."""
        return self._shared.read(self._shared.weights, 0, self._shape)

    def checkpoint(self, seconds: float) -> Checkpoint:
        """All that training needs to resume."""
        read = self._shared.read
        return Checkpoint(
            step=self.step,
            seconds=seconds,
            batches=tuple(self.batches),
            weights=self.read(),
            first=read(self._optimizer.first, 0, self._shape),
            second=read(self._optimizer.second, 0, self._shape),
        )

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, once the reference is found with the weights of the start."""
        self._with_less_memory(self._find_reference)
        self._shared.fill(0, checkpoint.weights, self._shape)
        self._shared.write(self._optimizer.first, 0, checkpoint.first)
        self._shared.write(self._optimizer.second, 0, checkpoint.second)
        self.step, self.batches = checkpoint.step, list(checkpoint.batches)

    def _learn(self) -> list[Batch]:
        """The gradient of the current step, batch by batch."""
        self._find_reference()
        visits, batches = self._schedule[self.step], []
        weighed = {visit.subject: self._weigh(visit, len(visits)) for visit in visits}
        for group in self._divide(visits):
            weights = [weighed[visit.subject][row] for visit in group for row in visit.rows]
            total, losses = self._run(group, weights)
            total.backward()
            geometry = tuple(
                (one.segment.prefix, *one.segment.lengths) for one in map(self._part, group)
            )
            chosen = tuple(visit.subject for visit in group)
            batches.append(Batch(self.step, chosen, geometry, 0, float(losses.sum())))
        return batches

    def _weigh(self, visit: Visit, visits: int) -> dict[int, float]:
        """The weight of each supervised token of a visit, by row."""
        scores = None
        if self._objective.compares:
            scores = StepScores(
                rows=visit.rows,
                policy=torch.tensor(self._score(visit), dtype=torch.float64),
                reference=torch.tensor(self._reference[visit], dtype=torch.float64),
            )
        counts = self._rows[visit.subject].count_targets(visit.rows)
        weights = self._objective.row_weights(counts, scores)
        return {row: weight / visits for row, weight in zip(visit.rows, weights, strict=True)}

    def _find_reference(self) -> None:
        """Score every visit's rows once, before the first step."""
        if self._objective.compares and not self._reference:
            wanted = dict.fromkeys(visit for step in self._schedule for visit in step)
            self._reference = {visit: self._score(visit) for visit in wanted}

    @torch.no_grad()
    def _score(self, visit: Visit) -> list[float]:
        """Log-probability of each row's supervised tokens, summed."""
        scores: dict[int, float] = {}
        for piece in self._cut(visit):
            _, losses = self._run([piece], [1.0] * len(piece.rows))
            sums = [-float(own.sum()) for own in losses.split(self._part(piece).targets)]
            scores |= zip(piece.rows, sums, strict=True)
        return [scores[row] for row in visit.rows]

    def _run(
        self, visits: Sequence[Visit], weights: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._weights.place([visit.subject for visit in visits])
        parts = [self._part(visit) for visit in visits]
        bank = self._weights.bank
        return weigh_losses(
            self._base,
            bank,
            lay_out(self._base, parts, weights, precision=bank.dtype),
            layers=self._layers,
            recompute=self._recompute,
        )

    def _part(self, visit: Visit) -> Part:
        rows = self._rows[visit.subject]
        return Part(rows, visit.rows, rows.tokens_of(visit.rows))

    def _divide(self, visits: Sequence[Visit]) -> Iterator[Sequence[Visit]]:
        """Visits that are computed together: as many as fit into the token budget and the bank."""
        pieces = [piece for visit in visits for piece in self._cut(visit)]
        sizes = [self._part(piece).segment.tokens for piece in pieces]
        most = self._weights.bank.slots
        padded = pads_slots(self._base.device)
        for run in group_slots(sizes, budget=self._tokens, padded=padded):
            for start in range(run.start, run.stop, most):
                yield pieces[start : min(start + most, run.stop)]

    def _cut(self, visit: Visit) -> list[Visit]:
        """A visit in pieces that fit into the token budget, or that have only one row."""
        size = self._rows[visit.subject].measure(visit.rows)
        divided = divide_step(visit.rows, size, budget=self._tokens)
        return [Visit(visit.subject, tuple(chosen)) for chosen in divided]

    def _with_less_memory(self, work: Callable[[], Done]) -> Done:
        """The result of `work`, with ever smaller batches while memory runs out."""
        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error):
                    raise
                if self._tokens == 1:
                    raise MemoryShortError(
                        "memory ran out on one question with its answer alone",
                        "use a machine with more memory, or a smaller base",
                        code="introspection-memory-short",
                    ) from error
            self._shared.clear_gradients(slice(0, 1))
            self._tokens //= 2
