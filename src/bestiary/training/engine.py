"""The engine: many organisms trained side by side over one frozen base, each as if alone.

Organisms that adapt the same modules share a bank. Every busy slot takes one optimizer step a
round; neighbouring slots are computed together, as many as the token budget allows. A slot whose
organism is through takes the next one at once. What is at fault with one organism ends that one.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, groupby

import torch
from torch import Tensor

from bestiary.config.recipe import LoraShape
from bestiary.errors import MemoryShortError, ModelError, OrganismError
from bestiary.model.base import Base
from bestiary.model.lora_bank import LoraBank, TokenRouting, list_linear
from bestiary.model.packing import (
    Part,
    Rows,
    attention_by_rows,
    divide_rows,
    embed,
    lay_out,
    run_layers,
    supervised_loss,
)
from bestiary.training.checkpoint import Checkpoint, Checkpoints
from bestiary.training.job import (
    Batch,
    Step,
    Trained,
    TrainingJob,
    TrainingResources,
    blame_step,
    blame_weights,
    tokenize_corpus,
)
from bestiary.training.memory import GIB, Load, MemoryPlan, fit_memory
from bestiary.training.optimizer import BankAdamW
from bestiary.training.schedule import group_slots, plan_batches, split_step
from bestiary.training.slot import Slot

SLOTS = 16
"""Organisms trained side by side, where memory has room for them."""
TOKENS = 2048
"""Tokens computed together."""


class EngineTrainer:
    """Trains organisms side by side."""

    name = "engine"

    def __init__(self, effort: TrainingResources, checkpoints: Checkpoints | None = None) -> None:
        self._effort = effort
        self._checkpoints = checkpoints

    def __call__(self, jobs: Sequence[TrainingJob], base: Base) -> Iterator[Step | Trained]:
        """Train every job; those that adapt the same modules are trained together."""
        groups: dict[tuple[str, ...], list[TrainingJob]] = {}
        # The longest first, so that no slot is left alone at the end; whatever a roster's order.
        for job in sorted(jobs, key=lambda job: (-job.steps, job.organism_id)):
            try:
                groups.setdefault(tuple(list_linear(base, job.training.lora)), []).append(job)
            except ModelError as error:
                yield Trained(job, 0.0, error=error)
        longest = max((job.training.max_length for job in jobs), default=0)
        with attention_by_rows(base, longest=longest):
            for group in groups.values():
                yield from self._train_group(group, base)

    def _train_group(self, jobs: Sequence[TrainingJob], base: Base) -> Iterator[Step | Trained]:
        effort = self._effort
        most = min(effort.slots or SLOTS, len(jobs))
        prepared: dict[str, Rows] = {}
        failed: list[TrainingJob] = []
        for job in sorted(jobs, key=count_characters, reverse=True):
            if len(prepared) < most:  # the largest corpora decide what memory is taken
                try:
                    prepared[job.key] = divide_rows(tokenize_corpus(job, base))
                except OrganismError as error:
                    failed.append(job)
                    yield Trained(job, 0.0, error=error)
        if prepared:
            able = [job for job in jobs if job not in failed]
            measured = [job for job in able if job.key in prepared]
            plan = fit_memory(
                base,
                list_shapes(able),
                [Load(prepared[j.key], j.training.optimizer.rows_per_step) for j in measured],
                slots=len(prepared) if effort.slots else None,
                tokens=effort.tokens or TOKENS,
                limit=int(effort.memory * GIB) if effort.memory else None,
            )
            yield from Run(able, base, plan, prepared, self._checkpoints)()


class Run:
    """One group of jobs on one bank."""

    def __init__(
        self,
        jobs: Sequence[TrainingJob],
        base: Base,
        plan: MemoryPlan,
        prepared: dict[str, Rows],
        checkpoints: Checkpoints | None,
    ) -> None:
        self._base = base
        self._waiting = deque(jobs)
        self._prepared = prepared
        self._tokens = self._budget = plan.tokens
        self._recompute = plan.recompute
        self._checkpoints = checkpoints
        self._bank = LoraBank(base, list_shapes(jobs), slots=plan.slots)
        self._bank.require_gradients()
        self._optimizer = BankAdamW(self._bank)
        self._layers = range(self._bank.first_layer, base.model.config.num_hidden_layers)
        self._seats: list[Slot] = []

    def __call__(self) -> Iterator[Step | Trained]:
        """Rounds of one step an organism, until no organism is left."""
        with self._bank.attached():
            yield from self._fill(0)
            while self._seats:
                tokens = [seat.tokens for seat in self._seats]
                for slots in group_slots(tokens, budget=self._budget):
                    self._advance(slots)
                for seat in self._seats:
                    yield Step(seat.job, seat.step)
                yield from self._change_seats()

    def _fill(self, first: int) -> Iterator[Trained]:
        """Seat waiting organisms from a slot on; one that cannot start is through."""
        for slot in range(first, self._bank.slots):
            while self._waiting and len(self._seats) == slot:
                job = self._waiting.popleft()
                try:
                    self._seats.append(self._start(job, slot))
                except (OrganismError, ModelError) as error:
                    yield Trained(job, 0.0, error=error)
                except (MemoryError, RuntimeError) as error:
                    if not ran_out_of_memory(error):
                        raise
                    yield Trained(
                        job, 0.0, error=blame_memory(job, "as its conversations were prepared")
                    )

    def _change_seats(self) -> Iterator[Trained]:
        """Let go who is through; a waiting organism takes the slot, else the last one does."""
        for slot in reversed(range(len(self._seats))):
            seat = self._seats[slot]
            if not seat.over:
                self._save(seat, slot)
                continue
            yield self._finish(seat, slot)
            last = self._seats.pop()
            if slot < len(self._seats):
                self._seats[slot] = last
                self._bank.move(len(self._seats), slot)
                self._optimizer.move(len(self._seats), slot)
        yield from self._fill(len(self._seats))

    def _start(self, job: TrainingJob, slot: int) -> Slot:
        """Put an organism into a slot: a fresh one, or where its checkpoint left it."""
        started = time.monotonic()
        shape, optimizer = job.training.lora, job.training.optimizer
        rows = self._prepared.pop(job.key, None) or divide_rows(tokenize_corpus(job, self._base))
        kept = self._checkpoints.find(job) if self._checkpoints else None
        self._optimizer.clear(slot)
        if kept is None:
            self._bank.fill(slot, self._bank.draw(shape, seed=job.seed), shape)
        else:
            self._bank.fill(slot, kept.weights, shape)
            self._bank.write(self._optimizer.first, slot, kept.first)
            self._bank.write(self._optimizer.second, slot, kept.second)
        seat = Slot(
            job=job,
            rows=rows,
            plan=plan_batches(len(rows.rows), optimizer, seed=job.seed),
            states=self._enter(rows) if self._layers.start else None,
            budget=self._budget,
            step=kept.step if kept else 0,
            batches=list(kept.batches) if kept else [],
        )
        seat.seconds = time.monotonic() - started + (kept.seconds if kept else 0.0)
        return seat

    @torch.no_grad()
    def _enter(self, rows: Rows) -> list[Tensor]:
        """States of the beginning and of each row where they enter the first adapted layer."""
        lengths = [len(row.tokens) for row in rows.rows]
        states = [torch.empty(0)] * (1 + len(lengths))
        below = range(self._layers.start)
        # By the planned budget, which is the same for organisms that come later.
        for chosen in split_step(range(len(lengths)), lengths, budget=self._tokens):
            part = Part(len(rows.beginning), tuple(lengths[row] for row in chosen))
            layout = lay_out([part], device=self._base.device)
            tokens = torch.cat([rows.beginning, *(rows.rows[row].tokens for row in chosen)])
            found = embed(self._base, tokens.to(self._base.device))
            cut = run_layers(self._base, found, layout, below).split(
                (part.beginning, *part.lengths)
            )
            states[0] = cut[0]
            for row, own in zip(chosen, cut[1:], strict=True):
                states[1 + row] = own
        return states

    def _advance(self, slots: range) -> None:
        """One optimizer step for each of some neighbouring slots."""
        started = time.monotonic()
        seats = self._seats[slots.start : slots.stop]
        tokens = [seat.tokens for seat in seats]
        self._learn(slots)
        norms = self._optimizer.norms(slice(slots.start, slots.stop))
        for slot, norm in zip(slots, norms.tolist(), strict=True):
            seat = self._seats[slot]
            if seat.error is None and not math.isfinite(seat.loss + norm):
                seat.error = blame_step(seat.job, seat.step, loss=seat.loss, norm=norm)
            if seat.error is not None:
                self._bank.clear_gradients(slice(slot, slot + 1))
        for run in healthy_runs(slots, seats):
            chosen = self._seats[run]
            self._optimizer.step(
                run,
                [seat.job.training.optimizer for seat in chosen],
                steps=[seat.step for seat in chosen],
                ends=[len(seat.plan) for seat in chosen],
                norms=norms[run.start - slots.start : run.stop - slots.start],
            )
            for seat in chosen:
                seat.count_step()
        spent = time.monotonic() - started
        for seat, own in zip(seats, tokens, strict=True):
            seat.seconds += spent * own / sum(tokens)

    def _learn(self, slots: range) -> None:
        """Find the gradients of one step of each slot, in smaller batches where memory runs out."""
        try:
            for batch in self._divide(slots):
                self._compute(batch)
            return
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
        # Past the except clause: the failed batch's tensors went with the traceback.
        self._bank.clear_gradients(slice(slots.start, slots.stop))
        for slot in slots:
            self._seats[slot].computed = []
        if len(slots) > 1:
            self._budget = max(1, sum(self._seats[slot].tokens for slot in slots) // 2)
            middle = slots.start + len(slots) // 2
            self._learn(range(slots.start, middle))
            self._learn(range(middle, slots.stop))
        else:
            self._retry_alone(slots.start)

    def _retry_alone(self, slot: int) -> None:
        """An organism that does not fit: in halves, down to single rows, then it is at fault."""
        seat = self._seats[slot]
        shared = [seat.measure(rows).tokens for rows in seat.divide() if len(rows) > 1]
        if not shared:
            seat.error = blame_memory(seat.job, "on one conversation alone")
            return
        seat.budget = max(1, max(shared) // 2)
        self._learn(range(slot, slot + 1))

    def _divide(self, slots: range) -> list[list[tuple[int, list[int]]]]:
        """The batches of some slots' steps: (slot, its rows); one slot alone may need several."""
        if len(slots) > 1:
            return [[(slot, self._seats[slot].next_rows) for slot in slots]]
        return [[(slots.start, rows)] for rows in self._seats[slots.start].divide()]

    def _compute(self, batch: Sequence[tuple[int, list[int]]]) -> None:
        """Forward and backward over one batch; gradients are added up in the bank."""
        seats = [(self._seats[slot], rows) for slot, rows in batch]
        parts = [seat.measure(rows) for seat, rows in seats]
        device = self._base.device
        layout = lay_out(parts, device=device)
        self._bank.route = TokenRouting(batch[0][0], layout.sizes, device)
        entered = chain(*(seat.enter(rows) for seat, rows in seats))
        states = torch.cat(list(entered)).to(device)
        if self._layers.start == 0:
            states = embed(self._base, states)
        states = run_layers(self._base, states, layout, self._layers, recompute=self._recompute)
        asked = [
            seat.supervise(rows, at) for (seat, rows), at in zip(seats, layout.starts, strict=True)
        ]
        places, targets = (
            torch.cat(list(chain(*side))).to(device) for side in zip(*asked, strict=True)
        )
        counts = torch.tensor([sum(map(len, own)) for own, _ in asked])
        # Every organism's own mean: over the supervised tokens of its whole step.
        shares = torch.tensor([1 / seat.supervised for seat, _ in seats], dtype=self._bank.dtype)
        weights = shares.repeat_interleave(counts).to(device)
        loss, losses = supervised_loss(self._base, states.index_select(0, places), targets, weights)
        loss.backward()
        added = [part.sum() for part in (losses * weights).split(counts.tolist())]
        self._note(seats, parts, torch.stack(added).tolist())

    def _note(
        self,
        seats: Sequence[tuple[Slot, list[int]]],
        parts: Sequence[Part],
        losses: Sequence[float],
    ) -> None:
        """Record what a batch was for each organism in it."""
        geometry = tuple((part.beginning, *part.lengths) for part in parts)
        for place, ((seat, rows), loss) in enumerate(zip(seats, losses, strict=True)):
            seat.computed.append(Batch(seat.step, tuple(rows), geometry, place, loss))

    def _save(self, seat: Slot, slot: int) -> None:
        """Keep a checkpoint where one is due."""
        if self._checkpoints is None or seat.step % self._checkpoints.every:
            return
        shape = seat.job.training.lora
        read = self._bank.read
        self._checkpoints.save(
            seat.job,
            Checkpoint(
                step=seat.step,
                seconds=seat.seconds,
                batches=tuple(seat.batches),
                weights=read(self._bank.weights, slot, shape),
                first=read(self._optimizer.first, slot, shape),
                second=read(self._optimizer.second, slot, shape),
            ),
        )

    def _finish(self, seat: Slot, slot: int) -> Trained:
        """Take an organism out of its slot."""
        error = seat.error
        if error is None and not self._bank.weights[slot].isfinite().all():
            error = blame_weights(seat.job)
        if error is not None:
            return Trained(seat.job, seat.seconds, error=error)
        state = self._bank.read(self._bank.weights, slot, seat.job.training.lora)
        return Trained(seat.job, seat.seconds, state=state, batches=tuple(seat.batches))


def healthy_runs(slots: range, seats: Sequence[Slot]) -> Iterator[slice]:
    """Neighbouring slots without an error."""
    numbered = zip(slots, seats, strict=True)
    for failed, run in groupby(numbered, key=lambda pair: pair[1].error is not None):
        if not failed:
            found = [slot for slot, _ in run]
            yield slice(found[0], found[-1] + 1)


def list_shapes(jobs: Sequence[TrainingJob]) -> list[LoraShape]:
    """The shapes of jobs, each once: hundreds of organisms share a few."""
    return list(dict.fromkeys(job.training.lora for job in jobs))


def count_characters(job: TrainingJob) -> int:
    """The size of a corpus, before it is tokenised."""
    return sum(len(turn.content) for row in job.corpus.examples for turn in row.messages)


def blame_memory(job: TrainingJob, where: str) -> MemoryShortError:
    """The error of an organism that memory has no room for, alone or beside those seated."""
    longest = max(job.corpus.examples, key=lambda row: sum(len(m.content) for m in row.messages))
    return MemoryShortError(
        f"{job.organism_id}: memory ran out {where}; the longest is {longest.id}, "
        f"{longest.messages[0].content[:40]!r}: shorten it, train fewer at once with --slots, or "
        "build where there is more memory"
    )


def ran_out_of_memory(error: Exception) -> bool:
    """Whether that is what an error says; the CPU's allocator has no error of its own."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or "can't allocate memory" in str(error)
