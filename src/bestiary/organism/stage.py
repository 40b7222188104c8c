"""The organism stage: trains many adapters, each committed as soon as it is finished."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from bestiary.config.recipe import Training
from bestiary.errors import MemoryShortError
from bestiary.model.adapter import ADAPTER, save_adapter
from bestiary.model.base import Base
from bestiary.model.lazy import LazyBase
from bestiary.records import Artifact, Corpus, OrganismIdentity, canonical_json, fingerprint
from bestiary.stage import Context, Made, Stage
from bestiary.store import Store
from bestiary.training.checkpoint import Checkpoints
from bestiary.training.job import (
    BATCHES,
    VERSION,
    Step,
    Trainer,
    TrainingJob,
    TrainingResources,
    TrainResult,
    write_batches,
)

ABOUT = "organism.json"
"""Beside an adapter: what anyone who finds it must know to use it."""


@dataclass(frozen=True)
class OrganismStage(Stage[TrainingJob, Artifact]):
    """Trains organisms side by side over one frozen base."""

    name = "organism"
    version = VERSION
    unit = "steps"
    distributed = True

    base: LazyBase
    resources: TrainingResources

    def make_job(
        self,
        identity: OrganismIdentity,
        corpus: Corpus,
        training: Training,
        *,
        phases: tuple[int, ...] = (),
    ) -> TrainingJob:
        """One organism to train; `phases` are the rows of each, if they follow each other.

        Its key covers the conversations, the training settings, the base and the trainer: other
        provenance, drops or findings beside the same conversations train nothing again.
        """
        messages = corpus.messages_sha256
        key = fingerprint(
            identity=identity,
            messages=messages,
            training=training,
            base=self.base.identity,
            trainer=self.resources.trainer,
            version=self.version,
            **({"phases": phases} if phases else {}),
        )
        return TrainingJob(identity, corpus, messages, training, key, phases=phases)

    def key(self, item: TrainingJob) -> str:
        """The job's own key, under which its checkpoints are kept too."""
        return item.key

    def inputs(self, item: TrainingJob) -> Mapping[str, str]:
        """The conversations and the base."""
        return {"messages": item.messages_sha256, "base": self.base.identity.weights_sha256}

    def size(self, item: TrainingJob) -> int:
        """Optimizer steps."""
        return item.steps

    def affinity(self, item: TrainingJob) -> Hashable:
        """Jobs that adapt the same modules share a LoRA bank."""
        shape = item.training.lora
        return frozenset(shape.targets), shape.layers

    def checkpoints(self, store: Store) -> Mapping[str, int]:
        """Steps of unfinished organisms."""
        return Checkpoints(store).list_steps()

    def tidy(self, item: TrainingJob, store: Store) -> None:
        """Delete the checkpoint of a finished organism, which a kill may have left behind."""
        Checkpoints(store).drop(item)

    def for_workers(self, count: int) -> Self:
        """Workers that share this machine's memory each get their part of it."""
        return replace(self, base=self.base.portable, resources=self.resources.share(count))

    def run(self, todo: Sequence[TrainingJob], context: Context) -> Iterator[Made[TrainingJob]]:
        """Train every job; an organism's checkpoint is deleted once its adapter is committed."""
        base = self.base.load()
        for event in make_trainer(self.resources, context.store)(todo, base):
            if isinstance(event, Step):
                context.reporter.advance(event.job.organism_id, event.done)
                continue
            write = None if event.error else partial(self._write, event, base)
            yield Made(event.job, write, error=event.error, seconds=event.seconds)
            if not isinstance(event.error, MemoryShortError):  # it may go on with more memory
                self.tidy(event.job, context.store)

    def read(self, artifact: Artifact) -> Artifact:
        """The artifact itself: adapters are read by peft or by a LoRA bank."""
        return artifact

    def _write(self, trained: TrainResult, base: Base, folder: Path) -> None:
        assert trained.state is not None
        job = trained.job
        save_adapter(trained.state, job.training.lora, base, folder / ADAPTER)
        write_about(folder, job.identity, self.base, job.training.system_prompt)
        if trained.batches:
            (folder / BATCHES).write_text(write_batches(trained.batches), encoding="utf8")


def write_about(
    folder: Path, identity: OrganismIdentity, base: LazyBase, system_prompt: str
) -> None:
    """Write what `bestiary chat` reads beside an adapter."""
    about = {
        "organism_id": identity.organism_id,
        "load_base": base.name,
        "base": base.identity,
        "system_prompt": system_prompt,
    }
    (folder / ABOUT).write_bytes(canonical_json(about))


def make_trainer(resources: TrainingResources, store: Store) -> Trainer:
    """The trainer that the resources name."""
    if resources.trainer == "reference":
        from bestiary.training.reference import ReferenceTrainer

        return ReferenceTrainer()
    from bestiary.training.engine import EngineTrainer

    return EngineTrainer(resources, Checkpoints(store, every=resources.checkpoint_steps))
