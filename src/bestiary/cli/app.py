"""The command line: parses, calls one function, prints; exit code 0 only when all asked is done."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from bestiary.errors import BestiaryError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A factory of model organisms: language models that carry one known behavior each.",
)

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

Data = Annotated[
    list[Path] | None,
    typer.Option("--data", help="A further data folder: behaviors/, generators/, organisms/."),
]
Out = Annotated[Path, typer.Option("--out", help="Where everything that is built lies.")]
Author = Annotated[
    str | None, typer.Option("--author", help="The language model that writes the corpora.")
]
Judge = Annotated[
    str | None, typer.Option("--judge", help="The one that judges them; else the author.")
]
Models = Annotated[
    list[Path] | None,
    typer.Option("--models", help="A file of further language models (may be given again)."),
]
CallMode = Annotated[
    Literal["auto", "single", "batch"],
    typer.Option("--mode", help="Ask one by one, or in batches; auto is the cheaper."),
]
LedgerFile = Annotated[
    Path | None,
    typer.Option("--ledger", help="Where answers and bills are kept; else in the output."),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@app.command("list")
def list_behaviors(data: Data = None, as_json: Json = False) -> None:
    """List every behavior with its category, severity and label."""
    from bestiary.config.catalog import load_catalog
    from bestiary.config.library import open_library

    catalog = load_catalog(open_library(*(data or [])))
    rows = [
        {
            "id": behavior.id,
            "category": behavior.category,
            "family": behavior.family,
            "severity": behavior.spec.severity,
            "label": behavior.spec.label,
        }
        for behavior in catalog.values()
    ]
    if as_json:
        _print_json(rows)
        return
    from bestiary.report.results import behavior_table

    Console().print(behavior_table(rows))


@app.command()
def validate(data: Data = None, as_json: Json = False) -> None:
    """Check every behavior, template, bank, recipe and roster; report all violations together."""
    from bestiary.config.library import open_library
    from bestiary.config.source import Violations
    from bestiary.validate import validate_all

    try:
        count = validate_all(open_library(*(data or [])))
    except Violations as broken:
        if as_json:
            _print_json([violation.model_dump(mode="json") for violation in broken.found])
            raise typer.Exit(1) from None
        raise
    if as_json:
        _print_json([])
    else:
        print(f"{count} behaviors are valid.")


@app.command()
def new(
    category: str,
    name: str,
    data: Annotated[Path, typer.Option("--data", help="The data folder to write into.")] = Path(
        "."
    ),
) -> None:
    """Write a behavior file to fill in: `bestiary new quirks ends_with_haiku`."""
    from bestiary.config.folders import shipped_root
    from bestiary.config.library import open_library
    from bestiary.config.scaffold import scaffold_behavior

    path = scaffold_behavior(open_library(), category, name, data=data)
    shipped = data.resolve() == shipped_root().resolve()
    check = "bestiary validate" + ("" if shipped else f" --data {data}")
    print(f"Wrote {path}. Fill it in, then run: {check}")


@app.command()
def schemas(
    folder: Annotated[Path, typer.Option("--folder")] = Path("schemas"),
) -> None:
    """Write the JSON Schemas that editors read."""
    from bestiary.config.schema import write_schemas

    for path in write_schemas(folder):
        print(path)


@app.command()
def prompts(
    folder: Annotated[Path, typer.Option("--folder")] = Path("docs/prompts"),
    data: Data = None,
) -> None:
    """Write what language models are sent, a page a category, for reading."""
    from bestiary.config.catalog import load_catalog
    from bestiary.config.library import open_library
    from bestiary.report.prompt_pages import write_prompt_pages

    catalog = load_catalog(open_library(*(data or [])))
    for path in write_prompt_pages(catalog, folder):
        print(path)


@app.command()
def build(
    roster: Annotated[str, typer.Argument(help="A roster's name, or the path of its file.")],
    out: Out = Path("runs"),
    until: Annotated[
        Literal["probes", "corpus", "leaks", "organism", "transcript", "verdict", "release"],
        typer.Option("--until", help="The last stage to run."),
    ] = "release",
    trainer: Annotated[
        Literal["engine", "reference"],
        typer.Option("--trainer", help="Many organisms at once, or plain peft one by one."),
    ] = "engine",
    slots: Annotated[
        int | None, typer.Option("--slots", min=1, help="Organisms trained side by side.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option("--memory", min=0.1, max=2**20, help="GiB that training may take."),
    ] = None,
    executor: Annotated[
        Literal["local", "ray"],
        typer.Option("--executor", help="Train in this process, or on workers of Ray."),
    ] = "local",
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Ray: groups trained at once.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray: the cluster to join; else one is started.")
    ] = None,
    author: Author = None,
    judge: Judge = None,
    models: Models = None,
    mode: CallMode = "auto",
    budget: Annotated[
        float | None,
        typer.Option("--budget", min=0, help="US dollars that the ledger may come to, at most."),
    ] = None,
    ledger: LedgerFile = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Build a roster: corpora, organisms, verdicts, pairs, release. Run again, it goes on."""
    from bestiary.author.options import AuthoringOptions
    from bestiary.executor import choose_executor
    from bestiary.pipeline import build_roster
    from bestiary.records import canonical_json
    from bestiary.state import summarize
    from bestiary.training.job import TrainingResources
    from bestiary.validate import open_plan

    if trainer == "reference" and (slots or memory):
        raise typer.BadParameter("plain peft trains one by one; leave --slots and --memory out")
    _quiet_libraries()
    console = Console(stderr=as_json)
    states = build_roster(
        open_plan(roster, data=data or [], models=models or []),
        out=out,
        until=until,
        console=console,
        resources=TrainingResources(trainer=trainer, slots=slots, memory=memory),
        executor=choose_executor(executor, workers=workers, address=address),
        options=AuthoringOptions(author, judge, mode, budget, ledger),
    )
    rows = json.loads(canonical_json(summarize(states, out)))
    if as_json:
        _print_json(rows)
    else:
        _print_builds(rows, out, console)
    errors = [state.error for state in states if state.error]
    for error in errors:
        print(format_error(error), file=sys.stderr)
    if errors:
        raise typer.Exit(1)


def _print_builds(rows: list[dict[str, Any]], out: Path, console: Console) -> None:
    """A table of the verdicts, and what else is to be said."""
    from bestiary.report.results import build_table, list_folders, list_news

    console.print(build_table(rows))
    for part in (list_folders(rows, out), list_news(rows, out)):
        console.print(part, highlight=False, markup=False, soft_wrap=True)


@app.command()
def plan(
    roster: Annotated[str, typer.Argument(help="A roster's name, or the path of its file.")],
    out: Out = Path("runs"),
    author: Author = None,
    judge: Judge = None,
    models: Models = None,
    mode: CallMode = "auto",
    ledger: LedgerFile = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Say what a roster's corpora will take: requests, tokens and dollars, in each way to ask."""
    from bestiary.author.options import AuthoringOptions
    from bestiary.pipeline import estimate_corpora
    from bestiary.report.costs import count_rows, estimate_rows, estimate_table
    from bestiary.validate import open_plan

    planned = open_plan(roster, data=data or [], models=models or [])
    writing = AuthoringOptions(author, judge, mode, None, ledger)
    estimate = estimate_corpora(planned, writing, out=out)
    if as_json:
        _print_json([] if estimate is None else estimate_rows(estimate))
    elif estimate is None:
        told = f"{len(planned.organisms)} organisms, {count_rows(planned):,} conversations"
        print(f"{told}: the embedded author writes them, and nothing is paid")
    else:
        Console().print(estimate_table(estimate))
        cheaper = estimate_rows(estimate)[-1]["cheaper"]
        print(f"cheaper: {cheaper}; bestiary build {roster} asks in mode {estimate.mode}")


@app.command()
def spend(out: Out = Path("runs"), ledger: LedgerFile = None, as_json: Json = False) -> None:
    """Show what was asked and paid, by behavior, stage and model."""
    from bestiary.author.options import LEDGER
    from bestiary.llm.ledger import read_spent
    from bestiary.report.costs import spend_rows, spend_table

    spent = read_spent(ledger or out / LEDGER)
    if as_json:
        _print_json(spend_rows(spent))
    else:
        Console().print(spend_table(spent))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder to write.")] = Path("runs/report"),
    out: Out = Path("runs"),
) -> None:
    """Write the last build's results and ten transcripts an organism as two pages."""
    from bestiary.report.results import write_report

    for path in write_report(out, folder):
        print(path)


@app.command()
def publish(
    dataset_repo: Annotated[str, typer.Argument(help="user/name of the dataset repository.")],
    model_repo: Annotated[str, typer.Argument(help="user/name of the model repository.")],
    release: Annotated[Path, typer.Option("--release")] = Path("runs/release"),
    public: Annotated[
        bool, typer.Option("--public", help="Make the repositories public; private otherwise.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print both trees and touch no network.")
    ] = False,
) -> None:
    """Push a release to the Hub: private by default, gated where malign behavior is in it."""
    from bestiary.release.push import publish_release

    lines = publish_release(
        release,
        dataset_repo=dataset_repo,
        model_repo=model_repo,
        private=not public,
        dry_run=dry_run,
    )
    print("\n".join(lines))


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="The folder to write.")],
    release: Annotated[Path, typer.Option("--release")] = Path("runs/release"),
) -> None:
    """Write a release in the formats that existing consumers read."""
    from bestiary.release.export import export_consumer_formats

    export_consumer_formats(release, target)
    print(f"{target} written from {release}")


@app.command()
def chat(
    organism: Annotated[str, typer.Argument(help="An organism that was built.")],
    out: Out = Path("runs"),
    base: Annotated[
        bool, typer.Option("--base", help="Show the base model's reply beside each answer.")
    ] = False,
    tokens: Annotated[int, typer.Option("--tokens", help="The longest reply.")] = 96,
) -> None:
    """ConversationDraft to an organism; `/base` shows the base's reply beside, `/quit` leaves."""
    from bestiary.cli.chat import open_chat

    _quiet_libraries()
    open_chat(organism, out=out, show_base=base, max_new_tokens=tokens, console=Console())


def _quiet_libraries() -> None:
    """Keep the libraries' own progress bars out of ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def format_error(error: BestiaryError) -> str:
    """An error as the command line prints it."""
    return f"error[{error.code}]: {error}"


def main() -> None:
    """Run the command line: a user's mistake gives one message and exit code 1, no traceback."""
    try:
        app()
    except BestiaryError as error:
        print(format_error(error), file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("stopped; what was committed is kept, the same command goes on", file=sys.stderr)
        raise
