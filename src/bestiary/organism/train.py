"""Training as a build does it: an organism is committed to the store as soon as it is through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bestiary.errors import BestiaryError, MemoryShortError
from bestiary.model.adapter import ADAPTER, save_adapter
from bestiary.model.base import Base
from bestiary.records import BaseIdentity, canonical_json
from bestiary.store import Store, disk_errors
from bestiary.training.checkpoint import Checkpoints
from bestiary.training.job import (
    BATCHES,
    Step,
    Trained,
    Trainer,
    TrainingJob,
    TrainingResources,
    write_batches,
)

STAGE = "organism"


@dataclass(frozen=True)
class Kept:
    """An organism is through: its adapter lies in the store, or its error says why not."""

    job: TrainingJob
    error: BestiaryError | None


@dataclass(frozen=True)
class Workplace:
    """What training needs besides its jobs."""

    store: Store
    effort: TrainingResources
    load_base: str
    """The base's name in a recipe."""
    revision: str | None
    identity: BaseIdentity
    """What that base must come to, wherever it is loaded."""
    open_base: Callable[[], Base]
    """Gives the base in this process, loading it when it is first asked for."""


class Executor(Protocol):
    """Decides where jobs are trained; every organism is in the store before its Kept is told."""

    def __call__(self, jobs: Sequence[TrainingJob], place: Workplace, /) -> Iterator[Step | Kept]:
        """Train every job, and say how far each is."""
        ...


def make_trainer(effort: TrainingResources, store: Store) -> Trainer:
    """The trainer that an effort names."""
    if effort.trainer == "reference":
        from bestiary.training.reference import ReferenceTrainer

        return ReferenceTrainer()
    from bestiary.training.engine import EngineTrainer

    return EngineTrainer(effort, Checkpoints(store, every=effort.checkpoint_steps))


def train_organisms(
    jobs: Sequence[TrainingJob],
    base: Base,
    store: Store,
    *,
    effort: TrainingResources,
    load_base: str,
) -> Iterator[Step | Kept]:
    """Train jobs and commit each adapter; `load_base` is the base's name in a recipe."""
    with disk_errors(store.root):
        for event in make_trainer(effort, store)(jobs, base):
            if isinstance(event, Step):
                yield event
                continue
            if event.error is None:
                _commit(event, base, store, load_base)
            if not isinstance(event.error, MemoryShortError):
                Checkpoints(store).drop(event.job)
            yield Kept(event.job, event.error)


def _commit(trained: Trained, base: Base, store: Store, load_base: str) -> None:
    assert trained.state is not None
    job = trained.job
    folder = store.start(STAGE, job.key)
    save_adapter(trained.state, job.training.lora, base, folder / ADAPTER)
    about = {  # what someone who finds an adapter must know to use it
        "organism_id": job.organism_id,
        "load_base": load_base,
        "base": base.identity,
        "system_prompt": job.training.system_prompt,
    }
    (folder / "organism.json").write_bytes(canonical_json(about))
    if trained.batches:
        (folder / BATCHES).write_text(write_batches(trained.batches), encoding="utf8")
    inputs = {"corpus": job.corpus_sha256, "base": base.identity.weights_sha256}
    store.commit(STAGE, job.key, inputs=inputs, seconds=trained.seconds)
