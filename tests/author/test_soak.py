"""Twenty thousand requests with faults, killed three times: nothing is lost or paid twice.

Of single calls a tenth fail; of calls about batches a tenth, and of their items four in a
thousand: an item is given up after three failures.

Run: python -m pytest -m soak tests/author/test_soak.py
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fakes.loopback import Loopback, open_loopback
from tests.fakes.models import Fault, Provider
from tests.forkserver import CHECKOUT, environment
from tests.llm.calls import PROVIDERS

from bestiary.llm.client import Mode
from bestiary.llm.ledger import Ledger
from bestiary.llm.request import ModelRequest
from bestiary.records import Message

JOBS, EACH = 40, 500
KILLS = 3
MOST_MEMORY = 500 * 2**20
Span = tuple[float, float]
"""Shortest and longest, in seconds."""
FAULTS = (
    *(Fault(429), Fault(429, retry_after=0.05), Fault(500), Fault(529)),
    *(Fault(kind="truncate"), Fault(kind="drop")),
)
WORK = """
import json, re, sys
from pathlib import Path
from tests.author.test_soak import EACH, JOBS, make_request
from bestiary.config.library import find_model, open_library
from bestiary.llm.workflow import RequestGroup, Job
from bestiary.llm.remote_batch import PollPolicy
from bestiary.llm.client import LLMClient, LLMConfig

models, ledger, out, provider, mode = sys.argv[1:]
found = {}

def ask(number):
    requests = [make_request(provider, number * EACH + n) for n in range(EACH)]
    (answers,) = yield [RequestGroup("replies", requests)]
    return {r.messages[0].content: a.text for r, a in zip(requests, answers, strict=True)}

known = open_library().models(Path(models))
config = LLMConfig({"loopback": find_model("loopback", known)}, ledger=Path(ledger),
                   mode=mode, poll=PollPolicy(poll=0.1, hidden=3.0))
jobs = (Job(str(number), f"quirks.q{number}", ask(number)) for number in range(JOBS))
for _, answers in LLMClient(config).run(jobs):
    found |= answers
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
Path(out).write_text(json.dumps({"rows": found, "peak": int(peak[1]) * 1024}))
"""


def make_request(provider: str, number: int) -> ModelRequest:
    """One of the twenty thousand."""
    turn = Message(role="user", content=f"What is number {number} good for?")
    return ModelRequest(
        provider=provider, model="loopback", system="Be brief.", messages=(turn,), max_tokens=64
    )


def start(
    loopback: Loopback, folder: Path, provider: Provider, mode: Mode
) -> subprocess.Popen[bytes]:
    files = (loopback.models, folder / "ledger.sqlite", folder / "out.json")
    return subprocess.Popen(
        [sys.executable, "-c", WORK, *map(str, files), provider, mode],
        env={**environment(), **loopback.environment},
        cwd=CHECKOUT,
    )


def read_ledger(path: Path, provider: Provider) -> tuple[set[str], int, int]:
    """Keys whose answers are committed, and the picodollars billed and unknown."""
    ledger = Ledger(path)
    try:
        keys = [make_request(provider, number).key for number in range(JOBS * EACH)]
        spent = ledger.list_spent()
        return set(ledger.find(keys)), sum(s.pico for s in spent), sum(s.unknown for s in spent)
    finally:
        ledger.close()


def soak(
    loopback: Loopback,
    folder: Path,
    provider: Provider,
    mode: Mode,
    draw: random.Random,
    kills: Span,
) -> dict[str, int]:
    """Run, kill three times, and run to the end; return how often each committed text was answered.

    No row may be missing, no committed request repeated, and memory stays bounded.
    """
    ledger = folder / "ledger.sqlite"
    requests = [make_request(provider, number) for number in range(JOBS * EACH)]
    texts = {request.key: request.system + request.messages[0].content for request in requests}
    settled: dict[str, int] = {}
    for _ in range(KILLS):
        running = start(loopback, folder, provider, mode)
        time.sleep(draw.uniform(*kills))
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL, "it was still running"
        if ledger.exists():
            for text in {texts[key] for key in read_ledger(ledger, provider)[0]} - settled.keys():
                settled[text] = loopback.server.asked[text]
    assert len(settled) < JOBS * EACH
    assert start(loopback, folder, provider, mode).wait() == 0
    done = json.loads((folder / "out.json").read_text(encoding="utf8"))
    assert len(done["rows"]) == JOBS * EACH
    assert all(answer.startswith("Of use") for answer in done["rows"].values())
    again = [text for text, times in settled.items() if loopback.server.asked[text] != times]
    assert again == [], "committed requests are not repeated"
    assert len(read_ledger(ledger, provider)[0]) == JOBS * EACH
    assert done["peak"] < MOST_MEMORY
    print(f"{provider}, {mode}: {len(settled):,} settled by the kills, {done['peak'] >> 20} MiB")
    return settled


@pytest.mark.soak
@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_single_call_is_lost_repeated_or_billed_unrecorded(
    provider: Provider, tmp_path: Path
) -> None:
    draw = random.Random(provider)
    with open_loopback(tmp_path, provider, in_flight=128) as loopback:
        loopback.server.author = lambda asked: f"Of use {len(asked.text)} times."
        loopback.server.latency = 0.02
        loopback.server.faults = lambda asked: draw.choice(FAULTS) if draw.random() < 0.1 else None
        assert soak(loopback, tmp_path, provider, "single", draw, (4, 9))
    _, billed, unknown = read_ledger(tmp_path / "ledger.sqlite", provider)
    assert 0 <= loopback.server.bill - billed <= unknown


@pytest.mark.soak
@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_batch_is_lost_repeated_or_billed_unrecorded(provider: Provider, tmp_path: Path) -> None:
    draw = random.Random(provider)
    with open_loopback(tmp_path, provider, batch_requests=1500) as loopback:
        loopback.server.author = lambda asked: f"Of use {len(asked.text)} times."
        loopback.server.batch_seconds, loopback.server.hidden_seconds = 3.0, 0.5
        loopback.server.batch_fate = lambda item: (
            draw.choice(("errored", "expired")) if draw.random() < 0.004 else "succeeded"
        )
        loopback.server.batch_faults = lambda step: (
            draw.choice(FAULTS) if draw.random() < 0.1 else None
        )
        soak(loopback, tmp_path, provider, "batch", draw, (3, 9))
    assert max(loopback.server.asked.values()) == 1
    _, billed, unknown = read_ledger(tmp_path / "ledger.sqlite", provider)
    assert (loopback.server.bill, 0) == (billed, unknown), "every batch was recovered"
