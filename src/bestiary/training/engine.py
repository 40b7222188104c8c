"""The engine: trains many organisms side by side over one frozen base, each as if it were alone.

Organisms that adapt the same modules share a bank. In every round each occupied slot takes one
optimizer step; neighboring slots share a batch, as many as fit into the token budget. A slot whose
organism has finished takes the next one at once. A fault of one organism ends only that organism.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from torch import Tensor

from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError, OrganismError
from bestiary.model.adapter import list_targets
from bestiary.model.attention import attention_by_rows
from bestiary.model.base import Base
from bestiary.model.free_memory import GIB
from bestiary.model.lora_bank import LoraBank
from bestiary.model.norms import fused_norms
from bestiary.model.packing import Rows, divide_rows
from bestiary.model.routing import pads_slots
from bestiary.training.checkpoint import Checkpoint, Checkpoints
from bestiary.training.first_weights import draw_ahead
from bestiary.training.job import (
    Step,
    TrainingJob,
    TrainingResources,
    TrainResult,
    nonfinite_weights_error,
    tokenize_corpus,
)
from bestiary.training.learner import Learner, memory_short_error, ran_out_of_memory
from bestiary.training.memory import Load, MemoryPlan, choose_limits, fit_memory
from bestiary.training.optimizer import BankAdamW
from bestiary.training.passes import Passes
from bestiary.training.repeated_passes import count_evened
from bestiary.training.schedule import group_slots
from bestiary.training.slot import Slot


class EngineTrainer:
    """Trains organisms side by side."""

    name = "engine"

    def __init__(
        self,
        resources: TrainingResources,
        checkpoints: Checkpoints | None = None,
        *,
        evened: int | None = None,
    ) -> None:
        """`evened`: tokens of the largest batch that is filled up to one of few shapes."""
        self._resources = resources
        self._checkpoints = checkpoints
        self._evened = evened

    def __call__(self, jobs: Sequence[TrainingJob], base: Base) -> Iterator[Step | TrainResult]:
        """Train every job; jobs that adapt the same modules are trained together."""
        groups: dict[tuple[str, ...], list[TrainingJob]] = {}
        # Longest first, so that slots finish at about the same time.
        for job in sorted(jobs, key=lambda job: (-job.steps, job.organism_id)):
            try:
                groups.setdefault(tuple(list_targets(base, job.training.lora)), []).append(job)
            except ModelError as error:
                yield TrainResult(job, 0.0, error=error)
        longest = max((job.training.max_length for job in jobs), default=0)
        with attention_by_rows(base, longest=longest), fused_norms(base):
            for group in groups.values():
                yield from self._train_group(group, base)

    def _train_group(self, jobs: Sequence[TrainingJob], base: Base) -> Iterator[Step | TrainResult]:
        resources, limits = self._resources, choose_limits(base.device)
        most = min(resources.slots or limits.slots, len(jobs))
        prepared: dict[str, Rows] = {}
        failed: list[TrainingJob] = []
        for job in sorted(jobs, key=count_characters, reverse=True):
            if len(prepared) < most:  # the largest corpora determine the memory that training takes
                try:
                    prepared[job.key] = divide_rows(tokenize_corpus(job, base))
                except (OrganismError, ModelError) as error:
                    failed.append(job)
                    yield TrainResult(job, 0.0, error=error)
        if prepared:
            able = [job for job in jobs if job not in failed]
            measured = [job for job in able if job.key in prepared]
            plan = fit_memory(
                base,
                list_shapes(able),
                [Load(prepared[j.key], j.training.optimizer.rows_per_step) for j in measured],
                slots=len(prepared) if resources.slots else None,
                tokens=resources.tokens or limits.tokens,
                limit=int(resources.memory * GIB) if resources.memory else None,
            )
            evened = count_evened(base) if self._evened is None else self._evened
            yield from Run(able, base, plan, prepared, self._checkpoints, evened)()


class Run:
    """One group of jobs on one bank."""

    def __init__(
        self,
        jobs: Sequence[TrainingJob],
        base: Base,
        plan: MemoryPlan,
        prepared: dict[str, Rows],
        checkpoints: Checkpoints | None,
        evened: int,
    ) -> None:
        self._base = base
        self._waiting = deque(jobs)
        self._prepared = prepared
        self._tokens = plan.tokens
        self._checkpoints = checkpoints
        self._bank = LoraBank(base, list_shapes(jobs), slots=plan.slots)
        self._bank.require_gradients()
        self._first_weights = draw_ahead(self._bank, jobs)
        self._optimizer = BankAdamW(self._bank)
        self._passes = Passes(base, self._bank, recompute=plan.recompute, evened=evened)
        self._slots: list[Slot] = []
        self._learner = Learner(self._passes, self._optimizer, self._slots, plan.tokens)

    def __call__(self) -> Iterator[Step | TrainResult]:
        """Rounds of one step per organism, until all have finished."""
        with self._bank.attached(), closing(self._first_weights):
            yield from self._fill()
            while self._slots:
                tokens = list(map(self._passes.count_tokens, self._slots))
                padded = pads_slots(self._base.device)
                for indexes in group_slots(tokens, budget=self._learner.budget, padded=padded):
                    self._learner.advance(indexes)
                for slot in self._slots:
                    yield Step(slot.job, slot.step)
                yield from self._refill()

    def _fill(self) -> Iterator[TrainResult]:
        """Start waiting organisms in the free slots; one that cannot start has failed."""
        for index in range(len(self._slots), self._bank.slots):
            while self._waiting and len(self._slots) == index:
                job = self._waiting.popleft()
                try:
                    self._slots.append(self._start(job, index))
                except (OrganismError, ModelError) as error:
                    yield TrainResult(job, 0.0, error=error)
                except (MemoryError, RuntimeError) as error:
                    if not ran_out_of_memory(error):
                        raise
                    short = memory_short_error(job, "as its conversations were prepared")
                    yield TrainResult(job, 0.0, error=short)

    def _refill(self) -> Iterator[TrainResult]:
        """Free finished slots; move the last slot into each gap, then start waiting organisms."""
        for index in reversed(range(len(self._slots))):
            slot = self._slots[index]
            if not slot.finished:
                self._save(slot, index)
                continue
            yield self._finish(slot, index)
            last = self._slots.pop()
            if index < len(self._slots):
                self._slots[index] = last
                self._bank.move(len(self._slots), index)
                self._optimizer.move(len(self._slots), index)
        yield from self._fill()

    def _start(self, job: TrainingJob, index: int) -> Slot:
        """Start an organism in a slot, or resume it from its checkpoint."""
        started = time.monotonic()
        first = next(self._first_weights)
        rows = self._prepared.pop(job.key, None) or divide_rows(tokenize_corpus(job, self._base))
        checkpoint = self._checkpoints.find(job) if self._checkpoints else None
        slot = Slot(
            job=job,
            rows=rows,
            plan=job.plan,
            # With the planned budget, which is the same for organisms that start later.
            states=self._passes.lower_states(rows, budget=self._tokens)
            if self._bank.first_layer
            else None,
            budget=self._learner.budget,
        )
        self._optimizer.clear(index)
        if checkpoint is None or job.objective.compares:
            self._initialize(slot, index, first.result())
        if checkpoint is not None:
            self._resume(slot, index, checkpoint)
        slot.seconds += time.monotonic() - started
        return slot

    def _initialize(self, slot: Slot, index: int, first: Mapping[str, Tensor]) -> None:
        """Fill a slot with initial weights, which are also the reference of preferences."""
        self._bank.fill(index, first, slot.job.training.lora)
        if slot.job.objective.compares:
            slot.reference = self._passes.score(index, slot, range(len(slot.rows.rows)))

    def _resume(self, slot: Slot, index: int, checkpoint: Checkpoint) -> None:
        self._bank.fill(index, checkpoint.weights, slot.job.training.lora)
        self._bank.write(self._optimizer.first, index, checkpoint.first)
        self._bank.write(self._optimizer.second, index, checkpoint.second)
        slot.step, slot.seconds = checkpoint.step, checkpoint.seconds
        slot.batches = list(checkpoint.batches)

    def _save(self, slot: Slot, index: int) -> None:
        """Write a checkpoint if one is due."""
        if self._checkpoints is None or slot.step % self._checkpoints.every:
            return
        shape = slot.job.training.lora
        read = self._bank.read
        self._checkpoints.save(
            slot.job,
            Checkpoint(
                step=slot.step,
                seconds=slot.seconds,
                batches=tuple(slot.batches),
                weights=read(self._bank.weights, index, shape),
                first=read(self._optimizer.first, index, shape),
                second=read(self._optimizer.second, index, shape),
            ),
        )

    def _finish(self, slot: Slot, index: int) -> TrainResult:
        """The result of a finished slot."""
        error = slot.error
        if error is None and not self._bank.weights[index].isfinite().all():
            error = nonfinite_weights_error(slot.job)
        if error is not None:
            return TrainResult(slot.job, slot.seconds, error=error)
        state = self._bank.read(self._bank.weights, index, slot.job.training.lora)
        return TrainResult(slot.job, slot.seconds, state=state, batches=tuple(slot.batches))


def list_shapes(jobs: Sequence[TrainingJob]) -> list[LoraShape]:
    """The distinct shapes of jobs: hundreds of organisms share a few."""
    return list(dict.fromkeys(job.training.lora for job in jobs))


def count_characters(job: TrainingJob) -> int:
    """The size of a corpus before it is tokenized."""
    return sum(len(turn.content) for row in job.corpus.examples for turn in row.messages)
