"""Single requests: each has an answer or a reason, and the ledger agrees with the bill.

Run: python -m pytest tests/llm/test_online.py
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.expect import expect_error
from tests.fakes.models import KEY, Asked, Fault, ModelServer, serve
from tests.fakes.models import Provider as ProviderName
from tests.llm.calls import (
    EACH_PROVIDER,
    KEY_VARIABLE,
    MODEL,
    OnlineClient,
    ask_all,
    check_bill,
    count_answers,
    fail_first,
    make_model,
    make_requests,
    open_ledger,
    read_reasons,
    run,
    sum_spent,
)

from bestiary.errors import BackendError
from bestiary.llm import online
from bestiary.llm.client import LLMClient, LLMConfig
from bestiary.llm.ledger import Ledger
from bestiary.llm.online import TRIES, BudgetError
from bestiary.llm.price import PICO, read_price
from bestiary.llm.provider import AuthError
from bestiary.llm.request import Answer, ModelRequest, Outcome
from bestiary.llm.workflow import Job, RequestGroup, Workflow

pytestmark = pytest.mark.usefixtures("short_pauses")


SHARED = "Think of bread. " * 400
"""A system prompt long enough for the server's cache."""


def make_shared(name: ProviderName, count: int, *, system: str = SHARED) -> list[ModelRequest]:
    """Requests with the same system prompt."""
    return [replace(request, system=system, shared=True) for request in make_requests(name, count)]


def words(asked: Asked) -> str:
    return asked.turns[-1][1]


def bound(name: ProviderName) -> int:
    """The most that each request of `make_requests` can cost, within a byte or so."""
    return read_price(make_model(name, "http://x"), batch=False).bound(make_requests(name, 1)[0])


# Answers


@EACH_PROVIDER
def test_answers_come_in_order_committed_and_billed(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    requests = make_requests(name, 60)
    outcomes = ask_all(name, url, ledger, requests)
    assert count_answers(outcomes) == 60
    written = {words(asked): server.author(asked) for asked in server.heard}
    texts = [outcome.text for outcome in outcomes if isinstance(outcome, Answer)]
    assert texts == [written[request.messages[0].content] for request in requests]
    kept = ledger.find(request.key for request in requests)
    assert [kept[request.key] for request in requests] == outcomes
    assert max(server.asked.values()) == 1
    check_bill(ledger, server)


@EACH_PROVIDER
def test_caching_is_billed_as_the_server_bills_it(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.bills_writes = (name,)
    assert count_answers(ask_all(name, url, ledger, make_shared(name, 8), most=1)) == 8
    (spent,) = ledger.list_spent()
    assert spent.cached == 7 * len(SHARED) // 4
    check_bill(ledger, server)


@EACH_PROVIDER
def test_a_shared_prefix_is_written_to_the_cache_once(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.bills_writes, server.latency = (name,), 0.05
    shared = make_shared(name, 30) + make_shared(name, 30, system="Think of salts. " * 400)
    assert count_answers(ask_all(name, url, ledger, shared + make_requests(name, 4))) == 64
    (spent,) = ledger.list_spent()
    assert spent.cached == 58 * len(SHARED) // 4
    assert server.most_in_flight > 2, "calls do not wait for another prefix"
    check_bill(ledger, server)


@EACH_PROVIDER
def test_calls_held_back_for_a_prefix_are_sent_if_its_first_call_fails(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.faults = fail_first(1, Fault(400))
    outcomes = ask_all(name, url, ledger, make_shared(name, 10))
    assert (count_answers(outcomes), len(read_reasons(outcomes))) == (9, 1)


# Temporary failures


@EACH_PROVIDER
@pytest.mark.parametrize(
    "fault", [Fault(500), Fault(529, retry_after=0.02), Fault(503), Fault(408)], ids=str
)
def test_a_request_is_tried_again_after_server_errors(
    name: ProviderName, fault: Fault, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.faults = fail_first(TRIES - 1, fault)
    assert count_answers(ask_all(name, url, ledger, make_requests(name, 1))) == 1
    assert server.statuses == {fault.status: TRIES - 1, 200: 1}
    check_bill(ledger, server)


@EACH_PROVIDER
def test_rate_limit_refusals_do_not_count_as_tries(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.faults = fail_first(3 * TRIES, Fault(429, retry_after=0.01))
    assert count_answers(ask_all(name, url, ledger, make_requests(name, 3))) == 3
    assert server.statuses == {429: 3 * TRIES, 200: 3}
    check_bill(ledger, server)


@EACH_PROVIDER
@pytest.mark.parametrize("kind", ["drop", "truncate", "hang", "other"])
def test_a_request_whose_answer_is_lost_is_sent_again_and_its_price_stays_unknown(
    name: ProviderName, kind: Any, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.faults = fail_first(3, Fault(kind=kind))
    outcomes = ask_all(name, url, ledger, make_requests(name, 12), timeout=1.0)
    assert count_answers(outcomes) == 12
    billed, unknown = sum_spent(ledger)
    assert 0 < server.bill - billed <= unknown
    assert 3 * bound(name) <= unknown <= 3 * bound(name) + 9 * 10**6
    assert ledger.taken() == billed + unknown


@EACH_PROVIDER
@pytest.mark.parametrize(
    "body",
    [
        "null",
        "[]",
        '"words"',
        '{"error": "a proxy has its own words"}',
        '{"content": 5, "choices": 5, "usage": {}}',
        '{"content": [5], "choices": [5], "usage": {}}',
        '{"content": [{}], "choices": [{}], "usage": {}}',
        '{"content": [], "choices": [{"message": 5}], "usage": 5}',
    ],
)
def test_a_request_is_sent_again_if_the_json_is_not_an_answer(
    name: ProviderName, body: str, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.faults = fail_first(2, Fault(kind="other", message=body))
    outcomes = ask_all(name, url, ledger, make_requests(name, 3), seconds=10.0)
    assert count_answers(outcomes) == 3
    assert ledger.taken() >= server.bill


# Permanent failures


@EACH_PROVIDER
def test_a_request_that_always_fails_is_given_up_with_its_reason(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.faults = lambda asked: Fault(500, message="kaput") if "no. 1?" in words(asked) else None
    outcomes = ask_all(name, url, ledger, make_requests(name, 3))
    assert count_answers(outcomes) == 2
    (reason,) = read_reasons(outcomes)
    assert outcomes.index(next(o for o in outcomes if not isinstance(o, Answer))) == 1
    assert "500" in reason and "kaput" in reason
    assert server.statuses == {500: TRIES, 200: 2}
    check_bill(ledger, server)


@EACH_PROVIDER
def test_an_invalid_request_is_not_sent_again(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.faults = lambda asked: Fault(400, message="too long") if "1?" in words(asked) else None
    outcomes = ask_all(name, url, ledger, make_requests(name, 3))
    assert count_answers(outcomes) == 2
    assert "too long" in read_reasons(outcomes)[0]
    assert server.statuses == {400: 1, 200: 2}
    check_bill(ledger, server)


@EACH_PROVIDER
@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_access_error_ends_the_run_and_keeps_the_answers(
    name: ProviderName, status: int, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.faults = lambda asked: Fault(status) if "no. 7?" in words(asked) else None
    requests = make_requests(name, 12)
    with expect_error(AuthError, "model-unknown" if status == 404 else "access-refused"):
        ask_all(name, url, ledger, requests)
    assert len(ledger.find(request.key for request in requests)) == server.statuses[200] == 11
    assert server.statuses[status] == 1
    check_bill(ledger, server)


def test_a_ledger_that_fails_ends_the_run(server: ModelServer, url: str, tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.close()
    with expect_error(BackendError, "ledger-failed", path=ledger.path):
        ask_all("openai", url, ledger, make_requests("openai", 3), seconds=10.0)
    assert server.bill == 0


# An unreachable server


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@EACH_PROVIDER
def test_an_unreachable_server_is_waited_for(
    name: ProviderName, port: int, server: ModelServer, ledger: Ledger
) -> None:
    server.latency = 0.02
    requests = make_requests(name, 40)
    stop = threading.Event()

    def run_server() -> None:
        with serve(server, port=port):
            stop.wait()

    async def work() -> list[Outcome]:
        loop = asyncio.get_running_loop()
        async with OnlineClient(name, f"http://127.0.0.1:{port}", ledger, most=4) as client:
            asking = asyncio.create_task(client.ask(requests))
            await asyncio.sleep(0.3)
            assert not asking.done() and not server.arrivals
            for least in (10, 40):
                stop.clear()
                running = loop.run_in_executor(None, run_server)
                while server.statuses[200] < least:
                    await asyncio.sleep(0.005)
                if least == 40:
                    outcomes = await asking
                stop.set()
                await running
                assert (least == 40) is asking.done()
                await asyncio.sleep(0.2)
            return outcomes

    assert count_answers(run(work)) == 40
    billed, unknown = sum_spent(ledger)
    assert server.bill - billed <= unknown <= 4 * (bound(name) + 10**6)  # in flight at the stop


@EACH_PROVIDER
def test_a_server_that_stays_unreachable_ends_the_run(
    name: ProviderName, port: int, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "PATIENCE_SECONDS", 0.3)
    started = time.monotonic()
    with expect_error(BackendError, "server-unreachable"):
        ask_all(name, f"http://127.0.0.1:{port}", ledger, make_requests(name, 3))
    assert time.monotonic() - started >= 0.3
    assert ledger.taken() == 0


@EACH_PROVIDER
def test_a_rate_limit_that_refuses_everything_ends_the_run(
    name: ProviderName,
    server: ModelServer,
    url: str,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A quota of the day would be asked for again and again, and nothing would be said."""
    monkeypatch.setattr(online, "REFUSED_SECONDS", 0.3)
    server.faults = fail_first(10**6, Fault(429, retry_after=0.05))
    with expect_error(BackendError, "rate-limited"):
        ask_all(name, url, ledger, make_requests(name, 3))
    assert ledger.taken() == 0


def test_patience_starts_with_the_first_failed_connection_not_the_last_answer(
    port: int, server: ModelServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "PATIENCE_SECONDS", 2.0)
    requests = make_requests("openai", 2)

    async def work() -> list[Outcome]:
        async with OnlineClient("openai", f"http://127.0.0.1:{port}", ledger) as client:
            with serve(server, port=port):
                first = await client.ask(requests[:1])
            await asyncio.sleep(2.2)  # idle, as while another model is at work
            asking = asyncio.create_task(client.ask(requests[1:]))
            await asyncio.sleep(0.2)
            stop = threading.Event()

            def run_server() -> None:
                with serve(server, port=port):
                    stop.wait()

            running = asyncio.get_running_loop().run_in_executor(None, run_server)
            try:
                return first + await asking
            finally:
                stop.set()
                await running

    assert count_answers(run(work)) == 2


# The budget


@EACH_PROVIDER
def test_the_budget_ends_the_run_and_a_larger_one_resumes_it(
    name: ProviderName, server: ModelServer, url: str, tmp_path: Path
) -> None:
    server.latency = 0.02
    server.author = lambda asked: f"{words(asked)} ".ljust(256, "x")
    requests = make_requests(name, 60)
    budget = 4 * bound(name) + 10**6
    ledger = open_ledger(tmp_path, budget=budget)
    with expect_error(BudgetError, "budget-exhausted", path=ledger.path):
        ask_all(name, url, ledger, requests)
    answered = ledger.find(request.key for request in requests)
    # Four requests fit at once. Each bill is below its reservation, which leaves room for more.
    assert 4 < len(answered) < 60
    assert len(answered) == server.statuses[200]
    assert server.most_in_flight <= 4
    assert budget - bound(name) - 10**6 < server.bill <= budget
    check_bill(ledger, server)
    ledger.close()

    more = open_ledger(tmp_path, budget=100 * bound(name))
    rest = [request for request in requests if request.key not in answered]
    assert count_answers(ask_all(name, url, more, rest)) == len(rest)
    assert max(server.asked.values()) == 1
    check_bill(more, server)
    more.close()


@EACH_PROVIDER
def test_lost_answers_count_against_the_budget(
    name: ProviderName, server: ModelServer, url: str, tmp_path: Path
) -> None:
    server.faults = lambda asked: Fault(kind="drop")
    budget = 4 * (bound(name) + 10**6)
    ledger = open_ledger(tmp_path, budget=budget)
    with expect_error(BudgetError, "budget-exhausted", path=ledger.path):
        ask_all(name, url, ledger, make_requests(name, 3))
    assert 0 < server.bill <= ledger.taken() <= budget
    assert sum_spent(ledger)[0] == 0
    ledger.close()


# The end of a run


def send(requests: list[ModelRequest]) -> Workflow[list[Outcome]]:
    (outcomes,) = yield [RequestGroup("replies", requests)]
    return outcomes


@EACH_PROVIDER
def test_an_error_that_ends_the_run_loses_no_answer_in_flight(
    name: ProviderName,
    server: ModelServer,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor do requests that were never sent keep a reservation."""

    def deny_first(asked: Asked) -> Fault | None:
        denied = "no. 0?" in words(asked)
        server.latency = 0.3 if denied else 1.0
        return Fault(401) if denied else None

    server.faults = deny_first
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    budget = 5 * bound(name) + 10**6  # the denied request and four others fit at once
    config = LLMConfig(
        {MODEL: make_model(name, url)}, tmp_path / "ledger.sqlite", "single", budget / PICO
    )
    denied, *others = make_requests(name, 10)
    jobs = [Job("denied", "habit", send([denied])), Job("others", "habit", send(others))]
    with expect_error(AuthError, "access-refused", status=401):
        list(LLMClient(config).run(jobs))
    ledger = open_ledger(tmp_path)
    found = ledger.find(request.key for request in others)
    assert len(found) == server.statuses[200] == 5  # the denial made room for one more
    check_bill(ledger, server)
    ledger.close()


@EACH_PROVIDER
def test_an_error_ends_a_group_before_the_rest_of_it_is_sent(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    def deny_first(asked: Asked) -> Fault | None:
        denied = "no. 0?" in words(asked)
        server.latency = 0.05 if denied else 0.3
        return Fault(401) if denied else None

    server.faults = deny_first
    requests = make_requests(name, 50)
    with expect_error(AuthError, "access-refused", status=401):
        ask_all(name, url, ledger, requests, most=2)
    assert sum(server.statuses.values()) < 10
    kept = ledger.find(request.key for request in requests)
    assert len(kept) == server.statuses[200] >= 1  # in flight at the denial
    check_bill(ledger, server)


@EACH_PROVIDER
def test_a_canceled_run_abandons_requests_in_flight(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    """Ctrl-C does not wait for answers; their reservations stay, marked unknown."""
    server.latency = 20.0

    async def send_all() -> None:
        async with OnlineClient(name, url, ledger) as client:
            await client.ask(make_requests(name, 3))

    async def work() -> None:
        running = asyncio.create_task(send_all())
        while server.in_flight < 3:
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(work, seconds=10.0)
    billed, unknown = sum_spent(ledger)
    assert billed == 0
    assert unknown == ledger.taken() >= 3 * bound(name)
