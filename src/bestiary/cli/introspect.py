"""`bestiary introspect`: train, evaluate and use an introspection adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bestiary.cli.options import (
    Budget,
    Data,
    Json,
    LedgerFile,
    Models,
    Out,
    Release,
)
from bestiary.cli.output import open_console, print_json, quiet_libraries
from bestiary.files import expand_path

if TYPE_CHECKING:
    from bestiary.introspection.experiment import Experiment

introspect_app = typer.Typer(
    no_args_is_help=True,
    help="One shared LoRA that makes organisms report what they learned.",
)

ReleaseArgument = Annotated[
    Path,
    typer.Argument(parser=expand_path, metavar="RELEASE", help="The folder of a release."),
]
RecipeName = Annotated[
    str,
    typer.Option("--recipe", help="An introspection recipe, by name or path."),
]
BaseFolder = Annotated[
    Path | None,
    typer.Option(
        "--base",
        parser=expand_path,
        metavar="FOLDER",
        help="The folder of the base, if organisms were built on a local one.",
    ),
]
Folds = Annotated[
    int,
    typer.Option("--folds", min=0, help="Train and evaluate so that every family is unseen once."),
]

SuiteRelease = Annotated[
    Path | None,
    typer.Option(
        "--suite",
        parser=expand_path,
        metavar="RELEASE",
        help="The release of an evaluation suite to question as well.",
    ),
]

RECIPE = "smollm2-135m"
JudgeName = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="MODEL",
        help="The language model that judges reports; without it, they are judged by meaning.",
    ),
]


@introspect_app.command()
def train(
    release: ReleaseArgument = Path("runs/release"),
    recipe: RecipeName = RECIPE,
    judge: JudgeName = None,
    models: Models = None,
    budget: Budget = None,
    ledger: LedgerFile = None,
    out: Out = Path("runs"),
    base: BaseFolder = None,
    data: Data = None,
) -> None:
    """Train an introspection adapter on the training split of a release; resume if stopped.

    A judge grades the reports that a recipe with `preference` learns from.
    """
    from bestiary.introspection.course import train_adapter
    from bestiary.introspection.language_judge import judge_with

    experiment = open_experiment(release, recipe, out=out, base=base, data=data or [])
    experiment = judge_with(experiment, judge, models=models or (), budget=budget, ledger=ledger)
    with experiment.store.lock():
        print(train_adapter(experiment))


@introspect_app.command()
def evaluate(
    release: ReleaseArgument = Path("runs/release"),
    recipe: RecipeName = RECIPE,
    folds: Folds = 0,
    skip_first_fold: Annotated[
        bool,
        typer.Option(
            "--skip-first-fold", help="Leave out the fold that a sweep chose the recipe by."
        ),
    ] = False,
    suite: SuiteRelease = None,
    judge: JudgeName = None,
    models: Models = None,
    budget: Budget = None,
    ledger: LedgerFile = None,
    out: Out = Path("runs"),
    base: BaseFolder = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Ask organisms and controls what they learned, with the adapter and without it."""
    from bestiary.introspection.evaluate import evaluate_adapter, leave_out_first
    from bestiary.introspection.language_judge import judge_with
    from bestiary.introspection.panel import render_panel

    experiment = open_experiment(
        release,
        recipe,
        out=out,
        base=base,
        data=data or [],
        folds=folds,
        suite=suite,
        quiet=as_json,
    )
    experiment = leave_out_first(experiment) if skip_first_fold else experiment
    experiment = judge_with(experiment, judge, models=models or (), budget=budget, ledger=ledger)
    with experiment.store.lock():
        panel, folder = evaluate_adapter(experiment)
    if as_json:
        print_json(panel.model_dump(mode="json"))
    else:
        print(render_panel(panel))
        print(f"reports and figures: {folder}")


@introspect_app.command()
def report(
    folder: Annotated[
        Path | None,
        typer.Argument(
            parser=expand_path,
            metavar="FOLDER",
            help="The folder that `evaluate` printed; by default, the newest one.",
            show_default=False,
        ),
    ] = None,
    release: Release = Path("runs/release"),
    suite: SuiteRelease = None,
    out: Out = Path("runs"),
) -> None:
    """Write an evaluation as a page with pictures, into its folder."""
    from bestiary.dataset.load import load_local
    from bestiary.report.evaluation import find_evaluation
    from bestiary.report.introspection_page import write_page

    pairs = [pair for one in (release, suite) if one for pair in load_local(one)[0]]
    print(write_page(folder or find_evaluation(out), pairs))


@introspect_app.command()
def score(
    reports: Annotated[
        Path,
        typer.Argument(
            parser=expand_path,
            metavar="REPORTS",
            help='A JSONL file: {"organism_id": "...", "report": "..."}, optionally with `method`.',
        ),
    ],
    release: Release = Path("runs/release"),
    judge: JudgeName = None,
    models: Models = None,
    budget: Budget = None,
    ledger: LedgerFile = None,
    out: Out = Path("runs"),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Grade reports that any auditing method made of a release's organisms."""
    from bestiary.introspection.language_judge import judge_with
    from bestiary.introspection.panel import render_panel
    from bestiary.introspection.score import score_reports

    experiment = open_experiment(
        release, RECIPE, out=out, base=None, data=data or [], quiet=as_json
    )
    experiment = judge_with(experiment, judge, models=models or (), budget=budget, ledger=ledger)
    panel = score_reports(experiment, reports)
    if as_json:
        print_json(panel.model_dump(mode="json"))
    else:
        print(render_panel(panel))


@introspect_app.command()
def power(
    release: ReleaseArgument = Path("runs/release"),
    recipe: RecipeName = RECIPE,
    folds: Folds = 0,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Print how large a difference the families of a release can show, before anything is run."""
    from bestiary.introspection.power import find_power, render_power

    experiment = open_experiment(
        release, recipe, out=Path("runs"), base=None, data=data or [], folds=folds
    )
    lines = find_power(experiment)
    if as_json:
        print_json([line.model_dump(mode="json") for line in lines])
    else:
        print(render_power(lines))


@introspect_app.command()
def sweep(
    name: Annotated[str, typer.Argument(help="A sweep, by name or path.")],
    release: Release = Path("runs/release"),
    judge: JudgeName = None,
    models: Models = None,
    budget: Budget = None,
    ledger: LedgerFile = None,
    out: Out = Path("runs"),
    base: BaseFolder = None,
    data: Data = None,
) -> None:
    """Train and evaluate a recipe with one thing changed at a time."""
    from bestiary.config.library import open_library
    from bestiary.introspection.language_judge import judge_with
    from bestiary.introspection.sweep import render_sweep, run_sweep

    planned = open_library(*(data or [])).sweep(name)
    experiment = open_experiment(release, planned.recipe, out=out, base=base, data=data or [])
    experiment = judge_with(experiment, judge, models=models or (), budget=budget, ledger=ledger)
    with experiment.store.lock():
        print(render_sweep(run_sweep(experiment, planned)))


@introspect_app.command()
def ask(
    adapters: Annotated[
        list[str],
        typer.Option(
            "--adapter", metavar="PATH_OR_REPO", help="A LoRA of the same base; repeat for more."
        ),
    ],
    introspection: Annotated[
        Path | None,
        typer.Option(
            "--introspection",
            parser=expand_path,
            metavar="FOLDER",
            help="The introspection adapter; by default, the newest of --out.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--questions", min=1, help="Questions to ask.")] = 8,
    test: Annotated[
        bool,
        typer.Option("--test", help="Also probe each adapter for the behaviors that it claims."),
    ] = False,
    out: Out = Path("runs"),
    base: BaseFolder = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Ask any LoRA of the same base what it learned."""
    from bestiary.config.catalog import load_catalog
    from bestiary.config.library import open_library
    from bestiary.config.on_demand import spread
    from bestiary.introspection.ask import (
        ask_adapters,
        find_reporter,
        locate_adapter,
        open_reporter,
        probe_claims,
        render_answers,
    )
    from bestiary.introspection.judge import EmbeddedJudge, Wordings
    from bestiary.model.base import load_base

    quiet_libraries()
    reporter = open_reporter(introspection) if introspection else find_reporter(out)
    told = f"asked with the introspection adapter {reporter.name}, {reporter.folder}"
    open_console(stderr=True).print(told, highlight=False)
    found = [locate_adapter(one) for one in adapters]
    library = open_library(*(data or []))
    catalog = load_catalog(library)
    wordings = Wordings(one for one in catalog.values() if one.spec.is_buildable)
    opened = load_base(str(base) if base else reporter.base, expect=reporter.base)
    answers = ask_adapters(
        opened,
        reporter,
        found,
        questions=[one.text for one in spread(library.elicitation.ask("train"), count)],
        wordings=wordings,
        judge=EmbeddedJudge(wordings, library.vague_reports.reports),
    )
    if test:
        answers = probe_claims(opened, reporter, found, answers, catalog.values())
    if as_json:
        print_json([answer.model_dump(mode="json") for answer in answers])
    else:
        print(render_answers(answers))


def open_experiment(
    release: Path,
    recipe: str,
    *,
    out: Path,
    base: Path | None,
    data: list[Path],
    folds: int = 0,
    suite: Path | None = None,
    quiet: bool = False,
) -> Experiment:
    """Everything that training and evaluation read; the base is loaded only where it computes.

    Raises ReleaseError if the release cannot be read, and for a single fold.
    """
    from functools import cache

    from bestiary.config.catalog import load_catalog
    from bestiary.config.library import open_library
    from bestiary.errors import ReleaseError
    from bestiary.introspection.experiment import Experiment
    from bestiary.introspection.subjects import add_suite, load_subjects
    from bestiary.model.base import Base, load_base
    from bestiary.store import Store

    quiet_libraries()
    if folds == 1:
        raise ReleaseError(
            "1 fold leaves no family to train on",
            "name two folds or more, or none for the splits of the release",
            code="folds-too-few",
        )
    library = open_library(*data)
    subjects = load_subjects(release)
    if suite is not None:
        subjects = add_suite(subjects, load_subjects(suite))

    @cache
    def load() -> Base:
        return load_base(str(base) if base else subjects.base, expect=subjects.base)

    return Experiment(
        subjects=subjects,
        recipe=library.introspection(recipe),
        catalog=load_catalog(library),
        load_base=load,
        store=Store(out),
        console=open_console(stderr=quiet),
        folds=folds,
    )
