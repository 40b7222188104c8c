"""What training and evaluation of introspection adapters read, and whom each fold keeps apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from bestiary.config.catalog import Catalog
from bestiary.config.elicitation import Question, QuestionSide
from bestiary.config.introspection import IntrospectionRecipe
from bestiary.config.on_demand import spread
from bestiary.errors import ReleaseError
from bestiary.introspection.figures import ReportRow
from bestiary.introspection.judge import (
    OTHER,
    PAIR_MARGIN,
    EmbeddedJudge,
    Reading,
    ReportCase,
    ReportJudge,
    Wordings,
)
from bestiary.introspection.reports import Interview, LikelihoodStage, Report, ReportStage
from bestiary.introspection.shortlist import EmbeddedShortlister, Shortlister
from bestiary.introspection.subjects import Subject, SubjectKind, Subjects, make_controls
from bestiary.model.adapter import ADAPTER_WEIGHTS
from bestiary.records import Split, sha256_bytes, sha256_file
from bestiary.stage import Item, Stage, run_stage
from bestiary.store import Store

if TYPE_CHECKING:
    from bestiary.model.base import Base

In = TypeVar("In", bound=Item)
Out = TypeVar("Out")

TRAINED_ASKED = 16
"""Organisms of the training split that are asked too, to see what was learned at all."""
CONTROLS_ASKED: dict[SubjectKind, int] = {"zero_b": 1, "gaussian": 8, "shuffled": 8}
"""Made controls that are asked; every `zero_b` is the bare base."""
ASKED: tuple[Split, ...] = ("test", "iid_test", "adapter_ood", "suite")
"""The splits whose organisms no adapter is trained on."""
APART: tuple[Split, ...] = ("adapter_ood", "suite")
"""The splits that are the same in every fold."""
JUDGED_BY = "-judged-by-"
UNSEEN_NULL = "unseen_null"
"""Scope of null organisms of a source that no adapter is trained on."""
EVALUATION_SEED = 1_000_003
"""Of the controls that are evaluated; a recipe's seed is smaller."""


@dataclass(frozen=True)
class Experiment:
    """A release and a recipe, with everything that they are read with."""

    subjects: Subjects
    recipe: IntrospectionRecipe
    catalog: Catalog
    load_base: Callable[[], Base]
    store: Store
    console: Console
    folds: int = 0
    """Parts of the families, each unseen once; 0 takes the release's own splits."""
    skip_first_fold: bool = False
    """Whether evaluation leaves the first fold out, as a recipe was chosen by it."""
    language_judge: ReportJudge | None = None
    """Reads reports in place of the embedded judge."""
    shortlister: Shortlister = field(default_factory=EmbeddedShortlister)
    """Makes a few statements of many reports."""

    @cached_property
    def wordings(self) -> Wordings:
        """The behaviors of the release, and of its suite, as judges know them.

        Raises ReleaseError for one that the data folders do not have: nothing could name it.
        """
        return self._wordings_of(self.subjects.members)

    def _wordings_of(self, members: Sequence[Subject]) -> Wordings:
        known = {one.behavior_id for one in members if not one.is_control}
        missing = sorted(known - set(self.catalog))
        if missing:
            raise ReleaseError(
                f"{missing[0]} was released, and no data folder describes it",
                "name the data folder that it was built with, --data FOLDER",
                code="behavior-not-described",
                behavior=missing[0],
            )
        return Wordings(behavior for id_, behavior in self.catalog.items() if id_ in known)

    @cached_property
    def embedded_judge(self) -> EmbeddedJudge:
        """The judge by nearest meaning."""
        return EmbeddedJudge(self.wordings, self.catalog.library.vague_reports.reports)

    @property
    def results(self) -> Path:
        """The folder of what is found about the release."""
        return self.store.root / "introspection" / name_file(self.subjects.name)

    @property
    def judge(self) -> ReportJudge:
        """Who reads reports."""
        return self.language_judge or self.embedded_judge

    @cached_property
    def pair_judge(self) -> ReportJudge:
        """Who grades the reports that preference pairs are made of: never the same encoder."""
        if self.language_judge is not None:
            return self.language_judge
        from bestiary.model.minilm import encode_with_minilm

        vague = self.catalog.library.vague_reports.reports
        ordinary = [one for one in self.subjects.members if one.split != "suite"]
        wordings = self._wordings_of(ordinary)  # a suite must not change what is trained
        return EmbeddedJudge(wordings, vague, encode=encode_with_minilm, margin=PAIR_MARGIN)

    def make_case(self, subject: Subject, report: str) -> ReportCase:
        """A subject's report, for the judge."""
        return ReportCase(
            behavior_id=subject.behavior_id,
            family=subject.family,
            label=subject.labels[0],
            trigger=self.wordings.describe_trigger(subject.behavior_id),
            report=report,
        )

    def make_row(
        self,
        fold: int,
        condition: str,
        subject: Subject,
        *,
        question: str,
        report: str,
        reading: Reading,
        shows: bool | None = None,
    ) -> ReportRow:
        """One report: who was asked what, what was said, and what the judge made of it."""
        return ReportRow(
            fold=fold,
            condition=condition,
            scope=self.scope(subject, fold),
            subject=_name_in_rows(subject),
            behavior_id=subject.behavior_id,
            category=subject.category,
            family=subject.family,
            siblings=subject.siblings,
            axes=subject.axes,
            control=subject.is_control,
            question=question,
            report=report,
            claimed=_find_claim(subject, reading),
            trigger=reading.trigger,
            score=reading.score,
            shows=shows,
        )

    def questions(self, side: QuestionSide) -> Sequence[Question]:
        """The generic questions of one side."""
        return self.catalog.library.elicitation.ask(side)

    @cached_property
    def folded(self) -> tuple[tuple[Subject, ...], ...]:
        """The organisms and null organisms of each fold, each in its split there."""
        return tuple(self._fold(number) for number in range(max(1, self.folds)))

    def _fold(self, fold: int) -> tuple[Subject, ...]:
        apart = [one for one in self.subjects.members if one.split in APART]
        members = [one for one in self.subjects.members if one.split not in APART]
        if self.folds:
            dealt = deal_families(members, self.folds)
            members = [_place(one, dealt, fold) for one in members]
        recipe = self.recipe
        left_out = {one.family for one in members if one.category in recipe.leave_out}
        members = [  # their twins in other categories, too: their labels say the same
            replace(one, split="test") if one.family in left_out else one for one in members
        ]
        kept = [one for one in members if one.split != "train" or _is_kept(one, recipe.share)]
        return tuple(replace(one, strength=recipe.strength) for one in (*kept, *apart))

    @property
    def evaluated_folds(self) -> range:
        """The folds whose adapters an evaluation trains and asks."""
        return range(int(self.skip_first_fold), max(1, self.folds))

    @property
    def _learned_splits(self) -> tuple[Split, ...]:
        return ("train", "preference") if self.recipe.preference else ("train",)

    @cached_property
    def trained_kinds(self) -> tuple[frozenset[str], ...]:
        """The mechanisms that each fold trains on."""
        return tuple(
            frozenset(one.mechanism for one in members if one.split in self._learned_splits)
            for members in self.folded
        )

    @cached_property
    def trained_families(self) -> tuple[frozenset[str], ...]:
        """The families that each fold trains on."""
        return tuple(
            frozenset(one.family for one in members if one.split in self._learned_splits)
            for members in self.folded
        )

    def list_asked(self, fold: int) -> list[Subject]:
        """The subjects that are evaluated, controls among them; those unseen come first."""
        members = self.folded[fold]
        unseen = [one for one in members if one.split in ASKED]
        known = [one for one in members if one.split == "train" and not one.is_control]
        models = [one for one in unseen if not one.is_control] or known
        made = [
            control
            for kind, count in CONTROLS_ASKED.items()
            for control in make_controls(models, kind, count, seed=EVALUATION_SEED)
        ]
        return [*unseen, *spread(known, TRAINED_ASKED), *made]

    def scope(self, subject: Subject, fold: int) -> str:
        """What training knew of a subject: its family, its kind of behavior, or neither.

        Of an organism of another recipe, whether its family was trained at all.
        """
        if subject.is_control:
            return UNSEEN_NULL if subject.held_out else subject.kind
        if subject.split == "suite":
            return "suite"
        if subject.split == "adapter_ood":
            return "recipe" if subject.family in self.trained_families[fold] else "test_recipe"
        if subject.split == "iid_test" and subject.family in self.trained_families[fold]:
            return "seen"
        if subject.split not in ("test", "iid_test"):
            return "train"
        return "test_value" if subject.mechanism in self.trained_kinds[fold] else "test_kind"

    def interview(
        self,
        name: str,
        subjects: Sequence[Subject],
        adapter: Path | None,
        questions: Sequence[str],
    ) -> Interview:
        """Subjects that are asked with an adapter, or by themselves."""
        return Interview(
            item_id=name,
            subjects=tuple(subjects),
            adapter=adapter,
            adapter_sha256=sha256_file(adapter / ADAPTER_WEIGHTS) if adapter else None,
            questions=tuple(questions),
            base=self.subjects.base,
            system_prompt=self.subjects.system_prompt,
        )

    def run(self, stage: Stage[In, Out], item: In) -> Out:
        """What a stage makes of an item, from the store where it is there; raises its error."""
        (made,) = self.run_all(stage, [item])
        return made

    def ask(self, stage: ReportStage, interview: Interview) -> list[Report]:
        """What the subjects say, in their order; an error is raised once all parts are done.

        The behaviors of a mixture share an adapter, which is asked once.
        """
        alike: dict[object, list[int]] = {}
        for at, subject in enumerate(interview.subjects):
            alike.setdefault(subject.voice, []).append(at)
        groups = list(alike.values())
        asked = replace(interview, subjects=tuple(interview.subjects[own[0]] for own in groups))
        parts = asked.divide()
        said = self.run_all(stage, parts)
        starts = accumulate((len(part.subjects) for part in parts), initial=0)
        return sorted(
            report._replace(subject=at)
            for start, reports in zip(starts, said, strict=False)
            for report in reports
            for at in groups[start + report.subject]
        )

    def score(self, stage: LikelihoodStage, interview: Interview) -> list[list[float]]:
        """How likely each subject finds each label, in the order of the subjects."""
        return list(chain(*self.run_all(stage, interview.divide())))

    def run_all(self, stage: Stage[In, Out], items: Sequence[In]) -> list[Out]:
        """What a stage makes of some items, as `run` does of one."""
        results = run_stage(stage, items, store=self.store, console=self.console)
        for result in results:
            if result.error:
                raise result.error
        return [result.read() for result in results]


def _find_claim(subject: Subject, reading: Reading) -> str | None:
    """The family that a report claims; None where it may be another behavior of a mixture."""
    return None if subject.siblings and reading.family == OTHER else reading.family


def _name_in_rows(subject: Subject) -> str:
    """A subject's id; a random adapter is told from those modeled on organisms of other folds."""
    if subject.kind not in ("gaussian", "shuffled"):
        return subject.id
    return f"{subject.id}-{(subject.organism_sha256 or '')[:8]}"


def name_judge(experiment: Experiment) -> str:
    """The end of a result's name, which tells what two judges make of the same reports apart."""
    if experiment.language_judge is None:
        return ""
    return f"{JUDGED_BY}{experiment.judge.name}"


def name_file(name: str) -> str:
    """A name as that of a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def deal_families(members: Sequence[Subject], folds: int) -> dict[str, int]:
    """The fold in which each family is unseen; a null organism counts as a family of its own.

    Families are dealt in the order of a hash, mechanism by mechanism, so that a fold holds about
    as many of each mechanism as any other.
    """
    families = {_name_family(one): one.mechanism for one in members}
    order = sorted(families, key=lambda name: (families[name], sha256_bytes(name.encode())))
    return {name: place % folds for place, name in enumerate(order)}


def _is_kept(subject: Subject, share: float) -> bool:
    """Whether a training organism is among a share of the families; a larger one adds to it."""
    digest = sha256_bytes(_name_family(subject).encode())
    return subject.is_control or int(digest[:8], 16) < share * 2**32


def _name_family(subject: Subject) -> str:
    return subject.id if subject.is_control else subject.family


def _place(subject: Subject, dealt: dict[str, int], fold: int) -> Subject:
    """A subject in its split of a fold; a further seed of a trained behavior stays apart."""
    split: Split = "iid_test" if subject.split == "iid_test" else "train"
    if subject.held_out or dealt[_name_family(subject)] == fold:
        split = "test"
    return replace(subject, split=split)
