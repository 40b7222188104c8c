"""An evaluation: subjects are asked and scored, and one row a report and the panel are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from bestiary.config.on_demand import spread
from bestiary.errors import ReleaseError
from bestiary.introspection.baselines import guess_from_replies
from bestiary.introspection.claims import check_claims
from bestiary.introspection.course import train_adapter
from bestiary.introspection.experiment import Experiment, name_file, name_judge
from bestiary.introspection.figures import ADAPTER, SHORTLIST, UNSEEN, ReportRow
from bestiary.introspection.framing import Framing
from bestiary.introspection.judge import Reading
from bestiary.introspection.panel import Panel, make_panel, render_panel
from bestiary.introspection.reports import LikelihoodStage, ReportStage
from bestiary.introspection.subjects import Subject
from bestiary.records import Decoding, canonical_json
from bestiary.store import write_bytes

SCORED_LABELS = 64
"""Labels among which an organism's own is ranked."""
LIKELIHOOD_QUESTIONS = 2


def evaluate_adapter(experiment: Experiment) -> tuple[Panel, Path]:
    """Train what is missing, ask every fold, and write reports and figures.

    Returns the panel and the folder that holds `reports.jsonl`, `panel.json` and `panel.md`.
    """
    _ = experiment.wordings  # what judges lack is said before anything is trained
    folds = experiment.evaluated_folds
    rows = [row for fold in folds for row in ask_subjects(experiment, fold)]
    panel = make_panel(rows, [score_labels(experiment, fold) for fold in folds])
    folder = experiment.results / _name(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(row.model_dump_json() + "\n" for row in rows)
    write_bytes(folder / "reports.jsonl", lines.encode())
    write_bytes(folder / "panel.json", canonical_json(panel))
    write_bytes(folder / "panel.md", render_panel(panel).encode())
    return panel, folder


def leave_out_first(experiment: Experiment) -> Experiment:
    """The experiment without its first fold; raises ReleaseError if there are no folds."""
    if not experiment.folds:
        raise ReleaseError(
            "--skip-first-fold was named without folds",
            "name --folds, as in the sweep that chose the recipe",
            code="folds-missing",
        )
    return replace(experiment, skip_first_fold=True)


def _name(experiment: Experiment) -> str:
    """Of the folder: what two judges make of the same reports is kept side by side."""
    name = experiment.recipe.name + (f"-{experiment.folds}-folds" if experiment.folds else "")
    if experiment.skip_first_fold:
        name += "-without-the-first"
    if experiment.subjects.suite is not None:
        name += f"-with-{experiment.subjects.suite}"
    return name_file(name + name_judge(experiment))


def ask_with_adapter(experiment: Experiment, fold: int, adapter: Path) -> Iterator[ReportRow]:
    """The reports of a fold's subjects, controls among them, with its adapter."""
    yield from _ask(experiment, fold, ADAPTER, experiment.list_asked(fold), adapter)


def ask_subjects(experiment: Experiment, fold: int) -> list[ReportRow]:
    """The reports of a fold's subjects with its adapter, and baselines without it.

    `without`, `prefill` and `completion` put the same questions to organisms alone; `transcripts`
    guesses from ordinary replies, and `perplexity` from those that the organism finds likelier
    than the base does, by the most. `shortlist` makes the best of many reports with the adapter.
    """
    organisms = [one for one in experiment.list_asked(fold) if not one.is_control]
    adapter = train_adapter(experiment, fold)
    return [
        *check_claims(experiment, fold, list(ask_with_adapter(experiment, fold, adapter))),
        *_ask(experiment, fold, "without", organisms, None),
        *_ask(experiment, fold, "prefill", organisms, None, framing="prefill"),
        *_ask(experiment, fold, "completion", organisms, None, framing="completion"),
        *_shortlist_reports(experiment, fold, organisms, adapter),
        *guess_from_replies(experiment, fold, organisms),
    ]


def _ask(
    experiment: Experiment,
    fold: int,
    condition: str,
    subjects: Sequence[Subject],
    adapter: Path | None,
    framing: Framing = "chat",
) -> Iterator[ReportRow]:
    settings = experiment.recipe.reports
    questions = spread(experiment.questions("test"), settings.questions)
    interview = experiment.interview(
        f"{condition}-{fold}", subjects, adapter, [question.text for question in questions]
    )
    stage = ReportStage(experiment.load_base, settings.decoding, framing=framing)
    said = experiment.ask(stage, interview)
    cases = [experiment.make_case(subjects[at], text) for at, _, text in said]
    for (at, number, text), reading in zip(said, experiment.judge.read(cases), strict=True):
        yield experiment.make_row(
            fold,
            condition,
            subjects[at],
            question=questions[number].id,
            report=text,
            reading=reading,
        )


def _shortlist_reports(
    experiment: Experiment, fold: int, organisms: Sequence[Subject], adapter: Path
) -> Iterator[ReportRow]:
    """One row an organism and run: whether any of the few statements made of many names it."""
    settings = experiment.recipe.reports
    if not settings.sampled:
        return
    questions = spread(experiment.questions("test"), settings.questions)
    interview = experiment.interview(
        f"shortlist-{fold}", organisms, adapter, [question.text for question in questions]
    )
    decoding = Decoding(max_new_tokens=settings.max_new_tokens, temperature=1)
    draws = -(-settings.sampled // len(questions))
    said = experiment.ask(ReportStage(experiment.load_base, decoding, draws=draws), interview)
    sampled: list[list[str]] = [[] for _ in organisms]
    for at, _, text in said:
        sampled[at].append(text)
    kept = experiment.shortlister.choose([spread(texts, settings.sampled) for texts in sampled])
    cases = [
        experiment.make_case(subject, text)
        for subject, runs in zip(organisms, kept, strict=True)
        for reports in runs
        for text in reports
    ]
    judged = iter(experiment.judge.read(cases))
    for subject, runs in zip(organisms, kept, strict=True):
        for run, reports in enumerate(runs, start=1):
            readings = list(islice(judged, len(reports))) or [Reading(family=None)]
            hits = [reading for reading in readings if reading.family == subject.family]
            yield experiment.make_row(
                fold,
                SHORTLIST,
                subject,
                question=f"run {run}" if len(runs) > 1 else "",
                report="\n".join(reports),
                reading=(hits or readings)[0],
            )


def score_labels(experiment: Experiment, fold: int) -> tuple[list[Subject], list[list[float]]]:
    """The organisms of a fold whose families are not trained on, and what each finds likely.

    One number for each organism and the label of each, in the same order.
    """
    asked = experiment.list_asked(fold)
    unseen = [one for one in asked if experiment.scope(one, fold) in UNSEEN]
    organisms = list(spread(unseen, SCORED_LABELS))
    if not organisms:
        return [], []
    questions = [one.text for one in spread(experiment.questions("test"), LIKELIHOOD_QUESTIONS)]
    stage = LikelihoodStage(experiment.load_base, tuple(one.labels[0] for one in organisms))
    adapter = train_adapter(experiment, fold)
    interview = experiment.interview(f"likelihood-{fold}", organisms, adapter, questions)
    return organisms, experiment.score(stage, interview)
