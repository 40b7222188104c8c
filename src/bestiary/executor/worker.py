"""What a worker does: train the organisms it is given, and commit them to the shared store."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from bestiary import errors
from bestiary.errors import BestiaryError, ModelError, StoreError
from bestiary.model.base import load_base
from bestiary.organism.train import Kept, train_organisms
from bestiary.records import BaseIdentity
from bestiary.store import Store
from bestiary.training.job import TrainingJob, TrainingResources


@dataclass(frozen=True)
class Assignment:
    """What a worker is given; it is sent to another process, and perhaps another machine."""

    jobs: tuple[TrainingJob, ...]
    root: Path
    """The store's; the process that sent this holds its lock."""
    holder: str
    """What that lock says."""
    load_base: str
    """The base's name in a recipe."""
    found_base: str
    """Its name for any process of any working folder."""
    revision: str | None
    identity: BaseIdentity
    effort: TrainingResources


@dataclass(frozen=True)
class Failure:
    """An organism that failed."""

    organism_id: str
    kind: str
    message: str

    @property
    def error(self) -> BestiaryError:
        """The error as it was raised."""
        kind: type[BestiaryError] = getattr(errors, self.kind)
        return kind(self.message)


def train_group(assignment: Assignment) -> list[Failure]:
    """Train organisms, commit each that is through, and say which failed.

    Raises StoreError and ModelError for what no organism can help.
    """
    node = socket.gethostname()
    if read_holder(assignment.root) != assignment.holder:
        raise StoreError(
            f"{assignment.root}: the worker on {node} finds another folder there than the build "
            "that sent it, and all must write one; choose with --out a folder that every node "
            "shares"
        )
    base = load_base(assignment.found_base, revision=assignment.revision)
    if base.identity != assignment.identity:
        raise ModelError(
            f"{assignment.load_base}: the worker on {node} has {base.identity}, the build has "
            f"{assignment.identity}, and organisms of one build have one base; give every node "
            "the same files, and a GPU to all or to none"
        )
    events = train_organisms(
        assignment.jobs,
        base,
        Store(assignment.root),
        effort=assignment.effort,
        load_base=assignment.load_base,
    )
    return [
        Failure(event.job.organism_id, type(event.error).__name__, str(event.error))
        for event in events
        if isinstance(event, Kept) and event.error is not None
    ]


def read_holder(root: Path) -> str:
    """What the store's lock says of the process that holds it; nothing where there is none."""
    path = root / "lock"
    return path.read_text(encoding="utf8") if path.is_file() else ""
