"""What a worker does: run a stage on the items it is given, and commit to the shared store."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from bestiary.errors import StoreError
from bestiary.stage import Context, Finished, Item, SilentReporter, Stage, Todo, run_here
from bestiary.store import Store

In = TypeVar("In", bound=Item)


@dataclass(frozen=True)
class Assignment(Generic[In]):
    """Work for a worker; it is sent to another process, perhaps on another machine."""

    stage: Stage[In, Any]
    todo: tuple[Todo[In], ...]
    root: Path
    """The store's folder; the process that sends the assignment holds its lock."""
    holder: str
    """What that lock says."""


def run_assignment(assignment: Assignment[In]) -> list[Finished]:
    """Run a stage, commit what it makes, and return how each item ended.

    Raises errors that end the whole run, such as a store that this worker does not share.
    """
    if read_holder(assignment.root) != assignment.holder:
        raise StoreError(
            f"{assignment.root}: the worker on {socket.gethostname()} finds another folder there "
            "than the build that sent it, but all of them must write one store",
            "choose a folder with --out that every machine shares",
            code="store-not-shared",
            root=assignment.root,
        )
    context = Context(Store(assignment.root), SilentReporter())
    return list(run_here(assignment.stage, assignment.todo, context))


def read_holder(root: Path) -> str:
    """What the store's lock says of the process that holds it; empty if there is no lock."""
    path = root / "lock"
    return path.read_text(encoding="utf8") if path.is_file() else ""
