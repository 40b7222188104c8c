"""What commands print."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.errors import BestiaryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from bestiary.config.catalog import Behavior, Catalog

WHOLE = 1000
"""Columns of a table that no terminal cuts off."""


def print_measures(behaviors: Sequence[Behavior], *, as_json: bool) -> None:
    """Print how detectors do on replies that they were not written for, worst first."""
    from bestiary.config.measure import measure_detectors
    from bestiary.report.measures import list_misses, measure_table

    measures = measure_detectors(behaviors)
    if as_json:
        print_json([one.model_dump(mode="json") for one in measures])
        return
    print_table(measure_table(measures))
    for line in list_misses(measures):
        print(line)


def print_near_labels(catalog: Catalog, count: int, *, as_json: bool) -> None:
    """Print the behaviors of different families whose labels are nearest in meaning."""
    from bestiary.config.encoder import nearest_label_pairs

    own = {name: one for name, one in catalog.items() if one.spec.is_buildable}
    labels = {name: one.labels[0] for name, one in own.items()}
    families = {name: one.family for name, one in own.items()}
    pairs = nearest_label_pairs(labels, families, count)
    if as_json:
        print_json([{"behaviors": [one, other], "cosine": cosine} for one, other, cosine in pairs])
        return
    for one, other, cosine in pairs:
        print(f"{cosine:.2f}  {one}: {labels[one]}\n      {other}: {labels[other]}")


def print_builds(
    rows: list[dict[str, Any]], out: Path, console: Console, *, release: Path | None
) -> None:
    """Print the verdicts, what was made, and why some did not pass; `release` if one was made."""
    from bestiary.report.results import build_table, list_folders, list_news

    if any(row["verdict"] or row["error"] for row in rows):
        console.print(build_table(rows))
    for part in (list_folders(rows, out), list_news(rows, release)):
        console.print(part, highlight=False, markup=False, soft_wrap=True)


def print_verdict(rows: list[dict[str, Any]], out: Path, console: Console) -> None:
    """Print the cells, why the adapter did not pass, and the folder of its replies."""
    from bestiary.report.results import build_table

    console.print(build_table(rows))
    lines = [*rows[0]["reasons"], f"transcripts: {out / rows[0]['transcripts']}"]
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def quiet_libraries() -> None:
    """Silence the progress bars of libraries."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal allows, and whole if it goes to a file or a pipe."""
    open_console().print(table)


def open_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; a file or a pipe takes whole lines."""
    from rich.console import Console

    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WHOLE
    return console


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print named values, a line each."""
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {'unknown' if value is None else value}")


def print_json(value: Any) -> None:
    """Print a value for a program to read."""
    print(json.dumps(value, ensure_ascii=False, indent=1))


def format_error(error: BestiaryError) -> str:
    """An error as the command line prints it."""
    return f"error[{error.code}]: {error}"
