"""Batches: each request is answered and paid for once, whatever fails or is killed.

Run: python -m pytest tests/llm/test_batch.py
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

import pytest
from tests.expect import expect_error
from tests.fakes.models import ITEM_ERRORS, KEY, Asked, Fault, ModelServer
from tests.fakes.models import Provider as ProviderName
from tests.llm.calls import (
    EACH_PROVIDER,
    KEY_VARIABLE,
    KILLED_PROVIDER,
    MODEL,
    TAG,
    Forkserver,
    check_bill,
    count_answers,
    fail_first,
    join,
    make_model,
    make_request,
    make_requests,
    open_ledger,
    open_model,
    read_reasons,
    run,
    sum_spent,
)

from bestiary.errors import BackendError
from bestiary.llm import batch, remote_batch
from bestiary.llm.batch import TRIES, BatchDispatcher, BatchQueue
from bestiary.llm.batch_book import BatchBook, BatchEntry, HeldError
from bestiary.llm.client import LLMClient, LLMConfig
from bestiary.llm.ledger import Ledger, Reservation, Settlement
from bestiary.llm.online import BudgetError
from bestiary.llm.price import read_price
from bestiary.llm.provider import AuthError
from bestiary.llm.remote_batch import PollPolicy
from bestiary.llm.request import Answer, ModelRequest, Outcome
from bestiary.llm.workflow import Job, RequestGroup, Workflow

POLL = PollPolicy(poll=0.02, longest_poll=0.1, hidden=0.6, skew=30.0)
COUNT = 12
"""Requests in a run that is killed."""
LEFT = 10**9
"""Picodollars reserved for each request of a batch that is left open."""

pytestmark = pytest.mark.usefixtures("short_pauses")


def run_batches(
    name: ProviderName,
    url: str,
    ledger: Ledger,
    requests: Sequence[ModelRequest],
    *,
    most_requests: int = 1000,
    most_bytes: int = 10**6,
    log: Callable[[str], None] = lambda line: None,
    key: str = KEY,
) -> list[Outcome]:
    """A whole run as a client makes it: finish open batches, then send what is missing."""

    async def work() -> list[Outcome]:
        provider = open_model(name, url, key=key, timeout=2.0)
        price = read_price(make_model(name, url), batch=True)
        queue = BatchQueue(MODEL, provider, price, most_requests, most_bytes)
        with BatchBook(ledger).hold():
            try:
                async with BatchDispatcher(
                    {MODEL: queue}, ledger, poll=POLL, log=log
                ) as dispatcher:
                    await dispatcher.finish_open()
                    found: dict[str, Outcome] = {**ledger.find(one.key for one in requests)}
                    missing = [request for request in requests if request.key not in found]
                    dispatcher.flush()
                    if missing:
                        outcomes = await dispatcher.ask(missing, TAG)
                        found |= {r.key: o for r, o in zip(missing, outcomes, strict=True)}
                    return [found[request.key] for request in requests]
            finally:
                await provider.close()

    return run(work)


def sizes(server: ModelServer) -> list[int]:
    """The sizes of the batches that the server received, in order."""
    return [len(batch.items) for batch in server.batches.values()]


def words(asked: Asked) -> str:
    return asked.turns[-1][1]


def bound(name: ProviderName) -> int:
    return read_price(make_model(name, "http://x"), batch=True).bound(make_requests(name, 1)[0])


# The life of a batch


@EACH_PROVIDER
def test_results_out_of_order_reach_their_requests(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.batch_seconds = 0.1
    logged: list[str] = []
    requests = make_requests(name, 40)
    outcomes = run_batches(name, url, ledger, requests, log=logged.append)
    assert count_answers(outcomes) == 40
    written = {words(asked): server.author(asked) for asked in server.heard}
    texts = [outcome.text for outcome in outcomes if isinstance(outcome, Answer)]
    assert texts == [written[request.messages[0].content] for request in requests]
    (batch,) = server.batches.values()
    results = [result["custom_id"] for result in batch.results]
    assert results != [custom_id for custom_id, _ in batch.items]
    assert {outcome.batch for outcome in outcomes if isinstance(outcome, Answer)} == {batch.id}
    assert logged[0] == f"batch {batch.id}: 40 requests to {MODEL}"
    assert f"batch {batch.id}: 0/40" in logged
    assert {charge.batch for charge in server.charges} == {True}
    assert BatchBook(ledger).list_open() == []
    check_bill(ledger, server)


@EACH_PROVIDER
@pytest.mark.parametrize("fate", ["errored", "expired", "canceled"])
def test_only_items_without_an_answer_are_sent_again(
    name: ProviderName, fate: str, server: ModelServer, url: str, ledger: Ledger
) -> None:
    seen: Counter[str] = Counter()

    def decide(custom_id: str) -> str:
        name, number = custom_id.split("-")
        seen[name] += 1
        return fate if len(seen) == 1 and int(number) < 3 else "succeeded"

    server.batch_fate = decide
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 10))) == 10
    assert sizes(server) == [10, 3]
    assert max(server.asked.values()) == 1
    check_bill(ledger, server)


@EACH_PROVIDER
def test_an_item_that_always_fails_is_given_up_with_its_reason(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    failed: set[str] = set()

    def decide(custom_id: str) -> str:
        (batch,) = [b for b in server.batches.values() if custom_id in dict(b.items)]
        text = str(dict(batch.items)[custom_id]["messages"])
        if "no. 1?" not in text:
            return "succeeded"
        failed.add(custom_id)
        return "errored"

    server.batch_fate = decide
    outcomes = run_batches(name, url, ledger, make_requests(name, 4))
    assert count_answers(outcomes) == 3
    (reason,) = read_reasons(outcomes)
    assert "loopback" in reason  # the provider's words
    assert sizes(server) == [4] + [1] * (TRIES - 1)
    assert len(failed) == TRIES
    check_bill(ledger, server)


@EACH_PROVIDER
def test_a_new_batch_that_is_not_found_yet_is_waited_for(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.hidden_seconds = 0.3
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 5))) == 5
    assert sizes(server) == [5]
    check_bill(ledger, server)


@EACH_PROVIDER
@pytest.mark.parametrize("step", ["create", "read", "results"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(529),
        Fault(429, retry_after=0.02),
        Fault(kind="drop"),
        Fault(kind="truncate"),
        Fault(kind="hang"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_no_failed_call_leads_to_a_second_batch(
    name: ProviderName, step: str, fault: Fault, server: ModelServer, url: str, ledger: Ledger
) -> None:
    fail = fail_first(1 if fault.kind == "hang" else 2, fault)
    server.batch_faults = lambda at: fail(at) if at == step else None
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 5))) == 5
    assert sizes(server) == [5]
    assert server.steps[step] + server.steps["list"] > 1  # repeated, or found in the list
    check_bill(ledger, server)


@EACH_PROVIDER
def test_incomplete_results_are_read_again(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    fail = fail_first(1, Fault(kind="other", message="\n"))
    server.batch_faults = lambda at: fail(at) if at == "results" else None
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 5))) == 5
    assert sizes(server) == [5]
    check_bill(ledger, server)


@EACH_PROVIDER
def test_an_unreadable_result_is_sent_again_and_its_reservation_stays(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    fates = ["garbled"]
    server.batch_fate = lambda custom_id: fates.pop() if fates else "succeeded"
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 4))) == 4
    assert sizes(server) == [4, 1]
    billed, unknown = sum_spent(ledger)
    assert 0 < server.bill - billed <= unknown


# Waves


def ask_rounds(name: ProviderName, word: str, rounds: int) -> Workflow[int]:
    """One request after another; returns how many were answered."""
    answered = 0
    for request in make_requests(name, rounds, word):
        ((outcome,),) = yield [RequestGroup("replies", [request])]
        answered += isinstance(outcome, Answer)
    return answered


def run_rounds(
    name: ProviderName, url: str, folder: Path, rounds: dict[str, int], patch: pytest.MonkeyPatch
) -> dict[str, int]:
    """Run a workflow of so many rounds for each word; returns its answers by word."""
    patch.setenv(KEY_VARIABLE, KEY)
    config = LLMConfig({MODEL: make_model(name, url)}, folder / "ledger.sqlite", "batch", poll=POLL)
    jobs = [Job(word, "habit", ask_rounds(name, word, count)) for word, count in rounds.items()]
    found = LLMClient(config).run(jobs)
    return {result.name: result.value for result in found if isinstance(result.value, int)}


@EACH_PROVIDER
def test_an_expired_item_is_sent_again_with_the_next_requests_of_others(
    name: ProviderName,
    server: ModelServer,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def expire_once(custom_id: str) -> str:
        (batch,) = [b for b in server.batches.values() if custom_id in dict(b.items)]
        is_first = "Why" in str(dict(batch.items)[custom_id]) and len(server.batches) == 1
        return "expired" if is_first else "succeeded"

    server.batch_fate = expire_once
    rounds = {"Why": 1, "Who": 2, "Where": 2, "When": 2}
    assert run_rounds(name, url, tmp_path, rounds, monkeypatch) == rounds
    assert sizes(server) == [4, 4]


@EACH_PROVIDER
def test_a_resumed_run_sends_its_first_batch_with_workflows_that_were_ahead(
    name: ProviderName,
    server: ModelServer,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_rounds(name, url, tmp_path, {"Who": 5}, monkeypatch) == {"Who": 5}
    server.batches.clear()
    rounds = {"Why": 1, "Who": 6, "When": 1}
    assert run_rounds(name, url, tmp_path, rounds, monkeypatch) == rounds
    assert sizes(server) == [3]


# Sizes


@EACH_PROVIDER
def test_batches_have_at_most_so_many_requests(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    outcomes = run_batches(name, url, ledger, make_requests(name, 10), most_requests=4)
    assert count_answers(outcomes) == 10
    assert sizes(server) == [4, 4, 2]
    check_bill(ledger, server)


@EACH_PROVIDER
@pytest.mark.parametrize("letter", ["x", "ß", "パ", "🍞", '"', "\n"])
def test_batches_have_at_most_so_many_bytes(
    name: ProviderName, letter: str, server: ModelServer, url: str, ledger: Ledger
) -> None:
    requests = [make_request(name, f"{n}{letter * 3000}") for n in range(10)]
    outcomes = run_batches(name, url, ledger, requests, most_bytes=30_000)
    assert count_answers(outcomes) == 10
    assert 1 < len(server.batches) < 10
    assert max(server.submitted) <= 30_000
    check_bill(ledger, server)


# Refusals and losses


def test_a_batch_that_openai_refuses_as_a_whole_costs_nothing(
    server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.batch_refusal = "line 1 is not a request"
    logged: list[str] = []
    outcomes = run_batches("openai", url, ledger, make_requests("openai", 3), log=logged.append)
    assert read_reasons(outcomes) == ["batch: line 1 is not a request"] * 3
    assert any("3 of 3 requests failed: line 1 is not a request" in line for line in logged)
    assert len(server.batches) == 1  # what cannot succeed is not sent again
    assert server.bill == ledger.taken() == 0
    server.batch_refusal = ""
    assert count_answers(run_batches("openai", url, ledger, make_requests("openai", 3))) == 3
    check_bill(ledger, server)


def test_a_refused_batch_is_sent_again_without_the_line_to_blame(
    server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.batch_refusal, server.refused_line = "model is missing", 2

    def accept(line: str) -> None:
        server.batch_refusal = "" if "failed" in line else server.batch_refusal

    outcomes = run_batches("openai", url, ledger, make_requests("openai", 4), log=accept)
    assert count_answers(outcomes) == 3
    assert read_reasons(outcomes) == ["batch: model is missing"]
    assert sizes(server) == [4, 3]
    check_bill(ledger, server)


@EACH_PROVIDER
@pytest.mark.parametrize("limit", [5, 7, 40])
def test_batches_are_made_to_fit_the_providers_queue(
    name: ProviderName, limit: int, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.queue_limit, server.batch_seconds = limit, 0.1
    outcomes = run_batches(name, url, ledger, make_requests(name, 30), most_requests=10)
    assert count_answers(outcomes) == 30
    assert max(server.asked.values()) == 1
    check_bill(ledger, server)


@EACH_PROVIDER
def test_a_queue_that_others_fill_is_waited_for(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.queue_limit = 0
    logged: list[str] = []

    def log(line: str) -> None:
        logged.append(line)
        server.queue_limit = 100 if len(logged) > 12 else 0

    assert count_answers(run_batches(name, url, ledger, make_requests(name, 3), log=log)) == 3
    assert any("queue" in line.lower() for line in logged)  # the provider's words
    check_bill(ledger, server)


@EACH_PROVIDER
def test_a_queue_that_stays_full_ends_the_run_and_costs_nothing(
    name: ProviderName,
    server: ModelServer,
    url: str,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch, "QUEUE_SECONDS", 0.2)
    server.queue_limit = 0
    with expect_error(BackendError, "batch-queue-full", model=MODEL):
        run_batches(name, url, ledger, make_requests(name, 3))
    assert server.bill == ledger.taken() == 0
    assert BatchBook(ledger).list_open() == []


@EACH_PROVIDER
def test_a_batch_that_is_too_large_is_split(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    step = "create" if name == "anthropic" else "upload"
    fail = fail_first(2, Fault(413, message="File is too large."))
    server.batch_faults = lambda at: fail(at) if at == step else None
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 8))) == 8
    assert sizes(server)[0] == 2
    check_bill(ledger, server)


def choose_fates(server: ModelServer, fates: dict[str, str]) -> None:
    """The fate of each item whose text has a word."""

    def decide(custom_id: str) -> str:
        (items,) = [dict(b.items) for b in server.batches.values() if custom_id in dict(b.items)]
        text = str(items[custom_id]["messages"])
        return next((fate for word, fate in fates.items() if word in text), "succeeded")

    server.batch_fate = decide


@EACH_PROVIDER
def test_an_item_that_cannot_succeed_is_not_sent_again_and_its_words_are_kept(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    choose_fates(server, {"no. 1?": "invalid", "no. 2?": "busy"})
    logged: list[str] = []
    outcomes = run_batches(name, url, ledger, make_requests(name, 4), log=logged.append)
    assert [reason.split(": ", 1) for reason in read_reasons(outcomes)] == [
        ["batch", ITEM_ERRORS["invalid"][1]],
        ["batch", ITEM_ERRORS["busy"][1]],
    ]
    assert sizes(server) == [4] + [1] * (TRIES - 1)  # only the busy one is sent again
    assert any(ITEM_ERRORS["invalid"][1] in line for line in logged)
    check_bill(ledger, server)


@EACH_PROVIDER
@pytest.mark.parametrize("fate", ["broke", "forbidden"])
def test_an_account_without_access_is_reported_at_once_and_answers_are_kept(
    name: ProviderName, fate: str, server: ModelServer, url: str, ledger: Ledger
) -> None:
    choose_fates(server, {"no. 1?": fate})
    requests = make_requests(name, 4)
    with expect_error(AuthError, "access-refused") as caught:
        run_batches(name, url, ledger, requests)
    assert ITEM_ERRORS[fate][1] in str(caught.error)
    assert sizes(server) == [4]
    assert len(ledger.find(request.key for request in requests)) == 3
    assert BatchBook(ledger).list_open() == []
    check_bill(ledger, server)


FOREIGN = {
    "custom_id": "of-another",
    "result": {"type": "expired"},
    "response": {"status_code": 200, "body": {}},
    "error": None,
}
LINES: dict[str, Callable[[list[str]], list[str]]] = {
    "doubled": lambda lines: [line for line in lines for _ in range(2)],
    "foreign": lambda lines: [json.dumps(FOREIGN) + "\n", *lines],
    "without an id": lambda lines: [json.dumps(FOREIGN | {"custom_id": None}) + "\n", *lines],
    "no JSON": lambda lines: ["<html>\n", *lines],
    "other JSON": lambda lines: ["null\n", "[]\n", "5\n", "{}\n", *lines],
    "blank lines": lambda lines: ["\n", *lines, "\n", "\r\n"],
    "no last line end": lambda lines: [*lines[:-1], lines[-1].rstrip()],
    "carriage returns": lambda lines: [line.replace("\n", "\r\n") for line in lines],
    "failed first": lambda lines: [
        json.dumps(
            FOREIGN | {"custom_id": json.loads(lines[0])["custom_id"], "error": {"code": "x"}}
        )
        + "\n",
        *lines,
    ],
}


@EACH_PROVIDER
@pytest.mark.parametrize("case", LINES)
def test_results_may_hold_other_lines(
    name: ProviderName, case: str, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.edit_results = LINES[case]
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 6))) == 6
    assert sizes(server) == [6]
    check_bill(ledger, server)


@EACH_PROVIDER
def test_an_item_without_a_result_is_sent_again_and_its_reservation_stays(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.edit_results = lambda lines: lines[1:] if len(server.batches) == 1 else lines
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 6))) == 6
    assert sizes(server) == [6, 1]
    billed, unknown = sum_spent(ledger)
    assert 0 < server.bill - billed <= unknown


def test_the_id_of_a_file_without_lines_may_be_empty(
    server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.no_file = ""
    assert count_answers(run_batches("openai", url, ledger, make_requests("openai", 3))) == 3


@EACH_PROVIDER
def test_a_provider_that_accepts_no_batches_is_reported_with_a_remedy(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.batch_faults = lambda step: Fault(400, message="no batches here")
    with expect_error(BackendError, "batch-refused") as caught:
        run_batches(name, url, ledger, make_requests(name, 3))
    assert "no batches here" in str(caught.error.fields["reason"])
    assert ledger.taken() == 0
    assert BatchBook(ledger).list_open() == []


@EACH_PROVIDER
def test_a_batch_that_its_provider_lost_is_sent_again_and_its_cost_stays_unknown(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    server.batch_seconds = 600.0

    def forget(line: str) -> None:
        if server.batch_seconds:
            server.batches.clear()
            server.batch_seconds = 0.0

    assert count_answers(run_batches(name, url, ledger, make_requests(name, 4), log=forget)) == 4
    billed, unknown = sum_spent(ledger)
    assert billed == server.bill
    assert 4 * bound(name) <= unknown <= 4 * bound(name) + 10**6
    assert BatchBook(ledger).list_open() == []


@EACH_PROVIDER
def test_deleted_results_do_not_stop_a_run(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    """A provider still lists a batch after a month, when its results are deleted."""

    def vanish(step: str) -> Fault | None:
        first = next(iter(server.batches.values()), None)
        if first is not None:
            first.archived = first.ended is not None
        gone = step == "results" and len(server.batches) == 1
        return Fault(404) if gone else None

    server.batch_faults = vanish
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 4))) == 4
    assert sizes(server) == [4, 4]
    billed, unknown = sum_spent(ledger)
    assert server.bill - billed <= unknown
    assert BatchBook(ledger).list_open() == []


def leave_open(
    ledger: Ledger, requests: Sequence[ModelRequest], *, remote_id: str | None = None
) -> None:
    """Leave a batch open as a killed run does, before or after its provider's id is recorded."""
    entries = [
        BatchEntry(f"killed-{number}", request.key, Reservation(TAG, MODEL, LEFT, "batch"))
        for number, request in enumerate(requests)
    ]
    book = BatchBook(ledger)
    assert book.record_intent("killed", MODEL, entries) is not None
    if remote_id is not None:
        book.record_remote_id("killed", remote_id)


@EACH_PROVIDER
@pytest.mark.parametrize("status", [400, 404])
def test_a_batch_left_open_does_not_stop_runs_at_a_server_without_batches(
    name: ProviderName,
    status: int,
    server: ModelServer,
    url: str,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = make_requests(name, 3)
    leave_open(ledger, requests)
    server.batch_faults = lambda step: Fault(status)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    config = LLMConfig({MODEL: make_model(name, url)}, ledger.path, "single", poll=POLL)
    assert count_answers(LLMClient(config).ask(requests, tag=TAG)) == 3
    assert BatchBook(ledger).list_open() == []
    check_bill(ledger, server)


@EACH_PROVIDER
@pytest.mark.parametrize("status", [400, 404])
def test_a_batch_whose_id_is_refused_is_sent_again_and_its_cost_stays_unknown(
    name: ProviderName, status: int, server: ModelServer, url: str, ledger: Ledger
) -> None:
    requests = make_requests(name, 3)
    leave_open(ledger, requests, remote_id="of-another-server")
    server.batch_faults = lambda at: Fault(status) if at == "read" and not server.batches else None
    assert count_answers(run_batches(name, url, ledger, requests)) == 3
    assert sizes(server) == [3]
    assert sum_spent(ledger) == (server.bill, 3 * LEFT)
    assert BatchBook(ledger).list_open() == []


@EACH_PROVIDER
def test_a_batch_left_open_is_looked_for_beyond_one_whose_results_were_deleted(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger, tmp_path: Path
) -> None:
    others = make_requests(name, 3, word="Who")
    other = open_ledger(tmp_path / "elsewhere")
    assert count_answers(run_batches(name, url, other, others)) == 3
    other.close()
    before = server.bill
    next(iter(server.batches.values())).archived = True
    requests = make_requests(name, 3)
    leave_open(ledger, requests)
    assert count_answers(run_batches(name, url, ledger, requests)) == 3
    assert sizes(server) == [3, 3]
    assert sum_spent(ledger) == (server.bill - before, 0)


@EACH_PROVIDER
def test_a_provider_that_stays_unreachable_ends_the_run_and_the_next_run_resumes(
    name: ProviderName,
    server: ModelServer,
    url: str,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = make_requests(name, 5)
    server.batch_faults = lambda step: Fault(500) if step == "read" else None
    with monkeypatch.context() as patch:
        patch.setattr(remote_batch, "PATIENCE_SECONDS", 0.3)
        with expect_error(BackendError, "batches-unreachable"):
            run_batches(name, url, ledger, requests)
    assert len(BatchBook(ledger).list_open()) == 1
    server.batch_faults = lambda step: None
    logged: list[str] = []
    assert count_answers(run_batches(name, url, ledger, requests, log=logged.append)) == 5
    assert logged[0] == "resuming a batch of 5 from an earlier run"
    assert sizes(server) == [5]
    check_bill(ledger, server)


@EACH_PROVIDER
def test_a_wrong_key_is_refused_and_the_right_one_resumes(
    name: ProviderName, server: ModelServer, url: str, ledger: Ledger
) -> None:
    requests = make_requests(name, 3)
    with expect_error(AuthError, "access-refused", status=401):
        run_batches(name, url, ledger, requests, key="sk-wrong")
    assert count_answers(run_batches(name, url, ledger, requests)) == 3
    assert sizes(server) == [3]
    check_bill(ledger, server)


# The budget


@EACH_PROVIDER
def test_requests_within_the_budget_are_sent_first_and_then_the_rest(
    name: ProviderName, server: ModelServer, url: str, tmp_path: Path
) -> None:
    budget = 4 * bound(name) + bound(name) // 2
    ledger = open_ledger(tmp_path, budget=budget)
    assert count_answers(run_batches(name, url, ledger, make_requests(name, 9))) == 9
    assert sizes(server)[0] == 4
    assert sum(sizes(server)) == 9
    check_bill(ledger, server)
    ledger.close()


@EACH_PROVIDER
def test_a_budget_without_room_ends_the_run_and_keeps_the_answers(
    name: ProviderName, server: ModelServer, url: str, tmp_path: Path
) -> None:
    server.author = lambda asked: f"{words(asked)} ".ljust(256, "x")
    requests = make_requests(name, 60)
    ledger = open_ledger(tmp_path, budget=10 * bound(name))
    with expect_error(BudgetError, "budget-exhausted", path=ledger.path):
        run_batches(name, url, ledger, requests)
    answered = ledger.find(request.key for request in requests)
    assert 4 < len(answered) == sum(sizes(server)) < 60
    left = [60 - sum(sizes(server)[:number]) for number in range(len(sizes(server)))]
    assert all(size >= 0.1 * waiting for size, waiting in zip(sizes(server), left, strict=True))
    assert ledger.taken() <= 10 * bound(name)
    check_bill(ledger, server)
    ledger.close()
    more = open_ledger(tmp_path, budget=1000 * bound(name))
    assert count_answers(run_batches(name, url, more, requests)) == 60
    assert max(server.asked.values()) == 1
    check_bill(more, server)
    more.close()


# Processes


class MortalLedger(Ledger):
    """Kills its process at one of its commits of results, before or after it."""

    last = 0
    side = "after"

    def settle_and_reserve(
        self, settlements: Sequence[Settlement], reservations: Sequence[Reservation] = ()
    ) -> list[int | None]:
        if reservations:
            return super().settle_and_reserve(settlements, reservations)
        self.last -= 1
        if self.last == 0 and self.side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().settle_and_reserve(settlements)
        if self.last == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return []


def run_process(name: ProviderName, url: str, folder: Path, last: int, side: str) -> None:
    """A whole run with small commits, for a process of its own."""
    remote_batch.CHUNK = 4
    ledger = MortalLedger(folder / "ledger.sqlite")
    ledger.last, ledger.side = last, side
    assert count_answers(run_batches(name, url, ledger, make_requests(name, COUNT))) == COUNT


@pytest.fixture(scope="module")
def forkserver() -> Forkserver:
    return Forkserver("tests.llm.test_batch")


@dataclass
class Killer:
    """Starts runs in processes of their own and kills them."""

    forkserver: Forkserver
    name: ProviderName
    server: ModelServer
    url: str
    folder: Path

    def start(self, *, last: int = 0, side: str = "after") -> Process:
        return self.forkserver.start(run_process, self.name, self.url, self.folder, last, side)

    def kill_at(self, step: str, *, count: int = 1, done: bool = True) -> None:
        """Start a run and kill it during a step's `count`-th call, done by the server or not."""
        running: list[Process] = []
        last = self.server.steps[step] + count

        def kill(at: str) -> Fault | None:
            if not running or at != step or self.server.steps[step] < last:
                return None
            running.pop().kill()
            return None if done else Fault(500)

        self.server.batch_faults = kill
        process = self.start()
        running.append(process)
        join(process, code=-signal.SIGKILL)
        while self.server.finished[step] < last:
            time.sleep(0.005)
        self.server.batch_faults = lambda at: None


def check_rerun(name: ProviderName, server: ModelServer, url: str, folder: Path) -> list[str]:
    """A rerun in this process gets each answer once; returns the lines it logs."""
    logged: list[str] = []
    ledger = open_ledger(folder)
    outcomes = run_batches(name, url, ledger, make_requests(name, COUNT), log=logged.append)
    assert count_answers(outcomes) == COUNT
    assert sizes(server) == [COUNT], "a batch was submitted twice"
    assert list(server.asked.values()) == [1] * COUNT
    assert BatchBook(ledger).list_open() == []
    check_bill(ledger, server)
    ledger.close()
    return logged


@pytest.fixture
def killer(
    forkserver: Forkserver, name: ProviderName, server: ModelServer, url: str, tmp_path: Path
) -> Killer:
    return Killer(forkserver, name, server, url, tmp_path)


@KILLED_PROVIDER
@pytest.mark.parametrize("moment", ["submitting", "submitted", "waiting", "reading"])
def test_a_run_killed_at_any_moment_of_a_batch_resumes(
    name: ProviderName, moment: str, killer: Killer
) -> None:
    """After the intent, before the id is recorded, while waiting, and before reading a result."""
    server = killer.server
    server.hidden_seconds = 0.4
    if moment == "waiting":
        server.batch_seconds = 600.0
        killer.kill_at("read", count=3)
        server.batch_seconds = 0.0
    elif moment == "reading":
        killer.kill_at("results")
    else:
        killer.kill_at("create", done=moment == "submitted")
    assert len(server.batches) == (0 if moment == "submitting" else 1)
    ledger = open_ledger(killer.folder)
    (left,) = BatchBook(ledger).list_open()
    assert len(left.items) == COUNT
    assert (left.remote_id is None) is (moment in ("submitting", "submitted"))
    assert ledger.taken() >= COUNT * bound(name)  # a kill releases no reservation
    ledger.close()
    logged = check_rerun(name, server, killer.url, killer.folder)
    assert logged[0] == f"resuming a batch of {COUNT} from an earlier run"


@KILLED_PROVIDER
@pytest.mark.parametrize(("last", "side"), [(1, "before"), (2, "after"), (4, "after")])
def test_a_run_killed_while_results_are_committed_resumes(
    name: ProviderName, last: int, side: str, killer: Killer
) -> None:
    join(killer.start(last=last, side=side), code=-signal.SIGKILL)
    ledger = open_ledger(killer.folder)
    kept = ledger.find(request.key for request in make_requests(name, COUNT))
    assert len(kept) == min(COUNT, 4 * (last if side == "after" else last - 1))
    assert len(BatchBook(ledger).list_open()) == 1
    ledger.close()
    check_rerun(name, killer.server, killer.url, killer.folder)


@KILLED_PROVIDER
def test_a_run_killed_again_and_again_resumes(name: ProviderName, killer: Killer) -> None:
    killer.kill_at("create")
    killer.server.batch_seconds = 600.0
    killer.kill_at("list")
    killer.kill_at("read", count=2)
    killer.server.batch_seconds = 0.0
    join(killer.start(last=2), code=-signal.SIGKILL)
    check_rerun(name, killer.server, killer.url, killer.folder)


@EACH_PROVIDER
def test_another_ledgers_batch_is_not_mistaken_for_ours(name: ProviderName, killer: Killer) -> None:
    """It has the same number of items and was created at the same time."""
    killer.kill_at("create", done=False)
    other = open_ledger(killer.folder / "elsewhere")
    others = make_requests(name, COUNT, word="Who")
    assert count_answers(run_batches(name, killer.url, other, others)) == COUNT
    other.close()
    before = killer.server.bill
    ledger = open_ledger(killer.folder)
    assert count_answers(run_batches(name, killer.url, ledger, make_requests(name, COUNT))) == COUNT
    assert sizes(killer.server) == [COUNT, COUNT]
    assert sum_spent(ledger) == (killer.server.bill - before, 0)
    ledger.close()


@EACH_PROVIDER
def test_a_second_process_cannot_handle_the_same_batches(
    name: ProviderName, killer: Killer
) -> None:
    server = killer.server
    server.batch_seconds = 600.0
    process = killer.start()
    while not server.steps["read"]:
        assert process.is_alive()
    ledger = open_ledger(killer.folder)
    with expect_error(HeldError, "batches-held", path=ledger.path):
        run_batches(name, killer.url, ledger, make_requests(name, COUNT))
    server.batch_seconds = 0.0
    join(process, code=0)
    assert sizes(server) == [COUNT]
    check_bill(ledger, server)
    ledger.close()
