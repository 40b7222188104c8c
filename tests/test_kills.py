"""A build killed at any instant is completed by the same command, to the same bytes.

Run: python -m pytest tests/test_kills.py; the longer version: add -m soak
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest
from tests.forkserver import ForkServer, KillPoint, Side
from tests.tiny import ALONE, QUIRK, hash_tree, make_tiny_data, tiny_roster

STAGES = ("probes", "corpus", "leaks", "organism", "transcript", "verdict", "release")
WORKERS = 2
KILLED = 0.8
"""Share of an unbroken build that timed kills fall into: the machine may be quicker by then. What
comes after it is killed before every rename."""
HIT = 0.75
"""Share of timed kills that must find the build running: none ends that much sooner."""


@dataclass(frozen=True)
class Line:
    """A tiny pipeline from roster to release: warm processes, and what unbroken builds leave."""

    servers: SimpleQueue[ForkServer]
    roster: Path
    work: Path
    trees: dict[str, dict[str, str]]
    """The files of an unbroken build that ends with each stage."""
    seconds: float
    renames: dict[str, int]
    """Renames of each stage, where the stages before it are built."""

    def after(self, stage: str) -> Path:
        """What a build leaves that ends with a stage."""
        return self.work / f"until-{stage}"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Line]:
    work = tmp_path_factory.mktemp("kills")
    data = make_tiny_data(work / "data")
    roster = tiny_roster(work / "roster", tiny_base, [QUIRK])
    with ForkServer(data=data) as first, ForkServer(data=data) as second:
        servers: SimpleQueue[ForkServer] = SimpleQueue()
        for server in (first, second):
            servers.put(server)
        renames: dict[str, int] = {}
        trees: dict[str, dict[str, str]] = {}
        before = None
        for stage in STAGES:
            out = work / f"until-{stage}"
            if before is not None:
                shutil.copytree(before, out)
            done = first.run("build", roster, *ALONE, "--out", out, "--until", stage)
            assert done.code == 0, done.err
            renames[stage], trees[stage], before = done.renames, hash_tree(out), out
        done = second.run("build", roster, *ALONE, "--out", work / "whole")
        assert done.code == 0, done.err
        assert hash_tree(work / "whole") == trees["release"]
        yield Line(servers, roster, work, trees, done.seconds, renames)


@dataclass(frozen=True)
class Kill:
    """A build that is killed, and then run again up to the same stage."""

    name: str
    point: KillPoint
    until: str = "release"
    start: Path | None = None
    """What an earlier build left; None to begin with nothing."""


@dataclass(frozen=True)
class Outcome:
    """What became of a build that was to be killed, and of the same command after it."""

    died: bool
    faults: list[str]


def kill_and_rerun(line: Line, kill: Kill) -> Outcome:
    """Kill a build, run it again, and say what then differs from an unbroken one."""
    out = line.work / kill.name
    if kill.start is not None:
        shutil.copytree(kill.start, out)
    command = ("build", line.roster, *ALONE, "--out", out, "--until", kill.until)
    server = line.servers.get()
    try:
        killed = server.run(*command, kill=kill.point)
        again = server.run(*command)
    finally:
        line.servers.put(server)
    faults = []
    if killed.code not in (-signal.SIGKILL, 0):
        faults.append(f"{kill}: ended with {killed.code} instead of being killed: {killed.err}")
    if again.code != 0:
        faults.append(f"{kill}: the second run ended with {again.code}: {again.err}")
    found, whole = hash_tree(out), line.trees[kill.until]
    differing = sorted(path for path in found.keys() | whole if found.get(path) != whole.get(path))
    if differing:
        faults.append(f"{kill}: differs from an unbroken build in {differing}")
    shutil.rmtree(out)
    return Outcome(killed.code == -signal.SIGKILL, faults)


def check_kills(line: Line, kills: Sequence[Kill]) -> list[Kill]:
    """Kill and rerun a build for each kill; returns those that found it running."""
    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = list(pool.map(partial(kill_and_rerun, line), kills))
    assert [fault for outcome in outcomes for fault in outcome.faults] == []
    return [kill for kill, outcome in zip(kills, outcomes, strict=True) if outcome.died]


def random_kills(line: Line, count: int, *, seed: int) -> list[Kill]:
    """Instants of an unbroken build, one in each of `count` equal parts of its `KILLED` share."""
    draw = random.Random(seed)
    shares = [KILLED * (part + draw.random()) / count for part in range(count)]
    return [
        Kill(f"at-{share:.3f}-of-a-build", KillPoint(seconds=share * line.seconds))
        for share in shares
    ]


def rename_kills(line: Line, stage: str, *, side: Side, numbers: Iterable[int]) -> list[Kill]:
    """Kills at renames of a stage, where the stages before it are built."""
    place = STAGES.index(stage)
    start = line.after(STAGES[place - 1]) if place else None
    return [
        Kill(
            f"{side}-rename-{number}-of-{stage}",
            KillPoint(rename=number, side=side),
            until=stage,
            start=start,
        )
        for number in numbers
    ]


def test_killed_at_random_instants(line: Line) -> None:
    assert len(check_kills(line, random_kills(line, 2, seed=1))) >= HIT * 2


@pytest.mark.parametrize("stage", STAGES)
def test_killed_before_a_rename_in_the_middle_and_after_the_last(line: Line, stage: str) -> None:
    count = line.renames[stage]
    # An artifact takes two renames, its manifest's and its own; the release one besides.
    assert count >= 3
    kills = rename_kills(line, stage, side="before", numbers=[(count + 1) // 2])
    kills += rename_kills(line, stage, side="after", numbers=[count])
    assert check_kills(line, kills) == kills


@pytest.mark.soak
def test_killed_at_a_hundred_random_instants(line: Line) -> None:
    assert len(check_kills(line, random_kills(line, 100, seed=2))) >= HIT * 100


@pytest.mark.soak
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_every_rename(line: Line, stage: str, side: Side) -> None:
    kills = rename_kills(line, stage, side=side, numbers=range(1, line.renames[stage] + 1))
    assert check_kills(line, kills) == kills
