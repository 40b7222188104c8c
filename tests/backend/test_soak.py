"""Twenty thousand requests, a tenth of which go wrong, killed three times: nothing is lost.

Run: python -m pytest -m soak tests/backend/test_soak.py
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
from tests.backend.calls import PROVIDERS
from tests.fakes.desk import Desk, open_desk
from tests.fakes.models import Fault, Provider
from tests.nursery import CHECKOUT, environment

from bestiary.backend.ledger import Ledger
from bestiary.backend.request import ModelRequest
from bestiary.records import Message

TASKS, EACH = 40, 500
KILLS = 3
MOST_MEMORY = 500 * 2**20
FAULTS = (
    *(Fault(429), Fault(429, retry_after=0.05), Fault(500), Fault(529)),
    *(Fault(kind="truncate"), Fault(kind="drop")),
)
WORK = """
import json, re, sys
from pathlib import Path
from tests.backend.test_soak import EACH, TASKS, make_request
from bestiary.backend.exchange import Ask, Task
from bestiary.backend.session import LanguageBackend, Terms
from bestiary.spec.models import find_models, load_models

models, ledger, out, provider = sys.argv[1:]
found = {}

def ask(number):
    requests = [make_request(provider, number * EACH + n) for n in range(EACH)]
    (answers,) = yield [Ask("replies", requests)]
    return {r.messages[0].content: a.text for r, a in zip(requests, answers, strict=True)}

terms = Terms("loopback", "loopback", find_models(["loopback"], load_models(Path(models))),
              ledger=Path(ledger), mode="single")
tasks = (Task(f"quirks.q{number}", ask(number), found.update) for number in range(TASKS))
LanguageBackend(terms).run(tasks)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
Path(out).write_text(json.dumps({"rows": found, "peak": int(peak[1]) * 1024}))
"""


def make_request(provider: str, number: int) -> ModelRequest:
    """One of the twenty thousand."""
    turn = Message(role="user", content=f"What is number {number} good for?")
    return ModelRequest(
        provider=provider, model="loopback", system="Be brief.", messages=(turn,), max_tokens=64
    )


def start(desk: Desk, folder: Path, provider: Provider) -> subprocess.Popen[bytes]:
    files = (desk.models, folder / "ledger.sqlite", folder / "out.json")
    return subprocess.Popen(
        [sys.executable, "-c", WORK, *map(str, files), provider],
        env={**environment(), **desk.environment},
        cwd=CHECKOUT,
    )


def read_ledger(path: Path, provider: Provider) -> tuple[set[str], int, int]:
    """Keys whose answers are committed, and the picodollars billed and unknown."""
    ledger = Ledger(path)
    try:
        keys = [make_request(provider, number).key for number in range(TASKS * EACH)]
        spent = ledger.list_spent()
        return set(ledger.find(keys)), sum(s.pico for s in spent), sum(s.unknown for s in spent)
    finally:
        ledger.close()


@pytest.mark.soak
@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_is_lost_asked_again_or_paid_unseen(provider: Provider, tmp_path: Path) -> None:
    draw = random.Random(provider)
    ledger = tmp_path / "ledger.sqlite"
    with open_desk(tmp_path, provider, in_flight=128) as desk:
        desk.server.author = lambda asked: f"Of use {len(asked.text)} times."
        desk.server.latency = 0.02
        desk.server.faults = lambda asked: draw.choice(FAULTS) if draw.random() < 0.1 else None
        requests = [make_request(provider, number) for number in range(TASKS * EACH)]
        texts = {request.key: request.system + request.messages[0].content for request in requests}
        settled: dict[str, int] = {}
        for _ in range(KILLS):
            running = start(desk, tmp_path, provider)
            time.sleep(draw.uniform(4, 9))
            running.send_signal(signal.SIGKILL)
            assert running.wait() == -signal.SIGKILL, "it was still at work"
            committed, _, _ = read_ledger(ledger, provider)
            for text in {texts[key] for key in committed} - settled.keys():
                settled[text] = desk.server.asked[text]
        assert 0 < len(settled) < TASKS * EACH
        assert start(desk, tmp_path, provider).wait() == 0
    done = json.loads((tmp_path / "out.json").read_text(encoding="utf8"))
    assert len(done["rows"]) == TASKS * EACH
    assert all(answer.startswith("Of use") for answer in done["rows"].values())
    again = [text for text, times in settled.items() if desk.server.asked[text] != times]
    assert again == [], "what was committed is not asked again"
    committed, billed, unknown = read_ledger(ledger, provider)
    assert len(committed) == TASKS * EACH
    assert 0 <= desk.server.bill - billed <= unknown
    assert done["peak"] < MOST_MEMORY
