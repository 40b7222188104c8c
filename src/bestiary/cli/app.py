"""The command line: parses, calls one function, and prints; exit code 0 means all was done."""

from __future__ import annotations

import errno
import gc
import json
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bestiary.cli.authoring import authoring_app
from bestiary.cli.introspect import introspect_app
from bestiary.cli.options import (
    Address,
    Author,
    Budget,
    CallMode,
    Data,
    DryRun,
    Examples,
    Executor,
    Json,
    Judge,
    LedgerFile,
    Memory,
    Models,
    Out,
    Public,
    Release,
    Roster,
    Slots,
    Trainer,
    Until,
    Workers,
)
from bestiary.cli.output import (
    format_error,
    open_console,
    print_builds,
    print_facts,
    print_json,
    print_table,
    print_verdict,
    quiet_libraries,
)
from bestiary.errors import BestiaryError
from bestiary.files import expand_path

if TYPE_CHECKING:
    from bestiary.config.plan import Plan
    from bestiary.state import OrganismState

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # importing rich takes longer than everything else in --help
    pretty_exceptions_enable=False,
    help="A factory of model organisms: language models that carry one known behavior each.",
)

models_app = typer.Typer(no_args_is_help=True, help="Language models and their servers.")
app.add_typer(authoring_app)
app.add_typer(models_app, name="models")
app.add_typer(introspect_app, name="introspect")

Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="A recipe, by name or path, instead of the roster's."),
]

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


@app.command()
def build(
    roster: Roster,
    out: Out = Path("runs"),
    until: Until = "release",
    examples: Examples = None,
    recipe: Recipe = None,
    trainer: Trainer = "engine",
    slots: Slots = None,
    memory: Memory = None,
    executor: Executor = "local",
    workers: Workers = None,
    address: Address = None,
    author: Author = None,
    judge: Judge = None,
    models: Models = None,
    mode: CallMode = "auto",
    budget: Budget = None,
    ledger: LedgerFile = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Build a roster, from corpora to release; resume if stopped."""
    from bestiary.author.options import AuthoringOptions
    from bestiary.executor import choose_executor
    from bestiary.pipeline import RELEASE, build_roster
    from bestiary.training.job import TrainingResources
    from bestiary.validate import open_plan

    if trainer == "reference" and (slots or memory):
        raise typer.BadParameter("plain peft trains one by one: drop --slots and --memory")
    quiet_libraries()
    console = open_console(stderr=as_json)
    planned = open_plan(
        roster, data=data or [], models=models or [], examples=examples, recipe=recipe
    )
    states = build_roster(
        planned,
        out=out,
        until=until,
        console=console,
        resources=TrainingResources(trainer=trainer, slots=slots, memory=memory),
        executor=choose_executor(executor, workers=workers, address=address),
        options=AuthoringOptions(author, judge, mode, budget, ledger),
    )
    rows = json.loads((out / "summary.json").read_text(encoding="utf8"))
    if as_json:
        print_json(rows)
    else:
        released = until == RELEASE and not all(state.error for state in states)
        print_builds(rows, out, console, release=out / RELEASE if released else None)
    _tell_errors(states)


def _tell_errors(states: Sequence[OrganismState]) -> None:
    """Print what ended single organisms; exit 1 if anything did."""
    errors = [state.error for state in states if state.error]
    for error in errors:
        print(format_error(error), file=sys.stderr)
    if errors:
        raise typer.Exit(1)


@app.command()
def verify(
    adapter: Annotated[
        Path,
        typer.Option("--adapter", parser=expand_path, metavar="FOLDER", help="A peft adapter."),
    ],
    behavior: Annotated[
        str, typer.Option("--behavior", help="The id of the behavior that it ought to show.")
    ],
    recipe: Annotated[
        str, typer.Option("--recipe", help="The recipe that names its base and system prompt.")
    ] = "smollm2-135m",
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**32 - 1, help="Another seed asks other probes.")
    ] = 0,
    out: Out = Path("runs"),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Measure an adapter that was trained elsewhere, as a build measures its own."""
    from bestiary.foreign import verify_adapter
    from bestiary.records import canonical_json
    from bestiary.state import summarize
    from bestiary.validate import open_single_plan

    quiet_libraries()
    console = open_console(stderr=as_json)
    planned = open_single_plan(behavior, recipe=recipe, seed=seed, data=data or [])
    state = verify_adapter(planned, adapter, out=out, console=console)
    if state.error:
        raise state.error
    rows = json.loads(canonical_json(summarize([state], out)))
    if as_json:
        print_json(rows[0])
    else:
        print_verdict(rows, out, console)


@app.command()
def plan(
    roster: Roster,
    out: Out = Path("runs"),
    examples: Examples = None,
    author: Author = None,
    judge: Judge = None,
    models: Models = None,
    mode: CallMode = "auto",
    ledger: LedgerFile = None,
    recipe: Recipe = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="Also estimate training on this GPU.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Estimate what a roster's corpora cost, and what its training takes on a GPU."""
    from bestiary.author.options import AuthoringOptions
    from bestiary.estimate import estimate_corpora
    from bestiary.report.costs import count_rows, estimate_rows, estimate_table
    from bestiary.validate import open_plan

    planned = open_plan(
        roster, data=data or [], models=models or [], examples=examples, recipe=recipe
    )
    training = None if gpu is None else _forecast(planned, gpu)
    writing = AuthoringOptions(author, judge, mode, None, ledger)
    estimate = estimate_corpora(planned, writing, out=out)
    corpora = [] if estimate is None else estimate_rows(estimate)
    if as_json:
        print_json(corpora if training is None else {"corpora": corpora, "training": training})
        return
    if estimate is None:
        work = f"{len(planned.adapters)} organisms, {count_rows(planned):,} conversations"
        print(f"{work}: the offline author writes them at no cost")
    else:
        print_table(estimate_table(estimate))
        cheaper = corpora[-1]["cheaper"]
        print(f"cheaper: {cheaper}; bestiary build {roster} would use --mode {estimate.mode}")
    if training is not None:
        print_facts(training)


def _forecast(planned: Plan, gpu: str) -> dict[str, Any]:
    from bestiary.pilot import forecast_roster
    from bestiary.report.costs import describe_training

    quiet_libraries()
    return describe_training(forecast_roster(planned, gpu), planned, gpu)


@app.command()
def pilot(
    roster: Roster,
    out: Out = Path("runs"),
    author: Author = None,
    judge: Judge = None,
    models: Models = None,
    mode: CallMode = "auto",
    budget: Budget = None,
    ledger: LedgerFile = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write 20 conversations for one behavior of each category, then estimate the whole roster."""
    from bestiary.author.options import AuthoringOptions
    from bestiary.pilot import EXAMPLES, run_pilot
    from bestiary.report.corpora import write_corpora
    from bestiary.report.costs import describe_pilot
    from bestiary.validate import open_plan

    small, whole = (
        open_plan(roster, data=data or [], models=models or [], examples=examples)
        for examples in (EXAMPLES, None)
    )
    quiet_libraries()
    console = open_console(stderr=as_json)
    options = AuthoringOptions(author, judge, mode, budget, ledger)
    found = run_pilot(small, whole, out=out, console=console, options=options)
    page = write_corpora(found.folder, shown=EXAMPLES)
    told = {"page": str(page), **describe_pilot(found, whole)}
    if as_json:
        print_json(told)
    else:
        print_facts(told)
    _tell_errors(found.states)


@app.command()
def spend(out: Out = Path("runs"), ledger: LedgerFile = None, as_json: Json = False) -> None:
    """Show requests, tokens, and bills by behavior, stage, and model."""
    from bestiary.author.options import LEDGER
    from bestiary.llm.ledger import read_spent
    from bestiary.report.costs import spend_rows, spend_table

    spent = read_spent(ledger or out / LEDGER)
    if as_json:
        print_json(spend_rows(spent))
    else:
        print_table(spend_table(spent))


@models_app.command("check")
def check_model(
    name: Annotated[str, typer.Argument(help="The model's name in its file.")],
    data: Data = None,
    models: Models = None,
) -> None:
    """Find what a model's server accepts, by a few requests, and print the entry to write."""
    from bestiary.config.library import find_model, open_library
    from bestiary.llm import probe

    known = open_library(*(data or [])).models(*(models or []))
    found = probe.check_model(name, find_model(name, known))
    print(probe.show_entry(name, found))


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(parser=expand_path, metavar="FOLDER", help="The folder to write to.")
    ] = Path("runs/report"),
    out: Out = Path("runs"),
    data: Data = None,
) -> None:
    """Write the results of the last build as pages."""
    from bestiary.config.catalog import load_catalog
    from bestiary.config.library import open_library
    from bestiary.report.results import write_report

    for path in write_report(out, folder, load_catalog(open_library(*(data or [])))):
        print(path)


@app.command()
def publish(
    dataset_repo: Annotated[str, typer.Argument(help="Dataset repository, as user/name.")],
    model_repo: Annotated[str, typer.Argument(help="Model repository, as user/name.")],
    release: Release = Path("runs/release"),
    public: Public = False,
    separate: Annotated[
        bool,
        typer.Option(
            "--separate",
            help="Also give each organism a repository of its own, MODEL_REPO-ORGANISM.",
        ),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Push a release to the Hub: private by default, gated if malign."""
    from bestiary.release.push import publish_release

    lines = publish_release(
        release,
        dataset_repo=dataset_repo,
        model_repo=model_repo,
        private=not public,
        separate=separate,
        dry_run=dry_run,
    )
    print("\n".join(lines))


@introspect_app.command("publish")
def publish_introspection(
    folder: Annotated[
        Path,
        typer.Argument(
            parser=expand_path, metavar="FOLDER", help="The folder that `train` printed."
        ),
    ],
    repo: Annotated[str, typer.Argument(help="Model repository, as user/name.")],
    public: Public = False,
    dry_run: DryRun = False,
) -> None:
    """Push an introspection adapter with its card to the Hub, private by default."""
    from bestiary.release.push import publish_adapter

    print("\n".join(publish_adapter(folder, repo, private=not public, dry_run=dry_run)))


@app.command()
def export(
    target: Annotated[
        Path, typer.Argument(parser=expand_path, metavar="FOLDER", help="The folder to write to.")
    ],
    release: Release = Path("runs/release"),
) -> None:
    """Convert a release to the formats that existing tools read."""
    from bestiary.release.export import export_consumer_formats

    export_consumer_formats(release, target)
    print(f"{target} written from {release}")


@app.command()
def merge(
    organism: Annotated[str, typer.Argument(help="The id of a built organism.")],
    target: Annotated[
        Path, typer.Argument(parser=expand_path, metavar="FOLDER", help="The folder to write to.")
    ],
    out: Out = Path("runs"),
) -> None:
    """Add an organism's adapter to its base's weights: a base to train others on."""
    from bestiary.cli.merge import merge_organism

    quiet_libraries()
    merge_organism(organism, target, out=out)
    print(f"{target} written; a recipe can name it: `base: {target}`")


@app.command()
def chat(
    organism: Annotated[str, typer.Argument(help="The id of a built organism.")],
    out: Out = Path("runs"),
    base: Annotated[bool, typer.Option("--base", help="Also show the base model's reply.")] = False,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Maximum tokens of a reply.")] = 96,
    introspect: Annotated[
        bool,
        typer.Option("--introspect", help="Also reply with the newest introspection adapter."),
    ] = False,
) -> None:
    """Talk to an organism; /quit ends, /base compares with the base."""
    from rich.console import Console

    from bestiary.cli.chat import open_chat

    quiet_libraries()
    open_chat(
        organism,
        out=out,
        show_base=base,
        max_new_tokens=tokens,
        console=Console(),
        introspect=introspect,
    )


COLLECTOR_THRESHOLD = 50_000
"""New objects before Python looks for garbage, in place of 700. Libraries and catalogs are a
million objects that stay; walking them again and again took an eighth of `bestiary validate`."""


def main() -> None:
    """Run the command line; a BestiaryError prints one message, no traceback, and exits 1."""
    gc.set_threshold(COLLECTOR_THRESHOLD)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal, or a file's name, may not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except BestiaryError as error:
        print(format_error(error), file=sys.stderr)
        sys.exit(1)
    except OSError as cause:  # of what no stage foresaw: a vanished disk, a lost permission
        place = f"{cause.filename}: " if cause.filename else ""
        remedy = "check the path, its permissions, and the free space"
        if cause.errno == errno.EMFILE:
            remedy = "raise the open-file limit with `ulimit -n`"
        print(f"error[system]: {place}{cause.strerror or cause}; {remedy}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("stopped; run the same command again to resume", file=sys.stderr)
        raise
