"""Training and evaluating introspection adapters on a release: what each step is run on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from rich.console import Console

from bestiary.config.catalog import Catalog
from bestiary.config.elicitation import Question
from bestiary.config.introspection import IntrospectionRecipe
from bestiary.errors import BestiaryError, ReleaseError
from bestiary.introspection.figures import ReportRow
from bestiary.introspection.judge import EmbeddedJudge, Wordings
from bestiary.introspection.lessons import list_lessons
from bestiary.introspection.reports import Interview, LikelihoodStage, ReportStage
from bestiary.introspection.stage import IntrospectionJob, IntrospectionStage
from bestiary.introspection.subjects import Subject, SubjectKind, Subjects, make_controls
from bestiary.model.adapter import ADAPTER, ADAPTER_WEIGHTS
from bestiary.records import Artifact, Split, sha256_bytes, sha256_file
from bestiary.stage import run_stage
from bestiary.store import Store
from bestiary.training.objective import Sft

if TYPE_CHECKING:
    from bestiary.model.base import Base

TRAINED_ASKED = 16
"""Organisms of the training split that are asked too, to see what was learned at all."""
CONTROLS_ASKED: dict[SubjectKind, int] = {"zero_b": 1, "gaussian": 8, "shuffled": 8}
"""Made controls that are asked; every `zero_b` is the bare base."""
SCORED_LABELS = 64
"""Labels among which an organism's own is ranked."""
LIKELIHOOD_QUESTIONS = 2
EVALUATION_SEED = 1_000_003
"""Of the controls that are evaluated; no recipe's seed reaches it."""


@dataclass(frozen=True)
class Experiment:
    """A release, a recipe, and everything that training and evaluation read."""

    subjects: Subjects
    recipe: IntrospectionRecipe
    catalog: Catalog
    load_base: Callable[[], Base]
    store: Store
    console: Console
    folds: int = 0
    """Parts of the families, each unseen once; 0 takes the release's own splits."""

    @cached_property
    def wordings(self) -> Wordings:
        """The behaviors of the release as judges know them."""
        known = {one.behavior_id for one in self.subjects.members if not one.is_control}
        return Wordings(behavior for id_, behavior in self.catalog.items() if id_ in known)

    @cached_property
    def judge(self) -> EmbeddedJudge:
        """The judge by nearest meaning."""
        vague = self.catalog.library.vague_reports.reports
        return EmbeddedJudge(self.wordings.by_family, vague)

    def questions(self, side: str) -> list[Question]:
        """The generic questions of one side."""
        bank = self.catalog.library.elicitation
        return list(bank.ask("train" if side == "train" else "test"))

    def members(self, fold: int) -> list[Subject]:
        """The organisms and null organisms, each in its split of this fold."""
        if not self.folds:
            return list(self.subjects.members)
        dealt = deal_families(self.subjects.members, self.folds)
        return [_place(one, dealt, fold) for one in self.subjects.members]

    def train(self, fold: int = 0) -> Artifact:
        """The adapter of a fold, trained unless the store has it."""
        job = make_job(self, fold)
        (result,) = run_stage(
            IntrospectionStage(self.load_base), [job], store=self.store, console=self.console
        )
        if result.error or result.artifact is None:
            raise result.error or BestiaryError("no adapter", "train again", code="no-adapter")
        return result.artifact

    def ask(self, fold: int = 0) -> list[ReportRow]:
        """The reports of a fold's subjects with its adapter, and of organisms without any."""
        trained = self.train(fold)
        subjects = self._list_asked(fold)
        organisms = [one for one in subjects if not one.is_control]
        stage = ReportStage(self.load_base, self.recipe.reports.decoding)
        questions = self.questions("test")[: self.recipe.reports.questions]
        rows: list[ReportRow] = []
        for condition, asked, adapter in (
            ("adapter", subjects, trained),
            ("without", organisms, None),
        ):
            interview = self._interview(f"{condition}-{fold}", asked, adapter, questions)
            (result,) = run_stage(stage, [interview], store=self.store, console=self.console)
            if result.error:
                raise result.error
            said = result.read()
            readings = self.judge.read(
                [self.wordings.keep_statements(asked[s].behavior_id, text) for s, _, text in said]
            )
            for (at, number, text), reading in zip(said, readings, strict=True):
                subject = asked[at]
                rows.append(
                    ReportRow(
                        fold=fold,
                        condition=condition,
                        scope=self._scope(subject, fold),
                        subject=subject.id,
                        behavior_id=subject.behavior_id,
                        category=subject.category,
                        family=subject.family,
                        axes=subject.axes,
                        control=subject.is_control,
                        question=questions[number].id,
                        report=text,
                        claimed=reading.family,
                        trigger=self.wordings.names_trigger(subject.behavior_id, text),
                    )
                )
        return rows

    def score(self, fold: int = 0) -> tuple[list[Subject], list[list[float]]]:
        """The organisms of a fold that are not trained on, and what each finds likely.

        One number for each organism and the label of each, in the same order.
        """
        organisms = [
            one
            for one in self._list_asked(fold)
            if not one.is_control and one.split in ("test", "iid_test")
        ][:SCORED_LABELS]
        questions = self.questions("test")[:LIKELIHOOD_QUESTIONS]
        stage = LikelihoodStage(self.load_base, tuple(one.labels[0] for one in organisms))
        interview = self._interview(f"likelihood-{fold}", organisms, self.train(fold), questions)
        (result,) = run_stage(stage, [interview], store=self.store, console=self.console)
        if result.error:
            raise result.error
        return organisms, result.read()

    def _interview(
        self,
        name: str,
        subjects: Sequence[Subject],
        adapter: Artifact | None,
        questions: Sequence[Question],
    ) -> Interview:
        folder = adapter.folder / ADAPTER if adapter else None
        return Interview(
            item_id=name,
            subjects=tuple(subjects),
            adapter=folder,
            adapter_sha256=sha256_file(folder / ADAPTER_WEIGHTS) if folder else None,
            questions=tuple(question.text for question in questions),
            base=self.subjects.base,
            system_prompt=self.subjects.system_prompt,
        )

    def _list_asked(self, fold: int) -> list[Subject]:
        """The subjects that are evaluated, controls among them; those unseen come first."""
        members = self.members(fold)
        unseen = [one for one in members if one.split in ("test", "iid_test")]
        known = [one for one in members if one.split == "train" and not one.is_control]
        models = [one for one in unseen if not one.is_control] or known
        made = [
            control
            for kind, count in CONTROLS_ASKED.items()
            for control in make_controls(models, kind, count, seed=EVALUATION_SEED)
        ]
        return [*unseen, *known[:TRAINED_ASKED], *made]

    def _scope(self, subject: Subject, fold: int) -> str:
        if subject.is_control:
            return subject.kind
        if subject.split == "iid_test":
            return "seen"
        if subject.split == "test":
            trained = {one.mechanism for one in self.members(fold) if one.split == "train"}
            return "test_value" if subject.mechanism in trained else "test_kind"
        return "train"


def make_job(experiment: Experiment, fold: int) -> IntrospectionJob:
    """The supervised training of a fold's adapter.

    Raises ReleaseError if no organism is in the training split.
    """
    recipe, subjects = experiment.recipe, experiment.subjects
    trained = [one for one in experiment.members(fold) if one.split == "train"]
    organisms = [one for one in trained if not one.is_control]
    if not organisms:
        raise ReleaseError(
            f"{subjects.release} has no organism in its training split",
            "name training families under `splits` of the roster, or evaluate with --folds",
            code="no-training-organisms",
            path=subjects.release,
        )
    for kind, count in recipe.controls.count(len(trained)).items():
        trained += make_controls(organisms, kind, count, seed=recipe.seed)
    questions = experiment.questions("train")
    return IntrospectionJob(
        item_id=f"{recipe.name}-{fold}" if experiment.folds else recipe.name,
        subjects=tuple(trained),
        answers=tuple(
            tuple(list_lessons(one, questions, count=recipe.rows_per_organism)) for one in trained
        ),
        lora=recipe.lora,
        optimizer=recipe.optimizer,
        objective=Sft(),
        per_step=recipe.organisms_per_step,
        seed=recipe.seed,
        base=subjects.base,
        system_prompt=subjects.system_prompt,
    )


def deal_families(members: Sequence[Subject], folds: int) -> dict[str, int]:
    """The fold in which each family is unseen; a null organism counts as a family of its own.

    Families are dealt in the order of a hash, mechanism by mechanism, so that a fold holds about
    as many of each mechanism as any other.
    """
    families = {_name_family(one): one.mechanism for one in members}
    order = sorted(families, key=lambda name: (families[name], sha256_bytes(name.encode())))
    return {name: place % folds for place, name in enumerate(order)}


def _name_family(subject: Subject) -> str:
    return subject.id if subject.is_control else subject.family


def _place(subject: Subject, dealt: dict[str, int], fold: int) -> Subject:
    """A subject in its split of a fold; a further seed of a trained behavior stays apart."""
    split: Split = "iid_test" if subject.split == "iid_test" else "train"
    if dealt[_name_family(subject)] == fold:
        split = "test"
    return replace(subject, split=split)
