"""The whole line as a user runs it: corpora, organisms, verdicts, release, introspection.

    python bench/line.py [--quick] [--roster NAME] [--out FOLDER] [--minutes MINUTES]

Every part is one command of `bestiary`, timed as a process of its own with all that it loads.
After each, figures, verdicts and transcripts are copied to `--home`, the folder to take home;
adapters and corpora stay. Past the minutes the running command is killed. The same command line
goes on where it stopped; parts that were done keep their figures. A call is `untimed` if this
script itself was killed meanwhile. What the figures say of 682 organisms is arithmetic. `--quick`
builds the roster `starter` and trains by the recipe `quick`, whose reports mean nothing. An error
that ends some organisms does not stop the line: they are counted among the verdicts, and not tried
again.

The exit code is 0 once all is done, 1 where a command failed, and 3 where the time was over.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bestiary.store import PART, Store
from common import Column, Figures, describe_machine, finish, keep, make_parser, make_table, say
from starter import COMMAND

WHOLE = 682
"""Organisms of the catalogue."""
TOTAL, CATEGORIES = "whole line", "by category"
STATUSES = ("passed", "failed", "unverified", "error")
CHOICES = ("roster", "recipe", "introspection", "base")
"""The arguments that decide what is built."""
TAKEN = ("summary.json", "timings.jsonl", "introspection", "store/transcript", "store/verdict")
"""What is taken home, by its path under --out."""
BEFORE: Figures = {
    **dict.fromkeys(("calls", "untimed_calls", "wall_seconds", "cpu_seconds"), 0),
    **dict.fromkeys(("devices", "commits"), ()),
}
"""The figures of a part that was never begun."""


@dataclass(frozen=True)
class Part:
    """One command of the line."""

    name: str
    arguments: tuple[str, ...]
    records: tuple[str, ...] = ()
    """Stages whose seconds the store records meanwhile."""
    one_each: str = ""
    """The stage that makes one artifact an organism; without one, all organisms are read."""
    replies: str = ""
    """Files of the store that list what models said, if they are asked."""


@dataclass(frozen=True)
class Lap:
    """How a command ended, and what it took."""

    ended: str
    wall: float
    cpu: float


def list_parts(options: argparse.Namespace) -> list[Part]:
    """The commands in order."""
    out, release = ("--out", str(options.out)), str(options.out / "release")
    recipe = ("--recipe", options.recipe) if options.recipe else ()
    base = ("--base", options.base) if options.base else ()
    build = ("build", options.roster, *recipe, *out)
    asked = (release, "--recipe", options.introspection, *base, *out)
    return [
        Part("corpora", (*build, "--until", "leaks"), ("probes", "corpus", "leaks"), "corpus"),
        Part("organisms", (*build, "--until", "organism"), ("organism",), "organism"),
        Part(
            "verdicts",
            (*build, "--until", "verdict"),
            ("replies", "transcript", "verdict"),
            "transcript",
            "transcript/*/transcripts.json",
        ),
        Part("release", build),
        Part("introspect train", ("introspect", "train", *asked), ("introspection",)),
        Part(
            "introspect evaluate",
            ("introspect", "evaluate", *asked),
            ("report", "likelihood", "reply-likelihood"),
            replies="report/*/reports.json",
        ),
        Part("introspect report", ("introspect", "report", "--release", release, *out)),
    ]


def run_within(arguments: Sequence[str], seconds: float) -> Lap:
    """Run a command of `bestiary`, and kill it past the seconds: its store survives that."""
    started, before = time.monotonic(), _read_cpu()
    try:
        # Progress goes beside the tables.
        done = subprocess.run([*COMMAND, *arguments], check=False, stdout=2, timeout=seconds)
        ended = f"exit code {done.returncode}" if done.returncode else "done"
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        ended = "cut off"
    return Lap(ended, time.monotonic() - started, _read_cpu() - before)


def _read_cpu() -> float:
    """CPU seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(part: Part, earlier: Figures, lap: Lap, out: Path) -> Figures:
    """The figures of a part after one more call; `earlier` are those before it."""
    machine, store = describe_machine(), Store(out)
    wall = earlier["wall_seconds"] + lap.wall
    organisms = 0
    if part.one_each or lap.ended == "done":
        organisms = len(store.read_seconds(part.one_each or "transcript"))
    files = (out / "store").glob(part.replies) if part.replies else ()
    replies = sum(len(json.loads(file.read_text(encoding="utf8"))) for file in files)
    return {
        "ended": lap.ended,
        "calls": earlier["calls"] + 1,
        "untimed_calls": earlier["untimed_calls"],
        "wall_seconds": wall,
        "cpu_seconds": earlier["cpu_seconds"] + lap.cpu,
        "recorded_seconds": {name: sum(store.read_seconds(name).values()) for name in part.records},
        "organisms": organisms or None,
        "organisms_per_second": organisms / wall if organisms else None,
        "arithmetic_seconds_of_682": wall / organisms * WHOLE if organisms else None,
        "replies": replies or None,
        "replies_per_second": replies / wall if replies else None,
        "devices": list(dict.fromkeys([*earlier["devices"], machine.gpu or machine.cpu])),
        "commits": list(dict.fromkeys([*earlier["commits"], machine.commit])),
    }


def run_line(parts: Sequence[Part], found: dict[str, Figures], options: argparse.Namespace) -> None:
    """Run what is not done yet, in order, until the time is over or a command fails."""
    end = time.monotonic() + 60 * (options.minutes or math.inf)
    for part in parts:
        earlier = found.get(part.name, BEFORE)
        if earlier.get("ended") == "done":
            continue
        left = end - time.monotonic()
        if left <= 0:
            break
        say(f"{part.name}: bestiary {' '.join(part.arguments)}")
        untimed = earlier["untimed_calls"] + 1
        found[part.name] = {**earlier, "ended": "killed", "untimed_calls": untimed}
        keep("line", found, options)  # this stays there if the script itself is killed
        begun = time.time()
        lap = run_within(part.arguments, left)
        if lap.ended == "exit code 1" and lost_few(options.out, begun):
            lap = replace(lap, ended="done")
        found[part.name] = measure(part, earlier, lap, options.out)
        take_home(options.out, options.home)
        keep("line", tell(parts, found, options.out), options)
        if found[part.name]["ended"] != "done":
            break


def lost_few(out: Path, begun: float) -> bool:
    """Whether a build since then went through, and errors ended some organisms and not all."""
    path = out / "summary.json"
    if not path.is_file() or path.stat().st_mtime < begun:
        return False
    lost = [bool(row["error"]) for row in json.loads(path.read_text(encoding="utf8"))]
    return any(lost) and not all(lost)


def take_home(out: Path, home: Path) -> None:
    """Copy what the figures rest on."""
    for name in TAKEN:
        source, target = out / name, home / name
        if source.is_dir():
            unfinished = shutil.ignore_patterns(f"*{PART}")
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=unfinished)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def tell(parts: Sequence[Part], found: Mapping[str, Figures], out: Path) -> dict[str, Figures]:
    """The parts, their sums, and the verdicts of each category."""
    rows = [found.get(part.name, {}) for part in parts]
    forecast = [row.get("arithmetic_seconds_of_682") for row in rows]
    total: Figures = {
        "wall_seconds": sum(row.get("wall_seconds", 0) for row in rows),
        "cpu_seconds": sum(row.get("cpu_seconds", 0) for row in rows),
        "arithmetic_seconds_of_682": None if None in forecast else sum(forecast),
    }
    return {**found, TOTAL: total, CATEGORIES: count_verdicts(out)}


def count_verdicts(out: Path) -> dict[str, Counter[str]]:
    """How many organisms of each category got which verdict."""
    counted: dict[str, Counter[str]] = {}
    path = out / "summary.json"
    for row in json.loads(path.read_text(encoding="utf8")) if path.is_file() else ():
        status = "error" if row["error"] else row["verdict"]
        if status:
            counted.setdefault(row["category"], Counter())[status] += 1
    return counted


COLUMNS: Sequence[Column] = (
    ("ended", "ended", "{}"),
    ("calls", "calls", "{}"),
    ("untimed", "untimed_calls", "{}"),
    ("wall, s", "wall_seconds", "{:,.1f}"),
    ("CPU, s", "cpu_seconds", "{:,.1f}"),
    ("organisms", "organisms", "{}"),
    ("per s", "organisms_per_second", "{:,.2f}"),
    ("replies", "replies", "{:,}"),
    ("per s", "replies_per_second", "{:,.1f}"),
    ("682: arithmetic, s", "arithmetic_seconds_of_682", "{:,.0f}"),
)
CAPTION = (
    "682: seconds per organism as measured here, times 682. This is arithmetic, not a measurement: "
    "it also multiplies what every process loads once. Aim: 30 minutes in all, then 10"
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = make_parser(__doc__)
    parser.add_argument("--roster", help="by name or by path (default: full_without_suites)")
    parser.add_argument("--recipe", metavar="NAME", help="of the organisms, not the roster's own")
    parser.add_argument("--introspection", metavar="NAME", help="the introspection recipe")
    parser.add_argument("--base", metavar="FOLDER", help="the base, if it is a local one")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=Path("runs/line"))
    parser.add_argument("--home", type=Path, metavar="FOLDER", help="default: home under --out")
    parser.add_argument("--minutes", type=float, help="how long this call may take")
    options = parser.parse_args(argv)
    options.roster = options.roster or ("starter" if options.quick else "full_without_suites")
    options.introspection = options.introspection or ("quick" if options.quick else "smollm2-135m")
    options.home = options.home or options.out / "home"
    options.json = options.json or options.home / "line.json"
    return options


def read_known(parts: Sequence[Part], options: argparse.Namespace) -> dict[str, Figures]:
    """The figures of earlier calls; raises ValueError if the folders are of another line."""
    built = (options.out / "store").exists()
    if not options.json.is_file():
        if built:
            raise ValueError(f"nobody timed what is in {options.out}")
        return {}
    whole = json.loads(options.json.read_text(encoding="utf8"))
    for name in CHOICES:
        now, then = getattr(options, name), whole["settings"][name]
        if now != then:
            raise ValueError(f"--{name} was {then} in {options.json} and is {now} now")
    told = whole["figures"]
    found = {part.name: told[part.name] for part in parts if part.name in told}
    if not built and any(one["ended"] == "done" for one in found.values()):
        raise ValueError(f"what {options.json} tells of is no longer in {options.out}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the line, as far as the time goes."""
    options = parse(argv)
    parts = list_parts(options)
    try:
        found = read_known(parts, options)
    except ValueError as why:
        print(f"{why}; name another --out, and another --home if you named one")
        return 2
    run_line(parts, found, options)
    shown = tell(parts, found, options.out)
    rows = {**found, TOTAL: shown[TOTAL]}
    statuses = [(status, status, "{}") for status in STATUSES]
    tables = [
        make_table(f"The whole line: {options.roster}", rows, COLUMNS, caption=CAPTION),
        make_table("Verdicts", shown[CATEGORIES], statuses),
    ]
    finish("line", shown, tables, options)
    return tell_end(parts, found)


def tell_end(parts: Sequence[Part], found: Mapping[str, Figures]) -> int:
    """Print what is not done, if anything, and why; returns the exit code."""
    for part in parts:
        ended = found.get(part.name, {}).get("ended", "cut off")
        if ended == "cut off":
            print(f"the time was over at: {part.name}; the same command line goes on there")
            return 3
        if ended != "done":
            print(f"bestiary {' '.join(part.arguments)} ended with {ended}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
