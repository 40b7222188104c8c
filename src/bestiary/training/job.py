"""Training jobs, their results, and the protocol that every trainer implements."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field

from bestiary.config.recipe import Training
from bestiary.errors import BestiaryError, OrganismError
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow, tokenize_row
from bestiary.records import (
    Corpus,
    OrganismIdentity,
    Record,
    stable_seed,
)
from bestiary.training.objective import Objective, Sft
from bestiary.training.schedule import plan_phases

if TYPE_CHECKING:
    import torch

VERSION = 6
BATCHES = "batches.jsonl"
"""The batches an organism was trained in, one JSON line each, stored beside its adapter: its loss
curve, and what is needed to reproduce it bit by bit."""


@dataclass(frozen=True)
class TrainingJob:
    """One organism to train."""

    identity: OrganismIdentity
    corpus: Corpus
    messages_sha256: str
    training: Training
    key: str
    """Fingerprint of the organism, under which checkpoints and the adapter are kept."""
    objective: Objective = field(default_factory=Sft)
    phases: tuple[int, ...] = ()
    """Rows of each phase, if there are several: one is learned after the other."""

    @property
    def organism_id(self) -> str:
        """The organism's id."""
        return self.identity.organism_id

    @property
    def item_id(self) -> str:
        """The organism's id, as a stage needs it."""
        return self.organism_id

    @property
    def seed(self) -> int:
        """Seeds the initial weights and the order of the rows."""
        return stable_seed("train", self.organism_id)

    @property
    def steps(self) -> int:
        """Optimizer steps in total."""
        settings = self.training.optimizer
        rows = max(settings.rows_per_step, self.objective.rows_per_example)
        rows -= rows % self.objective.rows_per_example  # examples are never divided
        return settings.epochs * sum(math.ceil(size / rows) for size in self._sizes)

    @property
    def plan(self) -> list[list[int]]:
        """The rows of every optimizer step."""
        return plan_phases(
            self._sizes,
            self.training.optimizer,
            seed=self.seed,
            rows_per_example=self.objective.rows_per_example,
        )

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.phases or (len(self.corpus.examples),)


class TrainingResources(Record):
    """The trainer and its share of the machine; only the trainer's name is part of a key."""

    trainer: Literal["engine", "reference"] = "engine"
    slots: int | None = Field(default=None, ge=1)
    """Organisms trained side by side; None lets the memory plan choose."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens computed together."""
    memory: float | None = Field(default=None, gt=0)
    """GiB that training may use; None means all that is free."""
    checkpoint_steps: int = Field(default=25, ge=1)
    """Steps between two checkpoints of an organism."""

    def share(self, workers: int) -> TrainingResources:
        """The resources of one of several workers that share this machine's memory."""
        if workers == 1:
            return self
        import torch

        from bestiary.model.free_memory import FREE_SHARE, GIB, measure_free

        room = self.memory or FREE_SHARE * measure_free(torch.device("cpu")) / GIB
        return self.model_copy(update={"memory": room / workers})


@dataclass(frozen=True)
class Batch:
    """One batch that an organism was computed in: the geometry that determines its last bits."""

    step: int
    rows: tuple[int, ...]
    """The organism's own rows, in order; of an introspection adapter, the indexes of the subjects
    whose rows are in the batch."""
    segments: tuple[tuple[int, ...], ...]
    """Tokens of each organism in the batch: of its prefix, of each row, and of what fills it up."""
    index: int
    """The organism's own segment."""
    loss: float
    """Weighted cross-entropy of these rows: under SFT, their part of the step's loss."""


def write_batches(batches: Sequence[Batch]) -> str:
    """Batches as JSON lines."""
    return "".join(json.dumps(vars(batch)) + "\n" for batch in batches)


def read_batches(lines: str) -> tuple[Batch, ...]:
    """Parse the output of `write_batches`."""
    records = [json.loads(line) for line in lines.splitlines()]
    return tuple(
        Batch(
            one["step"],
            tuple(one["rows"]),
            tuple(map(tuple, one["segments"])),
            one["index"],
            one["loss"],
        )
        for one in records
    )


@dataclass(frozen=True)
class Step:
    """Progress: an organism has finished `done` of its steps."""

    job: TrainingJob
    done: int


@dataclass(frozen=True)
class TrainResult:
    """A finished organism: its adapter by peft's keys, or the error that ended its training."""

    job: TrainingJob
    seconds: float
    """The organism's share of the time."""
    state: Mapping[str, torch.Tensor] | None = None
    error: BestiaryError | None = None
    batches: tuple[Batch, ...] = ()
    """Empty if the reference trained it."""


class Trainer(Protocol):
    """Trains jobs over one frozen base, which stays unchanged.

    Organisms may finish in any order. An organism that fails never stops the others.
    """

    name: str

    def __call__(self, jobs: Sequence[TrainingJob], base: Base) -> Iterator[Step | TrainResult]:
        """Train every job, yielding progress and results."""
        ...


def tokenize_corpus(job: TrainingJob, base: Base) -> list[TokenRow]:
    """The rows of a job as token ids; raises OrganismError if one is too long."""
    return tokenize_examples(job.corpus, job.training, base)


def tokenize_examples(corpus: Corpus, training: Training, base: Base) -> list[TokenRow]:
    """The rows of a corpus as token ids; raises OrganismError if one is too long."""
    return [
        tokenize_row(
            base.tokenizer,
            example.messages,
            system_prompt=training.system_prompt,
            max_length=training.max_length,
        )
        for example in corpus.examples
    ]


def nonfinite_loss_error(
    job: TrainingJob, step: int, *, loss: float, norm: float = 0.0
) -> OrganismError:
    """The error of an organism whose loss, or whose gradient's norm, is not finite."""
    found = f"gradient at step {step} has norm {norm}"
    if not math.isfinite(loss):
        found = f"loss at step {step} is {loss}"
    return OrganismError(
        f"{job.organism_id}: the {found}",
        "lower learning_rate in the recipe, or look for a damaged row in the corpus",
        code="gradient-not-finite" if math.isfinite(loss) else "loss-not-finite",
        organism=job.organism_id,
        step=step,
        loss=loss,
        norm=norm,
    )


def nonfinite_weights_error(job: TrainingJob) -> OrganismError:
    """The error of an organism whose last step diverged: losses are checked before each step."""
    return OrganismError(
        f"{job.organism_id}: the last step left weights that are not finite",
        "lower learning_rate in the recipe",
        code="weights-not-finite",
        organism=job.organism_id,
    )
