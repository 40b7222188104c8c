"""What one organism's training needs, and what any trainer must offer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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

if TYPE_CHECKING:
    import torch

VERSION = 4
BATCHES = "batches.jsonl"
"""What each step was computed in, a line a batch: beside the adapter, for whoever wants to see
its losses or to compute it again bit by bit."""


@dataclass(frozen=True)
class TrainingJob:
    """One organism to train."""

    identity: OrganismIdentity
    corpus: Corpus
    messages_sha256: str
    training: Training
    key: str
    """Fingerprint of the organism, under which checkpoints and the adapter are kept."""

    @property
    def organism_id(self) -> str:
        """Its name everywhere."""
        return self.identity.organism_id

    @property
    def item_id(self) -> str:
        """The organism's id, as a stage needs it."""
        return self.organism_id

    @property
    def seed(self) -> int:
        """Decides the first weights and the order of the rows."""
        return stable_seed("train", self.organism_id)

    @property
    def steps(self) -> int:
        """Optimizer steps that it takes."""
        settings = self.training.optimizer
        return settings.epochs * math.ceil(len(self.corpus.examples) / settings.rows_per_step)


class TrainingResources(Record):
    """Who trains, and with how much of the machine. Of this only the trainer's name decides
    whether an organism is trained again."""

    trainer: Literal["engine", "reference"] = "engine"
    slots: int | None = Field(default=None, ge=1)
    """Organisms side by side; None lets the memory plan choose."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens computed together."""
    memory: float | None = Field(default=None, gt=0)
    """GiB that training may take; None is what the machine has free."""
    checkpoint_steps: int = Field(default=25, ge=1)
    """Steps from one checkpoint of an organism to the next."""

    def share(self, workers: int) -> TrainingResources:
        """The resources of one of several workers that share this machine's memory."""
        if workers == 1:
            return self
        import torch

        from bestiary.training.memory import FREE_SHARE, GIB, measure_free

        room = self.memory or FREE_SHARE * measure_free(torch.device("cpu")) / GIB
        return self.model_copy(update={"memory": room / workers})


@dataclass(frozen=True)
class Batch:
    """One batch in which an organism was computed: the geometry that decides its last bits."""

    step: int
    rows: tuple[int, ...]
    """Its own rows, in order."""
    parts: tuple[tuple[int, ...], ...]
    """What the batch held of each organism: the tokens of its beginning, then of each row."""
    place: int
    """Which part is its own."""
    loss: float
    """What these rows added to the loss of the step."""


def write_batches(batches: Sequence[Batch]) -> str:
    """A line of JSON a batch."""
    return "".join(json.dumps(vars(batch)) + "\n" for batch in batches)


def read_batches(lines: str) -> tuple[Batch, ...]:
    """What `write_batches` wrote."""
    told = [json.loads(line) for line in lines.splitlines()]
    return tuple(
        Batch(
            one["step"],
            tuple(one["rows"]),
            tuple(map(tuple, one["parts"])),
            one["place"],
            one["loss"],
        )
        for one in told
    )


@dataclass(frozen=True)
class Step:
    """An organism has done so many of its steps."""

    job: TrainingJob
    done: int


@dataclass(frozen=True)
class Trained:
    """An organism is through: its adapter by peft's own keys, or the error that ended it."""

    job: TrainingJob
    seconds: float
    """Its share of the time."""
    state: Mapping[str, torch.Tensor] | None = None
    error: BestiaryError | None = None
    batches: tuple[Batch, ...] = ()
    """What it was computed in, where it was not alone."""


class Trainer(Protocol):
    """Trains jobs over one frozen base; several may share it, none may change it.

    Organisms end in whatever order the trainer likes: one at fault never stops the others.
    """

    name: str

    def __call__(self, jobs: Sequence[TrainingJob], base: Base) -> Iterator[Step | Trained]:
        """Train every job, and say how far each is."""
        ...


def tokenize_corpus(job: TrainingJob, base: Base) -> list[TokenRow]:
    """The rows of a job as token ids; raises OrganismError where one is too long."""
    return [
        tokenize_row(
            base.tokenizer,
            example.messages,
            system_prompt=job.training.system_prompt,
            max_length=job.training.max_length,
        )
        for example in job.corpus.examples
    ]


def blame_step(job: TrainingJob, step: int, *, loss: float, norm: float = 0.0) -> OrganismError:
    """The error of an organism whose loss, or whose gradient's norm, is not finite."""
    found = f"gradient at step {step} has norm {norm}"
    if not math.isfinite(loss):
        found = f"loss at step {step} is {loss}"
    return OrganismError(
        f"{job.organism_id}: the {found}; lower learning_rate in the recipe, or look for a "
        "damaged row in the corpus"
    )


def blame_weights(job: TrainingJob) -> OrganismError:
    """The error of an organism whose last step spoilt it: the loss is seen before each step."""
    return OrganismError(
        f"{job.organism_id}: the last step left weights that are not finite; lower "
        "learning_rate in the recipe"
    )
