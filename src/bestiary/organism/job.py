"""What one organism's training needs, and what any trainer must offer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bestiary.errors import BestiaryError
from bestiary.model.base import Base
from bestiary.records import BaseIdentity, Corpus, OrganismIdentity, fingerprint
from bestiary.spec.recipe import Training

VERSION = 3

OnStep = Callable[[int], None]
"""Hears how many optimiser steps of the current organism are done."""


@dataclass(frozen=True)
class Job:
    """One organism to train, and the empty folder its adapter goes to."""

    identity: OrganismIdentity
    corpus: Corpus
    training: Training
    folder: Path


class Trainer(Protocol):
    """Trains jobs over one frozen base; several may share it, none may change it.

    A job is yielded once its folder holds a whole adapter, or with the error that ended it, in
    whatever order the trainer likes: one organism at fault never stops the others.
    """

    name: str

    def __call__(
        self, jobs: Sequence[Job], base: Base, *, on_step: OnStep | None = None
    ) -> Iterator[tuple[Job, BestiaryError | None]]:
        """Train every job."""
        ...


def count_steps(job: Job) -> int:
    """Optimiser steps that a job takes."""
    settings = job.training.optimiser
    return settings.epochs * math.ceil(len(job.corpus.examples) / settings.rows_per_step)


def fingerprint_organism(
    identity: OrganismIdentity,
    training: Training,
    base: BaseIdentity,
    *,
    corpus_sha256: str,
    trainer: str,
) -> str:
    """What decides whether an organism must be trained again: nothing but these inputs."""
    return fingerprint(
        identity=identity,
        corpus=corpus_sha256,
        training=training,
        base=base,
        trainer=trainer,
        version=VERSION,
    )
