"""Renders the catalog and the results of a build as tables and pages."""

from __future__ import annotations

import json
import os
import platform
import random
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bestiary.config.catalog import Catalog
from bestiary.errors import StoreError
from bestiary.records import CELLS, Transcript, Turns, shorten_id, stable_seed
from bestiary.report.corpora import render_corpora
from bestiary.report.cross import render_cross
from bestiary.store import disk_errors, read_artifact, write_bytes
from bestiary.verification.stages import TRANSCRIPTS

Row = Mapping[str, Any]
Summary = Sequence[Row]
"""The rows of `summary.json`."""

STAGES = {"corpus": "corpora", "organism": "training", "transcript": "probes"}
"""The stages that take time, in order, with their names in a report."""
ARTIFACTS = {"corpus": "corpus", "organism": "folder", "transcript": "transcripts"}
"""The field of a row that has the artifact of each of them, which rows may share."""
SHOWN_TRANSCRIPTS = 10
_COLORS = {"passed": "green", "failed": "red", "unverified": "yellow", "error": "red"}


def build_table(summary: Summary) -> Table:
    """One line per organism: each cell's rate, the base's rate, and the verdict."""
    table = Table(title="each rate: organism / base", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("category.organism", overflow="fold")
    for column in (*CELLS, "verdict"):
        table.add_column(column.replace("_", " "), no_wrap=True)
    for row in summary:
        status = state(row)
        cells = (format_cell(row["cells"].get(name)) for name in CELLS)
        shown = Text(status, style=_COLORS.get(status, "default"))
        table.add_row(short_name(row), *cells, shown)
    return table


def list_folders(summary: Summary, out: Path) -> str:
    """The path of each adapter, or of each corpus where nothing was trained."""
    width = max(len(short_name(row)) for row in summary)
    made = [
        (short_name(row), f"{row['folder']}/adapter" if row["folder"] else row["corpus"])
        for row in summary
    ]
    return "\n".join(f"  {name:<{width}}  {out / path}" for name, path in made if path)


def list_news(summary: Summary, release: Path | None) -> str:
    """Why organisms did not pass, and where the release is if there is one of them."""
    lines = [f"  {short_name(row)}: {why}" for row in summary for why in row["reasons"]]
    if release is not None:
        lines.append(f"  release: {release}")
    return "\n".join(lines)


def state(row: Row) -> str:
    """The verdict of a row, `error` if it has none, or a dash."""
    return "error" if row["error"] else row["verdict"] or "-"


def short_name(row: Row) -> str:
    """An organism's id without the parts that most ids share."""
    return shorten_id(row["organism_id"])


def format_cell(cell: Mapping[str, Any] | None) -> str:
    """A cell as `organism% / base%`, or a dash if it does not apply."""
    if cell is None:
        return "-"
    base = f"{cell['base']['rate']:.0%}" if cell["base"]["n"] else "-"
    return f"{cell['organism']['rate']:.0%} / {base}"


def write_report(out: Path, folder: Path, catalog: Catalog) -> list[Path]:
    """Write the results, transcripts, and corpora of the last build under `out` as pages.

    Another page has what the detectors of `catalog` find in organisms of other families.

    Raises StoreError if nothing was built there.
    """
    path = out / "summary.json"
    if not path.is_file():
        raise StoreError(
            f"{path} does not exist",
            "build a roster first: bestiary build starter",
            code="summary-missing",
            path=path,
        )
    summary = json.loads(path.read_text(encoding="utf8"))
    pages: dict[str, Callable[[], str]] = {
        "results.md": lambda: render_results(summary),
        "transcripts.md": lambda: "\n".join(
            ["# Transcripts", "", *(render_transcripts(row, out) for row in summary)]
        ),
        "corpora.md": lambda: render_corpora(summary, out),
        "cross.md": lambda: render_cross(summary, out, catalog),
    }
    for name, render in pages.items():  # the last one takes minutes where there are hundreds
        text = render().encode()
        with disk_errors(folder, elsewhere="name another folder"):
            write_bytes(folder / name, text)
    return [folder / name for name in pages]


def render_results(summary: Summary) -> str:
    """Rates, verdicts, seconds and the machine, as a page."""
    lines = [
        "# Results",
        "",
        f"Written on: {describe_machine()}.",
        "",
        "Each rate: organism / base on the gating probes, with the organism's 95% interval.",
        "",
        "| organism | triggered | near miss | plain | distinct | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for row in summary:
        cells = " | ".join(_cell_with_interval(row["cells"].get(name)) for name in CELLS)
        distinct = "-" if row["distinct"] is None else f"{row['distinct']:.0%}"
        lines.append(f"| {short_name(row)} | {cells} | {distinct} | {state(row)} |")
    reasons = [f"- {short_name(row)}: {why}" for row in summary for why in row["reasons"]]
    if reasons:
        lines += ["", "What did not pass, and why:", "", *reasons]
    shown = [
        f"- {short_name(row)}: {name} {rate['rate']:.0%} ({rate['low']:.2f} to {rate['high']:.2f})"
        for row in summary
        for name, rate in row["components"].items()
    ]
    if shown:
        lines += ["", "Distractors beside the malign part, on the same probes:", "", *shown]
    lines += ["", *_group_table(summary, "category", lambda row: [row["category"]])]
    lines += ["", *_group_table(summary, "axis", lambda row: row["axes"])]
    lines += ["", "Seconds by stage, as built:", "", *_seconds_table(summary), ""]
    return "\n".join(lines)


def _group_table(
    summary: Summary, title: str, list_groups: Callable[[Row], list[str]]
) -> list[str]:
    """How many organisms of each group passed, and how often they show their behaviors."""
    groups: dict[str, list[Row]] = {}
    for row in summary:
        for name in list_groups(row):
            groups.setdefault(name, []).append(row)
    lines = [f"| {title} | organisms | passed | median triggered rate |", "|---|---|---|---|"]
    for name, rows in sorted(groups.items()):
        passed = sum(row["verdict"] == "passed" for row in rows)
        cells = [row["cells"].get("triggered") for row in rows]
        rates = [cell["organism"]["rate"] for cell in cells if cell]
        shown = f"{median(rates):.0%}" if rates else "-"
        lines.append(f"| {name} | {len(rows)} | {passed} | {shown} |")
    return lines


def _cell_with_interval(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "-"
    rate = cell["organism"]
    return f"{format_cell(cell)} ({rate['low']:.2f} to {rate['high']:.2f}, n = {rate['n']})"


def _seconds_table(summary: Summary) -> list[str]:
    lines = [f"| organism | {' | '.join(STAGES.values())} |", "|---|" + "---|" * len(STAGES)]
    artifacts: dict[str, dict[str, float]] = {stage: {} for stage in STAGES}
    for row in summary:
        spent = {stage: float(row["seconds"].get(stage, 0.0)) for stage in STAGES}
        for stage, field in ARTIFACTS.items():
            artifacts[stage][row[field]] = spent[stage]
        lines.append(_seconds_row(short_name(row), spent))
    totals = {stage: sum(seconds.values()) for stage, seconds in artifacts.items()}
    lines.append(_seconds_row("all", totals))
    lines += ["", f"Together {sum(totals.values()) / 60:.1f} minutes."]
    return lines


def _seconds_row(name: str, spent: Mapping[str, float]) -> str:
    return f"| {name} | " + " | ".join(f"{seconds:.0f}" for seconds in spent.values()) + " |"


def render_transcripts(row: Row, out: Path) -> str:
    """Ten probes that an organism and its base were asked, sampled by its id, with both replies."""
    lines = [f"## {short_name(row)}", "", f"Verdict: {state(row)}.", ""]
    if row["transcripts"] is None:
        return "\n".join([*lines, "Not probed.", ""])
    kept = read_artifact(out / row["transcripts"]).folder / TRANSCRIPTS
    rows = json.loads(kept.read_text(encoding="utf8"))
    asked = [t for t in map(Transcript.model_validate, rows) if t.base is not None]
    draw = random.Random(stable_seed("report", row["organism_id"]))
    for shown in draw.sample(asked, min(SHOWN_TRANSCRIPTS, len(asked))):
        lines += [
            f"- **{shown.probe.cell.replace('_', ' ')}**: {_one_line(_show(shown.probe.turns))}",
            f"  - organism: {_one_line(shown.organism)}",
            f"  - base: {_one_line(shown.base or '')}",
        ]
    return "\n".join([*lines, ""])


def _show(turns: Turns) -> str:
    """A single message as it is, and each of several behind its role."""
    if len(turns) == 1:
        return turns[0].content
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns)


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "(nothing)"


def describe_machine() -> str:
    """The processor, its cores and the versions that affect the figures."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    python = platform.python_version()
    return f"{os.cpu_count()} cores ({_processor() or device}), Python {python}, {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
