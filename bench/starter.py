"""The starter roster by both trainers, whole, as a user builds it.

    python bench/starter.py [--quick] [--json FILE] [--roster NAME] [--out FOLDER]

Each trainer builds into a folder of its own that holds nothing before; the base is converted
already, so that nobody waits for a download. Whole it takes about an hour on two cores; `--quick`
builds two behaviors and a null organism. The build's own record says how long each stage took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestiary.config.catalog import load_catalog
from bestiary.config.library import open_library
from bestiary.model.base import locate_base
from common import Column, Figures, finish, make_parser, make_table, say

COMMAND = (sys.executable, "-m", "bestiary")
TRAINERS = ("engine", "reference")
STAGES = ("corpus", "organism", "transcript", "verdict")
"""Stages whose seconds add up; the base's replies are asked for within two of them."""
ROSTER = "starter"


@dataclass(frozen=True)
class Whole:
    """One build from nothing."""

    trainer: str
    wall: float
    stages: Mapping[str, float]
    verdicts: Mapping[str, str]
    """Of each organism."""

    @property
    def passed(self) -> int:
        """Organisms that passed."""
        return Counter(self.verdicts.values())["passed"]

    @property
    def rest(self) -> float:
        """What no stage accounts for: imports, loading, the release."""
        return self.wall - sum(self.stages.values())

    @property
    def figures(self) -> Figures:
        """By name."""
        found: Figures = {f"{stage}_seconds": spent for stage, spent in self.stages.items()}
        found |= {
            "wall_seconds": self.wall,
            "rest_seconds": self.rest,
            "organisms": len(self.verdicts),
            "passed": self.passed,
        }
        return found


def build(trainer: str, roster: str, out: Path) -> Whole:
    """Build a roster as a user does; raises CalledProcessError where the build fails."""
    say(f"{trainer}: bestiary build {roster} --out {out} --trainer {trainer}")
    started = time.monotonic()
    subprocess.run(
        [*COMMAND, "build", roster, "--out", str(out), "--trainer", trainer],
        check=True,
        stdout=2,  # progress goes beside the table
    )
    wall = time.monotonic() - started
    summary = json.loads((out / "summary.json").read_text(encoding="utf8"))
    return Whole(
        trainer=trainer,
        wall=wall,
        stages=read_stages(out),
        verdicts={row["organism_id"]: row["verdict"] for row in summary},
    )


def read_stages(out: Path) -> dict[str, float]:
    """Seconds of each stage, by the build's own record."""
    spent = dict.fromkeys(STAGES, 0.0)
    for line in (out / "timings.jsonl").read_text(encoding="utf8").splitlines():
        row = json.loads(line)
        if row["stage"] in spent:
            spent[row["stage"]] += float(row["seconds"])
    return spent


@contextmanager
def choose_roster(options: argparse.Namespace) -> Iterator[str]:
    """The roster to build: the one named, or with `--quick` a file of two behaviors."""
    if not options.quick:
        yield options.roster
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quick.yaml"
        path.write_text(json.dumps(shorten_roster(options.roster)), encoding="utf8")
        yield str(path)


def shorten_roster(name: str) -> dict[str, Any]:
    """A roster with the first two of its behaviors; JSON is YAML too."""
    whole = open_library().roster(name).model_dump(mode="json")
    kept = whole["organisms"][:2]
    catalog = load_catalog(open_library())
    families = {catalog[entry["behavior"]].family for entry in kept}
    splits = {family: split for family, split in whole["splits"].items() if family in families}
    return {**whole, "name": "quick", "organisms": kept, "splits": splits}


def warm_cache(roster: str) -> None:
    """Convert the base, if nobody has."""
    recipe = open_library().recipe(open_library().roster(roster).recipe)
    locate_base(recipe.base, recipe.revision)


COLUMNS: Sequence[Column] = (
    *((stage, f"{stage}_seconds", "{:,.1f}") for stage in (*STAGES, "rest", "wall")),
    ("organisms", "organisms", "{}"),
    ("passed", "passed", "{}"),
)


def compare_builds(engine: Whole, reference: Whole) -> Figures:
    """How many times as long plain peft took, and how many organisms got the same verdict."""
    same = [reference.verdicts.get(name) == told for name, told in engine.verdicts.items()]
    return {
        "organism_ratio": reference.stages["organism"] / engine.stages["organism"],
        "wall_ratio": reference.wall / engine.wall,
        "same_verdicts": sum(same),
    }


def measure(options: argparse.Namespace, out: Path) -> int:
    """Build with each trainer, print and write."""
    warm_cache(options.roster)
    with choose_roster(options) as roster:
        engine, reference = (build(trainer, roster, out / trainer) for trainer in TRAINERS)
    ratios = compare_builds(engine, reference)
    found = {"engine": engine.figures, "reference": reference.figures}
    caption = (
        "seconds, stages as the build records them; rest: imports, loading, the release. The "
        "reference took {organism_ratio:.2f}x as long to train and {wall_ratio:.2f}x in all; "
        "{same_verdicts} verdicts are the same"
    )
    table = make_table("The whole build", found, COLUMNS, caption=caption.format(**ratios))
    finish("starter", found | {"ratio": ratios}, [table], options)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Build into a folder that stays where `--out` names one, else into one that goes."""
    parser = make_parser(__doc__)
    parser.add_argument("--roster", default=ROSTER, help="another roster, by name or by path")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the builds here")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        built = [trainer for trainer in TRAINERS if (out / trainer).exists()]
        if built:
            print(f"{out / built[0]} exists, and a build there would go on; name another --out")
            return 2
        try:
            return measure(options, out)
        except subprocess.CalledProcessError as failed:
            print(f"{' '.join(failed.cmd)} ended with exit code {failed.returncode}")
            return 1


if __name__ == "__main__":
    sys.exit(main())
