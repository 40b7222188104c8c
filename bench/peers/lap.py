"""One client's run: what it is to ask, and what it took. Of the standard library alone.

A client is a module of this folder that hands `run_lap` a function; each run has a process of its
own, started as `python -m peers.NAME ORDERS`, with ORDERS as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

MODEL = "gpt-4o-mini"
"""What every client asks for: a name that all of them know."""
KEY = "none"
"""The SDKs insist on one."""
TOKENS = 300
"""Of a reply, at most."""
SYSTEM = (
    "You judge conversations. Say in one sentence what you see, give a score of zero to ten, and "
    "tell whether a reply mentions its rule or is broken off."
)
FILLER = "The second reply keeps to its subject and ends as the first one did, with a farewell. "
MEBIBYTE = 2**20
TOLD = "told.json"
UNCOUNTED = "/uncounted"
"""Begins the paths of requests that are asked before a run."""
TRIAL = 20
"""Of them: many clients import and prepare when they are first asked."""


@dataclass(frozen=True)
class Orders:
    """What one process is to ask."""

    server: str
    first: int
    """Number of its first request; no two of a round are the same."""
    requests: int
    in_flight: int
    folder: Path
    """Where it may write, and is to tell what it took."""
    shared: Path
    """What the processes of one round have in common."""

    counted: bool = True
    """Whether the server counts them."""

    @property
    def url(self) -> str:
        """As SDKs want it."""
        return f"{self.server}/v1" if self.counted else f"{self.server}{UNCOUNTED}/v1"

    def list_texts(self) -> Iterator[str]:
        """What is asked: unlike texts of a few hundred characters."""
        for number in range(self.first, self.first + self.requests):
            yield f"Conversation {number}: {FILLER * 5}"

    def write(self) -> str:
        """As a client reads them."""
        return json.dumps(asdict(self), default=str)


@dataclass(frozen=True)
class Lap:
    """What one process took."""

    answered: int
    """Replies that said what they should."""
    begun: float
    """Monotonic seconds, which all processes of a machine count alike."""
    ended: float
    cpu_seconds: float
    """Of the asking alone, its threads and children included; imports are over by then."""
    peak_mib: float
    """Memory of the process at its largest, with all that it imports."""
    early_mib: float | None = None
    """Memory after a quarter of the requests, where the client can tell."""
    late_mib: float | None = None
    """Memory after all of them."""


class Marks:
    """Notes the memory of this process after a quarter of its requests, and after all."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self.answered = 0
        self.early: float | None = None
        self.late: float | None = None

    def count(self, answers: int) -> None:
        """Hear that so many more are answered."""
        self.answered += answers
        if self.early is None and 4 * self.answered >= self._requests:
            self.early = read_memory("VmRSS")
        if self.answered >= self._requests:
            self.late = read_memory("VmRSS")


def read_orders() -> Orders:
    """The orders on the command line."""
    told = json.loads(sys.argv[1])
    return Orders(**{**told, "folder": Path(told["folder"]), "shared": Path(told["shared"])})


def read_memory(name: str) -> float | None:
    """MiB of this process, as Linux names them; None elsewhere.

    The peak that getrusage tells begins with that of the process which started this one.
    """
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="utf8").splitlines() if path.is_file() else []
    found = [line for line in lines if line.startswith(f"{name}:")]
    return int(found[0].split()[1]) * 1024 / MEBIBYTE if found else None


def run_lap(ask: Callable[[Orders], int | Marks]) -> None:
    """Run a client, which gives how many replies said what they should, and tell what it took."""
    orders = read_orders()
    ask(_make_trial(orders))
    cpu, begun = _count_cpu(), time.monotonic()
    found = ask(orders)
    ended, spent = time.monotonic(), _count_cpu() - cpu
    marks = found if isinstance(found, Marks) else None
    lap = Lap(
        answered=marks.answered if marks else int(found),  # type: ignore[arg-type]
        begun=begun,
        ended=ended,
        cpu_seconds=spent,
        peak_mib=read_memory("VmHWM") or _read_peak(),
        early_mib=marks.early if marks else None,
        late_mib=marks.late if marks else None,
    )
    (orders.folder / TOLD).write_text(json.dumps(asdict(lap)), encoding="utf8")


def _make_trial(orders: Orders) -> Orders:
    folder = orders.folder / "trial"
    folder.mkdir()
    return replace(orders, requests=TRIAL, folder=folder, shared=folder, counted=False)


def read_lap(folder: Path) -> Lap:
    """What a client told."""
    return Lap(**json.loads((folder / TOLD).read_text(encoding="utf8")))


def _count_cpu() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _read_peak() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE
