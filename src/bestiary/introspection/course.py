"""The course of an introspection adapter: supervised training, then preferences where asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bestiary.config.introspection import Preference
from bestiary.config.on_demand import spread
from bestiary.errors import ReleaseError
from bestiary.introspection.experiment import Experiment
from bestiary.introspection.lessons import list_lessons
from bestiary.introspection.preferences import (
    GradedReport,
    PreferenceItem,
    PreferencePair,
    PreferenceStage,
    score_report,
)
from bestiary.introspection.reports import ReportStage
from bestiary.introspection.stage import IntrospectionJob, IntrospectionStage
from bestiary.introspection.subjects import Subject, make_controls
from bestiary.model.adapter import ADAPTER
from bestiary.records import Decoding
from bestiary.training.objective import Dpo, Objective, Sft

PREFERENCE = "preference"
"""Item of the reports and pairs, and the end of the adapter's name."""
PREFERENCE_QUESTIONS = 4
"""Training questions that organisms of the preference split are asked."""
PREFERENCE_ORGANISMS = 30
"""Fewest organisms from which preferences are learned: fewer teach their own labels."""


def train_adapter(experiment: Experiment, fold: int = 0) -> Path:
    """The peft directory of a fold's adapter, trained unless the store has it.

    Raises ReleaseError, before anything is trained, if the release lacks organisms for it.
    """
    stage = IntrospectionStage(experiment.load_base, experiment.catalog.library.templates)
    settings = experiment.recipe.preference
    preferring = list_preferring(experiment) if settings else []
    trained = experiment.run(stage, make_job(experiment, fold)).folder / ADAPTER
    if settings is None:
        return trained
    job = make_preference_job(experiment, preferring, trained, settings)
    return experiment.run(stage, job).folder / ADAPTER


def check_course(experiment: Experiment, fold: int = 0) -> None:
    """Raise ReleaseError if the release lacks organisms for a fold's adapter."""
    make_job(experiment, fold)
    if experiment.recipe.preference:
        list_preferring(experiment)


def make_job(experiment: Experiment, fold: int) -> IntrospectionJob:
    """The supervised training of a fold's adapter.

    Raises ReleaseError if no organism is in the training split.
    """
    recipe, subjects = experiment.recipe, experiment.subjects
    trained = [one for one in experiment.folded[fold] if one.split == "train"]
    organisms = [one for one in trained if not one.is_control]
    if not organisms:
        raise ReleaseError(
            f"{subjects.release} has no organism in its training split",
            "name training families under `splits` of the roster, or evaluate with --folds; no "
            "adapter is trained on an evaluation suite",
            code="no-training-organisms",
            path=subjects.release,
        )
    for kind, count in recipe.controls.count(len(trained)).items():
        trained += make_controls(organisms, kind, count, seed=recipe.seed)
    name = f"{recipe.name}-fold-{fold}" if experiment.folds else recipe.name
    rows = recipe.rows_per_organism
    questions = spread(experiment.questions("train"), rows)
    answers = [
        list_lessons(one, questions, count=rows, wordings=recipe.wordings) for one in trained
    ]
    return _make_job(experiment, name, trained, answers, Sft())


def list_preferring(experiment: Experiment) -> list[Subject]:
    """The preference split.

    Raises ReleaseError if it has too few organisms, and for folds, which have no such split.
    """
    if experiment.folds:
        raise ReleaseError(
            f"{experiment.recipe.name} learns preferences, and folds have no preference split",
            "evaluate without folds, or remove `preference` from the introspection recipe",
            code="preference-with-folds",
            recipe=experiment.recipe.name,
        )
    (members,) = experiment.folded
    subjects = [one for one in members if one.split == "preference"]
    organisms = [one for one in subjects if not one.is_control]
    if len(organisms) < PREFERENCE_ORGANISMS:
        raise ReleaseError(
            f"{len(organisms)} organisms are in the preference split, and preferences need "
            f"{PREFERENCE_ORGANISMS}",
            "build a larger roster, or remove `preference` from the introspection recipe",
            code="preference-organisms-few",
            organisms=len(organisms),
        )
    return subjects


def make_preference_job(
    experiment: Experiment, subjects: Sequence[Subject], trained: Path, settings: Preference
) -> IntrospectionJob:
    """The preference training of some subjects, which goes on from a supervised adapter."""
    reports = _grade_reports(experiment, subjects, trained, settings)
    item = PreferenceItem(PREFERENCE, tuple(subjects), tuple(reports), settings)
    pairs = experiment.run(PreferenceStage(), item)
    answers = [_list_rows(pairs, number) for number in range(len(subjects))]
    optimizer = experiment.recipe.optimizer.model_copy(
        update={"learning_rate": settings.learning_rate, "epochs": 1, "rows_per_step": 2}
    )
    name = f"{experiment.recipe.name}-{PREFERENCE}"
    job = _make_job(experiment, name, subjects, answers, Dpo(beta=settings.beta))
    return replace(job, optimizer=optimizer, start=trained)


def _make_job(
    experiment: Experiment,
    name: str,
    subjects: Sequence[Subject],
    answers: Sequence[Sequence[tuple[str, str]]],
    objective: Objective,
) -> IntrospectionJob:
    recipe = experiment.recipe
    return IntrospectionJob(
        item_id=name,
        subjects=tuple(subjects),
        answers=tuple(map(tuple, answers)),
        lora=recipe.lora,
        optimizer=recipe.optimizer,
        objective=objective,
        per_step=recipe.organisms_per_step,
        seed=recipe.seed,
        base=experiment.subjects.base,
        system_prompt=experiment.subjects.system_prompt,
        release=(experiment.subjects.name, experiment.subjects.sha256),
    )


def _grade_reports(
    experiment: Experiment, subjects: Sequence[Subject], adapter: Path, settings: Preference
) -> list[GradedReport]:
    """What organisms of the preference split say at temperature 1, with scores."""
    decoding = Decoding(
        max_new_tokens=experiment.recipe.reports.max_new_tokens,
        temperature=1.0,
        seed=experiment.recipe.seed,
    )
    questions = [one.text for one in spread(experiment.questions("train"), PREFERENCE_QUESTIONS)]
    stage = ReportStage(experiment.load_base, decoding, draws=settings.reports)
    said = experiment.ask(stage, experiment.interview(PREFERENCE, subjects, adapter, questions))
    members = experiment.subjects.members
    mechanisms = {one.family: one.mechanism for one in members if one.split != "suite"}
    cases = [experiment.make_case(subjects[at], text) for at, _, text in said]
    return [
        GradedReport(
            subject=at,
            question=questions[number],
            text=text,
            score=reading.score
            if experiment.language_judge
            else score_report(subjects[at], reading.family, reading.trigger, mechanisms),
        )
        for (at, number, text), reading in zip(said, experiment.pair_judge.read(cases), strict=True)
    ]


def _list_rows(pairs: Sequence[PreferencePair], subject: int) -> list[tuple[str, str]]:
    """The rows of one subject: of each pair, the chosen answer and then the rejected one."""
    return [
        (pair.question, answer)
        for pair in pairs
        if pair.subject == subject
        for answer in (pair.chosen, pair.rejected)
    ]
