"""Single calls against a third-party mock server.

Run: python -m pytest tests/author/test_second_peer.py
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.models import Provider
from tests.forkserver import environment
from tests.llm.calls import EACH_PROVIDER, ask_all, make_request, sum_spent

from bestiary.author.forms import PlainMessage
from bestiary.llm import online as single
from bestiary.llm.ledger import Ledger
from bestiary.llm.request import Answer, Unanswered
from bestiary.llm.structured import read_form, schema_of

RULES: list[dict[str, Any]] = [
    {"when": {"messages_contain": "a form"}, "respond": {"content": '{"text": "Well?"}'}},
    {"when": {"messages_contain": "twice", "turn": 1}, "respond": {"status": 529, "error": "no"}},
    {"when": {"messages_contain": "twice"}, "respond": {"content": "At last."}},
    {"when": {"messages_contain": "too long"}, "respond": {"status": 400, "error": "too long"}},
]
START_SECONDS = 30.0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running fakellm."""
    rules = [{"name": f"rule-{number}", **rule} for number, rule in enumerate(RULES)]
    config = tmp_path_factory.mktemp("fakellm") / "fakellm.yaml"
    settings = {"version": 1, "defaults": {"fallback": "deterministic_echo"}, "rules": rules}
    config.write_text(json.dumps(settings), encoding="utf8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).with_name("fakellm")
    with subprocess.Popen(
        [command, "serve", "--config", config, "--port", str(port)],
        env=environment(),
        stdout=subprocess.DEVNULL,
    ) as server:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def wait_for(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < end, "fakellm does not listen"
            time.sleep(0.1)


@EACH_PROVIDER
def test_a_third_party_server_is_asked_billed_and_parsed_alike(
    name: Provider, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "FIRST_PAUSE", 0.01)
    requests = [
        make_request(name, f"{name}: hello"),
        make_request(name, f"{name}: fill a form", reply_schema=schema_of(PlainMessage)),
        make_request(name, f"{name}: only if I ask twice"),
        make_request(name, f"{name}: this is too long"),
    ]
    ledger = Ledger(tmp_path / "ledger.sqlite")
    url = address if name == "anthropic" else f"{address}/v1"
    plain, form, late, refused = ask_all(name, url, ledger, requests)
    assert isinstance(plain, Answer) and plain.text and plain.stop == "end"
    filled = read_form(form, PlainMessage)
    assert isinstance(filled, PlainMessage) and filled.text == "Well?"
    assert isinstance(late, Answer) and late.text == "At last."
    assert isinstance(refused, Unanswered) and "too long" in refused.reason
    answers = [one for one in (plain, form, late) if isinstance(one, Answer)]
    tokens = sum(a.usage.input + 5 * a.usage.output for a in answers)
    assert sum_spent(ledger) == (tokens * 10**6, 0)
    assert set(ledger.find(request.key for request in requests)) == {r.key for r in requests[:3]}
    ledger.close()
