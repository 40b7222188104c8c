"""A disk that fills up while language models write: one message, and no unrecorded bill.

Run: python -m pytest tests/llm/test_full_disk.py
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fakes.loopback import Loopback, open_loopback
from tests.forkserver import ForkServer, RunResult
from tests.tiny import QUIRK, make_tiny_data, tiny_roster

from bestiary.llm.client import Mode
from bestiary.llm.ledger import Ledger
from bestiary.records import Example

BLOCK = 4096
LARGE = "size=64m"
IN_FLIGHT = 8


@dataclass(frozen=True)
class Site:
    """A server that can mount small disks, a roster, and the server that answers its requests."""

    server: ForkServer
    loopback: Loopback
    roster: Path
    work: Path

    def mount(self, name: str, options: str) -> Path:
        """Mount a fresh disk; returns the folder to build in."""
        (self.work / name).mkdir()
        self.server.mount(self.work / name, options)
        return self.work / name / "runs"

    def write(self, out: Path, mode: Mode) -> RunResult:
        """Build up to the corpora."""
        options = self.loopback.options(mode=mode)
        return self.server.run("build", self.roster, *options, "--out", out, "--until", "corpus")

    def read_accounts(self, out: Path) -> tuple[int, int, int]:
        """The number of committed answers, and picodollars billed and unknown."""
        # SQLite cannot open files in another mount namespace.
        copy = Path(tempfile.mkdtemp(dir=self.work))
        for path in self.server.see(out).glob("ledger.sqlite*"):
            shutil.copy(path, copy)
        ledger = Ledger(copy / "ledger.sqlite")
        try:
            spent = [row for row in ledger.list_spent() if row.mode != "replay"]
            answers = sum(row.requests for row in spent)
            return answers, sum(row.pico for row in spent), sum(row.unknown for row in spent)
        finally:
            ledger.close()

    def read_corpora(self, out: Path) -> list[list[str]]:
        """The turns of each row in a store."""
        return sorted(
            [turn.content for turn in Example.model_validate_json(line).messages]
            for path in self.server.see(out).glob("store/corpus/*/examples.jsonl")
            for line in path.read_text("utf8").split("\n")[:-1]
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("disks")
    data = make_tiny_data(work / "data")
    roster = tiny_roster(work / "roster", tiny_base, [QUIRK])
    opened = open_loopback(work, "anthropic", in_flight=IN_FLIGHT, batch_requests=50)
    with opened as loopback, pytest.MonkeyPatch.context() as patch:
        loopback.server.latency = 0.01  # so that requests are in flight when the disk is full
        for name, value in loopback.environment.items():
            patch.setenv(name, value)
        with ForkServer(data=data, disk=True) as server:
            yield Site(server, loopback, roster, work)


@pytest.fixture(scope="module")
def whole(site: Site) -> tuple[int, list[list[str]]]:
    """The blocks used by a build on a large disk, and its rows."""
    out = site.mount("large", LARGE)
    done = site.write(out, "single")
    assert done.code == 0, done.err
    taken = shutil.disk_usage(site.server.see(out)).used
    return taken // BLOCK, site.read_corpora(out)


def count_answered(site: Site) -> int:
    """The number of the server's answers, once no request is in flight."""
    while site.loopback.server.in_flight:
        time.sleep(0.01)
    return site.loopback.server.asked.total()


CASES = [("batch", 1.6)]
"""During a build, the ledger takes several times the space that it takes at the end."""
FURTHER_CASES = [
    *(("single", share) for share in (0.01, 0.8, 2.0)),
    *(("batch", share) for share in (0.01, 0.8, 1.2, 2.0, 2.4)),
]


@pytest.mark.parametrize(
    ("mode", "share"),
    [*CASES, *(pytest.param(*one, marks=pytest.mark.soak) for one in FURTHER_CASES)],
)
def test_a_full_disk_is_reported_and_the_same_command_resumes(
    site: Site, whole: tuple[int, list[list[str]]], mode: Mode, share: float
) -> None:
    blocks, rows = whole
    server = site.loopback.server
    asked, bill = server.asked.total(), server.bill
    out = site.mount(f"{mode}-{share}", f"nr_blocks={max(1, int(blocks * share))}")
    done = site.write(out, mode)
    assert done.code == 1, done.err
    assert "Traceback" not in done.err
    (message,) = [line for line in done.err.splitlines() if line.startswith("error[")]
    assert str(out) in message
    assert "the disk is full (0 MiB free)" in message
    answered = count_answered(site) - asked
    site.server.mount(out.parent, f"remount,{LARGE}")
    lost = 0  # no batch is lost: its results are read again
    if mode == "single":
        answers, billed, unknown = site.read_accounts(out)
        lost = answered - answers
        assert 0 <= lost <= IN_FLIGHT, "no request is sent without room for its answer"
        assert 0 <= server.bill - bill - billed <= unknown
    done = site.write(out, mode)
    assert done.code == 0, done.err
    answers, billed, unknown = site.read_accounts(out)
    assert count_answered(site) - asked == answers + lost, "committed requests are not repeated"
    assert 0 <= server.bill - bill - billed <= unknown
    assert unknown == 0 or mode == "single"
    assert site.read_corpora(out) == rows
