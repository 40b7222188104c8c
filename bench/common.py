"""What the benches share: their arguments, runs side by side, the machine, tables and JSON."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 180
"""Columns of a table where no terminal says how many there are."""

Figures = dict[str, Any]
"""What was measured of one case, by name; None where a figure was not measured."""
Column = tuple[str, str, str]
"""A table's column: its header, the figure's name, and the form in which the figure is shown."""


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments of every bench; `doc` is the module's docstring."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes, fewer runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures by name")
    return parser


def console() -> Console:
    """Where tables go: wide enough for them also where the output is a file."""
    out = Console()
    return out if out.is_terminal else Console(width=WIDTH)


def say(text: str) -> None:
    """Tell what is being measured, beside the tables."""
    Console(stderr=True, width=WIDTH).print(text, style="dim", highlight=False, markup=False)


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars out of the tables."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def make_table(
    title: str, cases: Mapping[str, Figures], columns: Sequence[Column], *, caption: str = ""
) -> Table:
    """A row a case; a figure that was not measured is a dash."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("case")
    for header, _, _ in columns:
        table.add_column(header, justify="right")
    for name, figures in cases.items():
        table.add_row(name, *(_show(figures.get(key), form) for _, key, form in columns))
    return table


def _show(value: object, form: str) -> str:
    return "-" if value is None else form.format(value)


@dataclass(frozen=True)
class Runs:
    """What one side took in each round, and what it gave in the last."""

    seconds: tuple[float, ...]
    last: Any

    @property
    def median(self) -> float:
        """Seconds of the middle run."""
        return statistics.median(self.seconds)


def interleave(
    sides: Mapping[str, Callable[[], Any]], *, rounds: int, end: float = math.inf
) -> dict[str, Runs]:
    """Run every side once a round, A B A B: what else the machine does then hits all alike.

    No round is begun after `end`, of the monotonic clock, except the first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    last: dict[str, Any] = {}
    for number in range(rounds):
        if number and time.monotonic() > end:
            break
        for name, run in sides.items():
            gc.collect()
            started = time.perf_counter()
            last[name] = run()
            seconds[name].append(time.perf_counter() - started)
    return {name: Runs(tuple(spent), last[name]) for name, spent in seconds.items()}


def compare(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """How many times as long one side took: the median of the rounds, the least and the largest."""
    ratios = [one / other for one, other in zip(slow, fast, strict=True)]
    return statistics.median(ratios), (min(ratios), max(ratios))


@dataclass(frozen=True)
class Machine:
    """Where and with what the figures were measured."""

    date: str
    commit: str | None
    """Of the code; with a plus where files were changed since."""
    system: str
    cpu: str
    cores: int
    threads: int
    memory_gib: float
    gpu: str | None
    python: str
    torch: str
    transformers: str
    peft: str


def describe_machine() -> Machine:
    """This machine, now."""
    import torch

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_read_commit(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=_name_cpu(),
        cores=os.cpu_count() or 0,
        threads=torch.get_num_threads(),
        memory_gib=round(pages / 2**30, 1),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        python=platform.python_version(),
        torch=version("torch"),
        transformers=version("transformers"),
        peft=version("peft"),
    )


def _read_commit() -> str | None:
    """The commit of this folder; None where git does not tell."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or None


def _name_cpu() -> str:
    """The model that Linux names, else what Python knows."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf8").splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def keep(bench: str, cases: Mapping[str, Figures], options: argparse.Namespace) -> None:
    """Write the figures where `--json` says; after each case, so that none is lost."""
    if not options.json:
        return
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    whole = {
        "bench": bench,
        "machine": asdict(describe_machine()),
        "settings": settings,
        "figures": dict(cases),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(whole, indent=1, sort_keys=True, default=str)
    part = options.json.with_name(f"{options.json.name}.part")
    part.write_text(text + "\n", encoding="utf8")
    part.replace(options.json)  # a run that is cut off leaves the last case's figures


def finish(
    bench: str,
    cases: Mapping[str, Figures],
    tables: Sequence[Table],
    options: argparse.Namespace,
) -> None:
    """Print the tables and what they hold for, and write the figures."""
    machine = describe_machine()
    for table in tables:
        console().print(table)
    parts = [
        machine.gpu or machine.cpu,
        f"{machine.threads} threads",
        f"torch {machine.torch}, transformers {machine.transformers}, peft {machine.peft}",
        f"commit {machine.commit}, {machine.date}",
    ]
    console().print(" | ".join(parts), highlight=False, markup=False, soft_wrap=True)
    keep(bench, cases, options)
