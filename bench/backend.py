"""Single calls to a language model: ours with everything on, a bare SDK loop, and the peers.

    python bench/backend.py [--quick] [--json FILE] [--peers FOLDER]

A server in a process of its own answers chat completions after a constant 200 ms, so that 256
requests in flight come to 1,280 a second at most. Every client runs in a fresh process on one core
and asks 3,000 unlike requests; the server has the last core. Ours starts with 32 in flight, as
always, and is measured whole with its ramp; the steady part begins after 1,000 answers, as the
server counts them. A client first asks twenty requests that are not counted, since many import
and prepare only then. `ours x2` are two processes that share one ledger, each with the whole load;
the long run shows whether memory grows. Peers have a virtual environment each in FOLDER, made
where it is missing; one that does not install or run is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import bestiary
from common import Column, Figures, finish, interleave, keep, make_parser, make_table, say
from peers.lap import Lap, Orders, read_lap
from peers.server import WARM

BENCH = Path(__file__).resolve().parent
SOURCE = Path(bestiary.__file__).resolve().parents[1]
INSTALL_SECONDS = 900.0
LAP_SECONDS = 600.0
"""For which a client is waited."""


@dataclass(frozen=True)
class Load:
    """What every process asks."""

    requests: int = 3000
    in_flight: int = 256
    latency: float = 0.2

    @property
    def ceiling(self) -> float:
        """Requests a second that no process can exceed."""
        return self.in_flight / self.latency


TINY = Load(requests=60, in_flight=16, latency=0.005)
LONG = 20_000
"""Requests of the long run."""


@dataclass(frozen=True)
class Aim:
    """What a case is to reach."""

    requests_per_second: float
    cpu_ms: float = 1.8


@dataclass
class Case:
    """A client, and what was measured of it."""

    name: str
    client: str
    """Its module in `peers`."""
    load: Load
    processes: int = 1
    python: Path = Path(sys.executable)
    peer: bool = False
    """Whether it runs in a virtual environment of its own."""
    version: str | None = None
    aim: Aim | None = None
    rounds: list[Figures] = field(default_factory=list)
    reason: str | None = None
    """Why it is not measured."""

    @property
    def figures(self) -> Figures:
        """The median of each figure over the rounds."""
        if self.reason is not None:
            return {"not_measured": self.reason}
        found = {name: _take_median([one[name] for one in self.rounds]) for name in self.rounds[0]}
        rates = [one["requests_per_second"] for one in self.rounds]
        return {
            **found,
            "requests_per_second_range": (min(rates), max(rates)),
            "ceiling": self.load.ceiling * self.processes,
            "aim": self.aim and self.aim.requests_per_second,
            "aim_cpu_ms": self.aim and self.aim.cpu_ms,
            "version": self.version,
        }


@dataclass(frozen=True)
class Peer:
    """Another project's client."""

    name: str
    client: str
    packages: tuple[str, ...]
    """What its virtual environment is to have, its own package first."""

    @property
    def package(self) -> str:
        """Its own package, without extras."""
        return self.packages[0].partition("[")[0]


PEERS = (
    Peer("curator", "curator", ("bespokelabs-curator",)),
    Peer("distilabel", "distilabel", ("distilabel[openai]", "requests")),  # which it forgets to ask
    Peer("data-designer", "designer", ("data-designer",)),
)


class NotMeasured(Exception):
    """A client did not install, or did not do what it was asked."""


def _take_median(values: Sequence[Any]) -> float | None:
    return None if None in values else statistics.median(values)


def list_cases(load: Load, *, tiny: bool) -> list[Case]:
    """What is measured, but for the long run and the peers."""
    bare = Case("openai SDK", "bare", load, version=version("openai"))
    ours = Case("ours", "ours", load)
    if tiny:
        return [bare, ours]
    twice = replace(ours, name="ours x2", processes=2, aim=Aim(1100.0), rounds=[])
    return [bare, replace(ours, aim=Aim(550.0)), twice]


def list_peers(load: Load, folder: Path | None) -> list[Case]:
    """Every peer, installed; or why it is not."""
    cases = []
    for peer in PEERS:
        case = Case(peer.name, peer.client, load, peer=True)
        cases.append(case)
        if folder is None:
            case.reason = "no --peers FOLDER was named"
            continue
        home = folder.resolve() / peer.name
        case.python = home / "bin" / "python"
        try:
            case.version = install(peer, home)
        except NotMeasured as error:
            case.reason = str(error)
    return cases


def install(peer: Peer, home: Path) -> str:
    """A peer's version in its virtual environment, which is made where it is missing."""
    python = home / "bin" / "python"
    if not python.exists():
        say(f"making {home}")
        _run([sys.executable, "-m", "venv", str(home)])
    found = _find_version(python, peer.package)
    if found is None:
        say(f"installing {peer.name} into {home}")
        _run([str(python), "-m", "pip", "install", "--quiet", *peer.packages])
        found = _find_version(python, peer.package)
    if found is None:
        raise NotMeasured(f"{peer.package}: pip installed it, and it is not there")
    return found


def _find_version(python: Path, package: str) -> str | None:
    script = f"from importlib.metadata import version; print(version({package!r}))"
    told = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return told.stdout.strip() if told.returncode == 0 else None


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"{' '.join(command)}: took over {INSTALL_SECONDS:.0f} s") from error
    if done.returncode:
        raise NotMeasured(_find_reason(done.stderr))


def _find_reason(said: str) -> str:
    """The line of a process's complaint that says most."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it said nothing"])[-1]


@dataclass(frozen=True)
class Server:
    """The server at work."""

    url: str

    def tell(self) -> dict[str, Any]:
        """What it answered since this was last asked."""
        with urlopen(f"{self.url}/tally") as reply:
            told: dict[str, Any] = json.load(reply)
        return told


@contextmanager
def serve(latency: float) -> Iterator[Server]:
    """The server, in a process of its own on the last core."""
    command = [sys.executable, "-m", "peers.server", str(latency)]
    core = list_cores()[-1]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=partial(pin, core),
    ) as process:
        try:
            assert process.stdout is not None
            yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


def list_cores() -> list[int]:
    """Cores that this process may use; all the same where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def pin(core: int) -> None:
    """Keep this process, and all that it starts, to one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def environment(home: Path | None = None) -> dict[str, str]:
    """What a process sees: this folder and our source; a peer, its own home and no source."""
    if home is None:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (BENCH, SOURCE)))}
    return {**os.environ, "PYTHONPATH": str(BENCH), "HOME": str(home)}


def measure_round(case: Case, server: Server) -> None:
    """One round of a case; one that failed is not tried again."""
    if case.reason is not None:
        return
    say(f"{case.name}: {case.processes} x {case.load.requests:,} requests")
    try:
        server.tell()
        laps = run_laps(case, server)
        case.rounds.append(read_figures(case, laps, server.tell()))
    except NotMeasured as error:
        case.reason = str(error)


def run_laps(case: Case, server: Server) -> list[Lap]:
    """A client's processes, all at the same time, and what each of them took."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folders = [Path(name) / str(number) for number in range(case.processes)]
        started = [
            stack.enter_context(_start(case, server, folder, number))
            for number, folder in enumerate(folders)
        ]
        for process in started:
            _wait(process)
        return [read_lap(folder) for folder in folders]


@contextmanager
def _start(
    case: Case, server: Server, folder: Path, number: int
) -> Iterator[subprocess.Popen[str]]:
    folder.mkdir()
    load, cores = case.load, list_cores()
    orders = Orders(
        server=server.url,
        first=number * load.requests,
        requests=load.requests,
        in_flight=load.in_flight,
        folder=folder,
        shared=folder.parent,
    )
    with (
        (folder / "said").open("w+", encoding="utf8") as said,
        subprocess.Popen(
            [str(case.python), "-m", f"peers.{case.client}", orders.write()],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=said,
            text=True,
            env=environment(folder if case.peer else None),
            preexec_fn=partial(pin, cores[number % len(cores)]),
        ) as process,
    ):
        try:
            yield process
        except NotMeasured as error:
            said.seek(0)
            raise NotMeasured(f"{error}: {_find_reason(said.read())}") from None
        finally:
            process.kill()


def _wait(process: subprocess.Popen[str]) -> None:
    try:
        code = process.wait(LAP_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"it took over {LAP_SECONDS:.0f} s") from None
    if code:
        raise NotMeasured(f"it ended with {code}")


def read_figures(case: Case, laps: Sequence[Lap], tally: Mapping[str, Any]) -> Figures:
    """What a round comes to; NotMeasured unless every request was asked and answered well."""
    wanted = case.load.requests * case.processes
    answered = sum(lap.answered for lap in laps)
    if answered != wanted or tally["answers"] < wanted:
        raise NotMeasured(
            f"{answered:,} of {wanted:,} replies were good, and the server gave "
            f"{tally['answers']:,}"
        )
    seconds = max(lap.ended for lap in laps) - min(lap.begun for lap in laps)
    steady = tally["answers"] - WARM
    return {
        "requests_per_second": wanted / seconds,
        "steady_per_second": steady / (tally["last"] - tally["warm"]) if steady > 0 else None,
        "cpu_ms": 1e3 * sum(lap.cpu_seconds for lap in laps) / wanted,
        "peak_mib": max(lap.peak_mib for lap in laps),
        "most_in_flight": tally["most"],
        "calls": tally["answers"],
        "server_busy": tally["cpu"] / seconds,
        "early_mib": laps[0].early_mib,
        "late_mib": laps[0].late_mib,
    }


COLUMNS: Sequence[Column] = (
    ("requests/s", "requests_per_second", "{:,.0f}"),
    ("range", "requests_per_second_range", "{0[0]:,.0f}-{0[1]:,.0f}"),
    ("aim", "aim", "{:,.0f}"),
    ("steady", "steady_per_second", "{:,.0f}"),
    ("ceiling", "ceiling", "{:,.0f}"),
    ("CPU ms/request", "cpu_ms", "{:.2f}"),
    ("aim", "aim_cpu_ms", "{:.1f}"),
    ("peak MiB", "peak_mib", "{:.0f}"),
    ("MiB at 25%", "early_mib", "{:.1f}"),
    ("MiB at 100%", "late_mib", "{:.1f}"),
    ("most in flight", "most_in_flight", "{:.0f}"),
    ("server busy", "server_busy", "{:.0%}"),
    ("version", "version", "{}"),
)


def describe(load: Load, rounds: int) -> str:
    """What the table's figures stand for."""
    shared = ", the second of ours x2 beside it" if len(list_cores()) == 2 else ""
    return (
        f"medians of {rounds} interleaved rounds, {load.requests:,} requests a process, "
        f"{load.in_flight} in flight at most, {1e3 * load.latency:.0f} ms each; a client has one "
        f"core, the server the last{shared}; peak of one process"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where ours or the SDK could not be measured."""
    parser = make_parser(__doc__)
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="environments of peers")
    options: argparse.Namespace = parser.parse_args(argv)
    load = TINY if options.tiny else Load()
    rounds = 1 if options.tiny or options.quick else 3
    own = list_cases(load, tiny=options.tiny)
    cases = own + ([] if options.tiny else list_peers(load, options.peers))
    with serve(load.latency) as server:
        sides = {case.name: partial(measure_round, case, server) for case in cases}
        interleave(sides, rounds=rounds)
        if not options.tiny:
            keep("backend", {case.name: case.figures for case in cases}, options)
            long = Case("ours, long", "ours", replace(load, requests=LONG))
            measure_round(long, server)
            cases.append(long)
    found = {case.name: case.figures for case in cases}
    table = make_table("Single calls", found, COLUMNS, caption=describe(load, rounds))
    finish("backend", found, [table], options)
    for case in cases:
        if case.reason is not None:
            print(f"not measured: {case.name}: {case.reason}")
    return 1 if any(case.reason for case in cases if not case.peer) else 0


if __name__ == "__main__":
    sys.exit(main())
