"""What the benches share: their arguments, runs side by side, the machine, tables and JSON."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 132
"""Columns of a table where no terminal says how many there are."""
MIB = 2**20

Figures = dict[str, Any]
"""What was measured, by name; None where a figure was not measured."""


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


def make_table(title: str, columns: Sequence[str], *, names: int = 1, caption: str = "") -> Table:
    """A table whose first `names` columns are words, and the others figures."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < names else "right")
    return table


def show(value: float | None, form: str = ".2f", unit: str = "") -> str:
    """A figure in a table; a dash where it was not measured."""
    return "-" if value is None else f"{value:{form}}{unit}"


@dataclass(frozen=True)
class Runs:
    """What one side took in each round, and what it gave in the last."""

    seconds: tuple[float, ...]
    last: Any

    @property
    def median(self) -> float:
        """Seconds of the middle run."""
        return statistics.median(self.seconds)


def interleave(sides: Mapping[str, Callable[[], Any]], *, rounds: int) -> dict[str, Runs]:
    """Run every side once a round, A B A B: what else the machine does then hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    last: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in sides.items():
            gc.collect()
            started = time.perf_counter()
            last[name] = run()
            seconds[name].append(time.perf_counter() - started)
    return {name: Runs(tuple(spent), last[name]) for name, spent in seconds.items()}


@dataclass(frozen=True)
class Ratio:
    """How many times as long one side took as the other, round by round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round's."""
        return statistics.median(self.rounds)

    @property
    def text(self) -> str:
        """The median with the least and the largest."""
        spread = f" ({min(self.rounds):.2f}-{max(self.rounds):.2f})" if self.rounds[1:] else ""
        return f"{self.median:.2f}x{spread}"


def compare(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """Seconds of `slow` over those of `fast`, each round by itself."""
    return Ratio(tuple(one / other for one, other in zip(slow, fast, strict=True)))


@dataclass(frozen=True)
class Machine:
    """Where and with what the figures were measured."""

    date: str
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


def _name_cpu() -> str:
    """The model that Linux names, else what Python knows."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf8").splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def finish(bench: str, figures: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print what the figures hold for, and write them where `--json` says."""
    machine = describe_machine()
    parts = [
        machine.gpu or machine.cpu,
        f"{machine.threads} threads",
        f"torch {machine.torch}, transformers {machine.transformers}, peft {machine.peft}",
        machine.date,
    ]
    console().print(" | ".join(parts), highlight=False, markup=False, soft_wrap=True)
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        whole = {
            "bench": bench,
            "machine": asdict(machine),
            "settings": settings,
            "figures": dict(figures),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(whole, indent=1, sort_keys=True, default=str)
        options.json.write_text(text + "\n", encoding="utf8")
