"""The stage protocol, and `run_stage`: find, run, commit, attribute errors, report progress.

A stage is one class: what its artifact depends on, how it is made, and how it is read. Resume,
errors, timings, progress and distribution are the same for all stages and are all in here.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from rich.console import Console

from bestiary.errors import BestiaryError, attempt
from bestiary.progress import StageProgress
from bestiary.records import Artifact, OrganismIdentity
from bestiary.store import Store, disk_errors


class Item(Protocol):
    """What a stage is run on."""

    @property
    def item_id(self) -> str:
        """Its name in messages and results, unique within a run."""
        ...


@dataclass(frozen=True)
class OrganismItem:
    """An item that says which organism it is of."""

    identity: OrganismIdentity

    @property
    def item_id(self) -> str:
        """The organism's id."""
        return self.identity.organism_id


In = TypeVar("In", bound=Item)
Out = TypeVar("Out")


class Reporter(Protocol):
    """What a running stage reports to."""

    def advance(self, item_id: str, done: int) -> None:
        """Set how many units of an item are done."""
        ...

    def drop(self, reasons: Iterable[str]) -> None:
        """Count dropped examples by reason."""
        ...

    def refresh(self) -> None:
        """Show the progress as it is now."""
        ...


class SilentReporter:
    """Ignores progress: in a worker, the driver reads progress from the store."""

    def advance(self, item_id: str, done: int) -> None:
        """Ignore it."""

    def drop(self, reasons: Iterable[str]) -> None:
        """Ignore them."""

    def refresh(self) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Context:
    """What a stage runs in."""

    store: Store
    reporter: Reporter


@dataclass(frozen=True)
class Made(Generic[In]):
    """A finished item: how to write its artifact, or the error that ended it."""

    item: In
    write: Callable[[Path], None] | None = None
    """Writes the artifact's files into an empty folder; None if there is an error."""
    error: BestiaryError | None = None
    seconds: float | None = None
    """The item's share of the time; None if writing is all there is to it."""
    note: str = ""
    """What is printed about it; most items need nothing said."""


class Stage(ABC, Generic[In, Out]):
    """One kind of artifact and how it is made; a new stage is one subclass."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Part of every key: raised when the same input no longer gives the same artifact."""
    unit: ClassVar[str] = "items"
    """What progress counts."""
    distributed: ClassVar[bool] = False
    """Whether it computes enough to be worth distributing; then it must be picklable."""

    @abstractmethod
    def key(self, item: In) -> str:
        """Hash of everything that decides the artifact, and of nothing else."""

    @abstractmethod
    def run(self, todo: Sequence[In], context: Context) -> Iterator[Made[In]]:
        """Make the artifacts of many items, in any order; an item's error is data."""

    @abstractmethod
    def read(self, artifact: Artifact) -> Out:
        """Read an artifact."""

    def inputs(self, item: In) -> Mapping[str, str]:
        """Upstream hashes recorded in the artifact's manifest, by name."""
        return {}

    def size(self, item: In) -> int:
        """Units of work, as progress counts them."""
        return 1

    def checkpoints(self, store: Store) -> Mapping[str, int]:
        """Units of unfinished work found in the store, by key."""
        return {}

    def tidy(self, item: In, store: Store) -> None:
        """Delete what is left of making an item whose artifact is committed."""

    def describe(self) -> str:
        """A note shown beside the progress."""
        return ""

    def affinity(self, item: In) -> Hashable:
        """Items with equal affinity are cheaper together; a distributing executor groups them."""
        return None

    def for_workers(self, count: int) -> Self:
        """This stage as one of `count` workers that share a machine runs it."""
        return self


class ItemStage(Stage[In, Out]):
    """A stage that makes one artifact after another."""

    @abstractmethod
    def make(self, item: In) -> Callable[[Path], None]:
        """Compute an item's artifact; returns what writes its files."""

    def run(self, todo: Sequence[In], context: Context) -> Iterator[Made[In]]:
        """Make each item in turn."""
        for item in todo:
            started = time.monotonic()
            made = attempt(partial(self.make, item))
            seconds = time.monotonic() - started
            if isinstance(made, BestiaryError):
                yield Made(item, error=made, seconds=seconds)
            else:
                yield Made(item, made, seconds=seconds)


class Todo(NamedTuple, Generic[In]):
    """An item whose artifact is missing."""

    item: In
    key: str


class Finished(NamedTuple):
    """An item that was run: its artifact is committed unless there is an error."""

    item_id: str
    error: BestiaryError | None
    note: str = ""


class Executor(Protocol):
    """Decides where a stage runs: every artifact is in the store before its Finished comes."""

    def __call__(
        self, stage: Stage[In, Out], todo: Sequence[Todo[In]], context: Context, /
    ) -> Iterator[Finished]:
        """Run a stage on items and commit what it makes."""
        ...


def run_here(
    stage: Stage[In, Out], todo: Sequence[Todo[In]], context: Context
) -> Iterator[Finished]:
    """The local executor: run a stage in this process and commit what it makes."""
    keys = {one.item.item_id: one.key for one in todo}
    with disk_errors(context.store.root):
        for made in stage.run([one.item for one in todo], context):
            if made.write is not None:
                context.store.build(
                    stage.name,
                    keys[made.item.item_id],
                    made.write,
                    inputs=stage.inputs(made.item),
                    seconds=made.seconds,
                )
            yield Finished(made.item.item_id, made.error, made.note)


@dataclass(frozen=True)
class Result(Generic[In, Out]):
    """What a stage came to for one item: an artifact or an error."""

    stage: Stage[In, Out]
    artifact: Artifact | None = None
    error: BestiaryError | None = None
    seconds: float = 0.0
    """How long the artifact took when it was made; 0.0 if that was not recorded."""

    def read(self) -> Out:
        """The output, read from the store each time, so that results stay small."""
        assert self.artifact is not None
        return self.stage.read(self.artifact)


def run_stage(
    stage: Stage[In, Out],
    items: Sequence[In],
    *,
    store: Store,
    console: Console,
    execute: Executor = run_here,
) -> list[Result[In, Out]]:
    """Run a stage on items whose artifacts are missing; returns a result per item, in order.

    Raises errors that end the whole run, such as a full disk; any other error ends its item only.
    """
    found = {item.item_id: _find(stage, item, store) for item in items}
    # Two items may come to one artifact, such as a corpus that two mixtures learn from.
    todo = {one.key: one for one in found.values() if isinstance(one, Todo)}
    errors = _execute(stage, [*todo.values()], store, console, execute) if todo else {}
    seconds = store.read_seconds(stage.name)
    results = []
    for item in items:
        end = found[item.item_id]
        if isinstance(end, Todo):
            made = todo[end.key].item
            end = errors[made.item_id] or store.get(stage.name, end.key)
        if isinstance(end, BestiaryError):
            results.append(Result(stage, error=end))
        else:
            spent = seconds.get(end.folder.name, 0.0)
            results.append(Result(stage, artifact=end, seconds=spent))
    return results


def _find(stage: Stage[In, Out], item: In, store: Store) -> Todo[In] | Artifact | BestiaryError:
    """The artifact of an item, or what keeps it from having one."""
    key = attempt(partial(stage.key, item))
    if isinstance(key, BestiaryError):
        return key
    artifact = store.find(stage.name, key)
    if artifact is None:
        return Todo(item, key)
    stage.tidy(item, store)
    return artifact


def _execute(
    stage: Stage[In, Out],
    todo: Sequence[Todo[In]],
    store: Store,
    console: Console,
    execute: Executor,
) -> dict[str, BestiaryError | None]:
    """Run a stage and report its progress; returns each item's error."""
    sizes = {one.item.item_id: stage.size(one.item) for one in todo}
    errors: dict[str, BestiaryError | None] = {}
    total = sum(sizes.values())
    bar = StageProgress(stage.name, stage.unit, total, console, note=stage.describe)
    reached = stage.checkpoints(store)
    with bar.running() as progress:
        for one in todo:
            progress.resume(one.item.item_id, reached.get(one.key, 0))
        for item_id, error, note in execute(stage, todo, Context(store, progress)):
            errors[item_id] = error
            note = f"FAILED: {error}" if error else note
            progress.finish_item(item_id, sizes[item_id], note=note)
        failed = sum(error is not None for error in errors.values())
        progress.finish(len(errors) - failed, failed)
    return errors
