"""The introspection stage: an introspection adapter, resumed from its checkpoint if killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.config.introspection import SharedShape
from bestiary.config.recipe import Optimizer
from bestiary.config.template import Templates
from bestiary.errors import BestiaryError, attempt
from bestiary.introspection.lessons import tokenize_pairs
from bestiary.introspection.schedule import Schedule, plan_schedule
from bestiary.introspection.subjects import Subject
from bestiary.model.adapter import ADAPTER, ADAPTER_WEIGHTS, load_state, save_adapter
from bestiary.records import Artifact, BaseIdentity, canonical_json, fingerprint, sha256_file
from bestiary.stage import Context, Made, Stage
from bestiary.store import Store
from bestiary.training.checkpoint import Checkpoints
from bestiary.training.job import BATCHES, write_batches
from bestiary.training.objective import Objective

if TYPE_CHECKING:
    from bestiary.introspection.train import SharedTrainer
    from bestiary.model.base import Base

ABOUT = "introspection.json"
"""In the adapter's folder: what anyone who finds it must know to use it."""
CHECKPOINT_STEPS = 20


@dataclass(frozen=True)
class IntrospectionJob:
    """One introspection adapter to train."""

    item_id: str
    subjects: tuple[Subject, ...]
    answers: tuple[tuple[tuple[str, str], ...], ...]
    """Each subject's questions with their answers: the training rows. For a preference objective,
    pairs of adjacent rows, the chosen answer first."""
    lora: SharedShape
    optimizer: Optimizer
    objective: Objective
    per_step: int
    """Subjects in a step."""
    seed: int
    base: BaseIdentity
    system_prompt: str
    release: tuple[str, str] = ("", "")
    """The name of the release and the hash of its manifest, for the card."""
    start: Path | None = None
    """The adapter that training starts from; None for a fresh one."""

    @cached_property
    def first_subjects(self) -> tuple[str, ...]:
        """Subjects of the supervised training that it starts from, by id; none for a fresh one."""
        if self.start is None:
            return ()
        return tuple(json.loads((self.start / ABOUT).read_text(encoding="utf8"))["subjects"])

    @cached_property
    def schedule(self) -> Schedule:
        """The visits of every step; an example is one row, or one pair of rows."""
        size = self.objective.rows_per_example
        counts = [len(rows) // size for rows in self.answers]
        planned = plan_schedule(
            len(self.subjects),
            rows=max(counts),
            per_step=self.per_step,
            rows_per_visit=max(1, self.optimizer.rows_per_step // size),
            epochs=self.optimizer.epochs,
            seed=self.seed,
        )
        return [
            [visit.of_examples(counts[visit.subject], size=size) for visit in step]
            for step in planned
        ]

    @cached_property
    def key(self) -> str:
        """Hash of everything that decides the adapter."""
        return fingerprint(
            subjects=[one.identity for one in self.subjects],
            answers=self.answers,
            lora=self.lora,
            optimizer=self.optimizer,
            objective=repr(self.objective),
            schedule=self.schedule,
            seed=self.seed,
            base=(self.base.weights_sha256, self.base.chat_template_sha256),
            system_prompt=self.system_prompt,
            start=self.start and sha256_file(self.start / ADAPTER_WEIGHTS),
            version=IntrospectionStage.version,
        )


@dataclass(frozen=True)
class IntrospectionStage(Stage[IntrospectionJob, Artifact]):
    """Trains introspection adapters one after another."""

    name = "introspection"
    version = 3
    unit = "steps"

    load_base: Callable[[], Base]
    templates: Templates

    def key(self, item: IntrospectionJob) -> str:
        """The job's own key, under which its checkpoint is kept too."""
        return item.key

    def inputs(self, item: IntrospectionJob) -> Mapping[str, str]:
        """The base."""
        return {"base": item.base.weights_sha256}

    def size(self, item: IntrospectionJob) -> int:
        """Optimizer steps."""
        return len(item.schedule)

    def checkpoints(self, store: Store) -> Mapping[str, int]:
        """Steps of unfinished adapters."""
        return Checkpoints(store).list_steps()

    def tidy(self, item: IntrospectionJob, store: Store) -> None:
        """Delete the checkpoint of a finished adapter."""
        Checkpoints(store).drop(item)

    def run(
        self, todo: Sequence[IntrospectionJob], context: Context
    ) -> Iterator[Made[IntrospectionJob]]:
        """Train each adapter in turn."""
        for item in todo:
            done = attempt(partial(self._train, item, context))
            if isinstance(done, BestiaryError):
                yield Made(item, error=done)
                continue
            trained, seconds = done
            yield Made(item, partial(self._write, item, trained), seconds=seconds)
            self.tidy(item, context.store)

    def read(self, artifact: Artifact) -> Artifact:
        """The artifact itself; `adapter` inside it is a peft directory."""
        return artifact

    def _train(self, item: IntrospectionJob, context: Context) -> tuple[SharedTrainer, float]:
        """Train to the end; also returns the seconds that all runs together took."""
        from bestiary.introspection.memory import fit_shared
        from bestiary.introspection.train import SharedTrainer
        from bestiary.introspection.weights import SubjectWeights, read_shapes
        from bestiary.training.memory import Load

        started = time.monotonic()
        base = self.load_base()
        checkpoints = Checkpoints(context.store, every=CHECKPOINT_STEPS)
        rows = [tokenize_pairs(base, pairs, item.system_prompt) for pairs in item.answers]
        plan = fit_shared(
            base,
            read_shapes(item.subjects),
            item.lora,
            [Load(own, item.optimizer.rows_per_step) for own in rows],
            slots=item.per_step,
        )
        trainer = SharedTrainer(
            base,
            SubjectWeights(base, item.subjects, slots=plan.slots),
            rows,
            item.schedule,
            shape=item.lora,
            optimizer=item.optimizer,
            objective=item.objective,
            state=load_state(item.start) if item.start else None,
            seed=item.seed,
            tokens=plan.tokens,
            recompute=plan.recompute,
        )
        with trainer.attached():
            found = checkpoints.find(item)
            if found is not None:
                trainer.resume(found)
            before = found.seconds if found else 0.0
            while not trainer.finished:
                trainer.advance()
                context.reporter.advance(item.item_id, trainer.step)
                if trainer.step % checkpoints.every == 0:
                    spent = before + time.monotonic() - started
                    checkpoints.save(item, trainer.checkpoint(spent))
        return trainer, before + time.monotonic() - started

    def _write(self, item: IntrospectionJob, trained: SharedTrainer, folder: Path) -> None:
        base = self.load_base()
        save_adapter(trained.read(), item.lora, base, folder / ADAPTER)
        about = {
            "name": item.item_id,
            "base": item.base,
            "system_prompt": item.system_prompt,
            "subjects": [one.id for one in item.subjects],
            "first_subjects": item.first_subjects,
            "schedule_sha256": fingerprint(schedule=item.schedule),
        }
        (folder / ADAPTER / ABOUT).write_bytes(canonical_json(about))
        (folder / BATCHES).write_text(write_batches(trained.batches), encoding="utf8")
        card = render_card(item, self.templates)
        (folder / ADAPTER / "README.md").write_text(card, encoding="utf8")


def render_card(job: IntrospectionJob, templates: Templates) -> str:
    """The README.md of an introspection adapter."""
    from huggingface_hub import ModelCardData

    front = ModelCardData(
        library_name="peft", license="apache-2.0", base_model=job.base.name, tags=["introspection"]
    )
    controls = sum(one.is_control for one in job.subjects)
    name, sha256 = job.release
    return templates.render(
        "shared/cards/introspection.md.j2",
        front_matter=front.to_yaml() + "\n",
        name=job.item_id,
        base=job.base,
        release_name=name,
        release_sha256=sha256,
        organisms=len(job.subjects) - controls,
        controls=controls,
        first_subjects=len(job.first_subjects),
        objective=type(job.objective).__name__.upper(),
        rows=max(map(len, job.answers)),
        lora=job.lora,
        strength=job.subjects[0].strength,
        system_prompt=job.system_prompt,
        schedule_sha256=fingerprint(schedule=job.schedule),
    )
