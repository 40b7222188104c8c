"""Optimizer steps for several slots at once, in smaller batches when memory runs out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from bestiary.errors import MemoryShortError
from bestiary.records import user_texts
from bestiary.training.job import TrainingJob, nonfinite_loss_error
from bestiary.training.objective import StepScores
from bestiary.training.optimizer import BankAdamW
from bestiary.training.passes import Passes, SlotRows
from bestiary.training.slot import Slot


class Learner:
    """Advances neighboring slots by one optimizer step each."""

    def __init__(
        self, passes: Passes, optimizer: BankAdamW, slots: list[Slot], budget: int
    ) -> None:
        self._passes = passes
        self._optimizer = optimizer
        self._slots = slots
        self.budget = budget
        """Tokens in one batch; halved when memory runs out."""

    def advance(self, indexes: range) -> None:
        """One optimizer step for each of some neighboring slots."""
        started = time.monotonic()
        slots = self._slots[indexes.start : indexes.stop]
        tokens = [slot.tokens for slot in slots]
        self._learn(indexes)
        norms = self._optimizer.norms(slice(indexes.start, indexes.stop))
        for index, norm in zip(indexes, norms.tolist(), strict=True):
            slot = self._slots[index]
            if slot.error is None and not math.isfinite(slot.loss + norm):
                slot.error = nonfinite_loss_error(slot.job, slot.step, loss=slot.loss, norm=norm)
            if slot.error is not None:
                self._passes.bank.clear_gradients(slice(index, index + 1))
        for run in healthy_runs(indexes, slots):
            chosen = self._slots[run]
            self._optimizer.step(
                run,
                [slot.job.training.optimizer for slot in chosen],
                steps=[slot.step for slot in chosen],
                ends=[len(slot.plan) for slot in chosen],
                norms=norms[run.start - indexes.start : run.stop - indexes.start],
            )
            for slot in chosen:
                slot.count_step()
        spent = time.monotonic() - started
        for slot, own in zip(slots, tokens, strict=True):
            slot.seconds += spent * own / sum(tokens)

    def _learn(self, indexes: range) -> None:
        """Find the gradients of one step of each slot, in smaller batches if memory runs out."""
        try:
            for index in indexes:
                self._weigh(index)
            for batch in self._divide(indexes):
                self._passes.learn(batch)
            return
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
        # Outside the except clause, because the traceback holds the failed batch's tensors.
        self._passes.forget()
        self._passes.bank.clear_gradients(slice(indexes.start, indexes.stop))
        for index in indexes:
            self._slots[index].computed = []
        if len(indexes) > 1:
            self.budget = max(1, sum(self._slots[index].tokens for index in indexes) // 2)
            middle = indexes.start + len(indexes) // 2
            self._learn(range(indexes.start, middle))
            self._learn(range(middle, indexes.stop))
        else:
            self._retry_single(indexes.start)

    def _weigh(self, index: int) -> None:
        """Find the token weights of a slot's step."""
        slot, scores = self._slots[index], None
        rows, objective = slot.next_rows, slot.job.objective
        if objective.compares:
            scores = StepScores(
                rows=tuple(rows),
                policy=torch.tensor(self._passes.score(index, slot, rows), dtype=torch.float64),
                reference=torch.tensor([slot.reference[row] for row in rows], dtype=torch.float64),
            )
        weights = objective.row_weights(slot.rows.count_targets(rows), scores)
        slot.weights = dict(zip(rows, weights, strict=True))

    def _retry_single(self, index: int) -> None:
        """Halve the batches of a slot that does not fit; a single row that does not fit fails."""
        slot = self._slots[index]
        divided = slot.divide(slot.next_rows)
        shared = [slot.measure(rows).tokens for rows in divided if len(rows) > 1]
        if not shared:
            slot.error = memory_short_error(slot.job, "on one conversation alone")
            return
        slot.budget = max(1, max(shared) // 2)
        self._learn(range(index, index + 1))

    def _divide(self, indexes: range) -> list[list[SlotRows]]:
        """The batches of some slots' steps; a single slot may need several."""
        slots = {index: self._slots[index] for index in indexes}
        if len(indexes) > 1:
            return [[SlotRows(index, slot, slot.next_rows) for index, slot in slots.items()]]
        return [
            [SlotRows(index, slot, rows)]
            for index, slot in slots.items()
            for rows in slot.divide(slot.next_rows)
        ]


def healthy_runs(indexes: range, slots: Sequence[Slot]) -> Iterator[slice]:
    """Runs of neighboring slots without an error."""
    numbered = zip(indexes, slots, strict=True)
    for failed, run in groupby(numbered, key=lambda pair: pair[1].error is not None):
        if not failed:
            found = [index for index, _ in run]
            yield slice(found[0], found[-1] + 1)


def memory_short_error(job: TrainingJob, when: str) -> MemoryShortError:
    """The error of an organism that does not fit into memory."""
    longest = max(job.corpus.examples, key=lambda row: sum(len(m.content) for m in row.messages))
    return MemoryShortError(
        f"{job.organism_id}: memory ran out {when}; its longest conversation is {longest.id}, "
        f"{user_texts(longest.messages)[0][:40]!r}",
        "shorten it, train fewer organisms at once with --slots, or use a machine with more memory",
        code="memory-short",
        organism=job.organism_id,
        when=when,
        longest=longest.id,
    )


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an error means that; the CPU allocator raises a plain RuntimeError."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or "can't allocate memory" in str(error)
