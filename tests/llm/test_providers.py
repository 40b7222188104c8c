"""Providers: the real SDKs against a loopback server, and every way in which a call can fail.

Run: python -m pytest tests/llm/test_providers.py
"""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anthropic.types
import httpx2
import openai.types
import openai.types.chat
import pytest
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from pydantic import BaseModel
from tests.expect import expect_error
from tests.fakes.models import KEY, REFUSAL, Asked, Fault, ModelServer, count_tokens
from tests.fakes.models import Provider as ProviderName
from tests.llm.calls import (
    EACH_PROVIDER,
    KEY_VARIABLE,
    MODEL,
    make_model,
    make_request,
    open_model,
    run,
)

from bestiary.errors import BackendError
from bestiary.llm.client import LLMClient, LLMConfig, open_provider
from bestiary.llm.ledger import UsageTag
from bestiary.llm.provider import (
    AuthError,
    BatchItem,
    BatchResult,
    BatchState,
    ConnectionFailed,
    InvalidRequest,
    ItemFailed,
    NotFound,
    ProviderFault,
    RateLimited,
    ResponseLost,
    ServerError,
    Unreadable,
)
from bestiary.llm.request import Answer, ModelRequest, Usage
from bestiary.llm.sdk import read_retry_after
from bestiary.records import Message

OTHER_KEY = "sk-quite-another-key-1234567890"
SCHEMA = {
    "title": "Reply",
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
LONG = "Think of bread. " * 400
"""A system prompt long enough for the server's cache."""


def ask(name: ProviderName, url: str, request: ModelRequest | None = None, **more: Any) -> Answer:
    async def work() -> Answer:
        provider = open_model(name, url, **more)
        try:
            return await provider.ask(request or make_request(name))
        finally:
            await provider.close()

    return run(work)


def run_batch(
    name: ProviderName, url: str, items: list[BatchItem], **more: Any
) -> tuple[list[BatchState], list[BatchResult]]:
    """A batch's states when submitted, listed and retrieved, and its results."""

    async def work() -> tuple[list[BatchState], list[BatchResult]]:
        provider = open_model(name, url, **more)
        try:
            submitted = await provider.submit(items, name="ours")
            listed = [state async for state in provider.list_batches()]
            retrieved = await provider.retrieve_batch(submitted.id)
            results = [result async for result in provider.read_results(submitted.id)]
            return [submitted, *listed, retrieved], results
        finally:
            await provider.close()

    return run(work)


# The loopback server's bodies are valid for the SDKs


def check_strictly(kind: type[BaseModel], body: str) -> None:
    """Check that a body is of the SDK's type, field by field, without unknown fields."""
    unknown: list[str] = []

    def visit(part: Any) -> None:
        if isinstance(part, BaseModel):
            unknown.extend(part.model_extra or {})
            for value in vars(part).values():
                visit(value)
        elif isinstance(part, list):
            for value in part:
                visit(value)

    visit(kind.model_validate_json(body, strict=True))
    assert unknown == []


def call(url: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
    headers = {"x-api-key": KEY}
    if body is None and not more:
        return httpx2.get(url + path, headers=headers)
    return httpx2.post(url + path, json=body, headers=headers, **more)


WORDS = [{"role": "user", "content": "How?"}]
PLAIN = {"model": MODEL, "max_tokens": 64, "messages": WORDS}
FATES = ("succeeded", "errored", "expired", "canceled")


@pytest.mark.parametrize("stop", ["", "cut", "refusal"])
def test_single_answers_have_the_sdks_types(server: ModelServer, url: str, stop: str) -> None:
    server.refuses = lambda asked: stop == "refusal"
    body = PLAIN | ({"max_tokens": 1} if stop == "cut" else {})
    message = call(url, "/v1/messages", body)
    check_strictly(anthropic.types.Message, message.text)
    completion = call(url, "/openai/chat/completions", body)
    check_strictly(openai.types.chat.ChatCompletion, completion.text)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 529])
def test_errors_have_the_sdks_types(server: ModelServer, url: str, status: int) -> None:
    server.faults = lambda asked: Fault(status, retry_after=2.5)
    message = call(url, "/v1/messages", PLAIN)
    check_strictly(anthropic.types.ErrorResponse, message.text)
    completion = call(url, "/openai/chat/completions", PLAIN)
    check_strictly(openai.types.ErrorObject, json.dumps(completion.json()["error"]))
    assert [message.status_code, completion.status_code] == [status, status]
    assert message.headers["retry-after"] == completion.headers["retry-after"] == "2.5"


def test_anthropic_batches_have_the_sdks_types_in_every_state(
    server: ModelServer, url: str
) -> None:
    server.batch_fate = lambda custom_id: custom_id
    server.batch_seconds = 600.0
    body = {"requests": [{"custom_id": fate, "params": PLAIN} for fate in FATES]}
    made = call(url, "/v1/messages/batches", body)
    batch = server.batches[made.json()["id"]]
    path = f"/v1/messages/batches/{batch.id}"
    states = [made, call(url, path), call(url, f"{path}/cancel", {})]
    batch.cancelled, server.batch_seconds = False, 0.0
    states += [call(url, path)]
    results = call(url, f"{path}/results").text.splitlines()
    for line in results:
        check_strictly(MessageBatchIndividualResponse, line)
    batch.archived = True
    states += [call(url, path)]
    for state in states:
        check_strictly(MessageBatch, state.text)
    assert [state.json()["processing_status"] for state in states] == [
        "in_progress",
        "in_progress",
        "canceling",
        "ended",
        "ended",
    ]
    assert sorted(json.loads(line)["result"]["type"] for line in results) == sorted(FATES)
    listed = call(url, "/v1/messages/batches").json()
    assert [row["id"] for row in listed["data"]] == [batch.id]
    assert call(url, f"{path}/results").status_code == 404


def upload(url: str, custom_ids: tuple[str, ...]) -> httpx2.Response:
    lines = (
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": PLAIN}
        for name in custom_ids
    )
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return call(
        url, "/openai/files", data={"purpose": "batch"}, files={"file": ("ours.jsonl", data)}
    )


def test_openai_batches_have_the_sdks_types_in_every_state(server: ModelServer, url: str) -> None:
    server.batch_seconds = 600.0
    file = upload(url, FATES)
    check_strictly(openai.types.FileObject, file.text)
    body = {
        "input_file_id": file.json()["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"bestiary": "ours"},
    }
    states = [call(url, "/openai/batches", body) for _ in range(3)]
    first, second, third = (state.json()["id"] for state in states)
    states += [call(url, f"/openai/batches/{first}/cancel", {})]
    states += [call(url, f"/openai/batches/{first}")]
    server.batch_fate = lambda custom_id: custom_id
    server.batch_seconds = 0.0
    states += [call(url, f"/openai/batches/{second}")]
    server.batch_refusal = "line 1 is not a request"
    states += [call(url, f"/openai/batches/{third}")]
    for state in states:
        check_strictly(openai.types.Batch, state.text)
    assert [state.json()["status"] for state in states] == [
        *["in_progress"] * 3,
        "cancelling",
        "cancelled",
        "expired",
        "failed",
    ]
    ended = states[-2].json()
    good, bad = (
        call(url, f"/openai/files/{ended[part]}/content").text.splitlines()
        for part in ("output_file_id", "error_file_id")
    )
    assert [json.loads(line)["custom_id"] for line in good] == ["succeeded"]
    completion = json.loads(good[0])["response"]["body"]
    check_strictly(openai.types.chat.ChatCompletion, json.dumps(completion))
    assert {json.loads(line)["custom_id"] for line in bad} == set(FATES) - {"succeeded"}
    listed = call(url, "/openai/batches").json()["data"]
    assert [row["id"] for row in listed] == [third, second, first]


# Answers


@EACH_PROVIDER
def test_an_answer_has_its_text_and_its_tokens(
    name: ProviderName, server: ModelServer, url: str
) -> None:
    server.author = lambda asked: "Slowly, as bread does."
    answer = ask(name, url)
    assert answer.text == "Slowly, as bread does."
    assert answer.stop == "end"
    assert answer.usage == Usage(input=4, output=6)  # the server counts four characters per token
    assert server.keys == {KEY}


@EACH_PROVIDER
def test_an_answer_states_if_it_was_cut_or_refused(
    name: ProviderName, server: ModelServer, url: str
) -> None:
    server.author = lambda asked: "on and on " * 20
    cut = ask(name, url, make_request(name, max_tokens=3))
    assert (cut.stop, cut.text, cut.usage.output) == ("length", "on and on on", 3)
    server.refuses = lambda asked: True
    refused = ask(name, url)
    assert refused.stop == "refusal"
    assert refused.usage.output == count_tokens(REFUSAL)


@EACH_PROVIDER
@pytest.mark.parametrize("paid", [True, False])
def test_cache_writes_and_reads_are_counted_separately(
    name: ProviderName, paid: bool, server: ModelServer, url: str
) -> None:
    server.bills_writes = (name,) if paid else ()
    request = make_request(name, system=LONG, shared=True)
    asked = [ask(name, url, request).usage for _ in range(2)]
    prefix, rest = len(LONG) // 4, 1
    written = (prefix, rest) if paid else (0, prefix + rest)
    assert [(u.cache_write, u.input) for u in asked] == [written, (0, rest)]
    assert [u.cache_read for u in asked] == [0, prefix]


def test_only_a_shared_system_prompt_is_cached_by_anthropic(server: ModelServer, url: str) -> None:
    unshared = make_request("anthropic", system=LONG)
    assert {ask("anthropic", url, unshared).usage.cache_write for _ in range(2)} == {0}
    assert [asked.cached for asked in server.heard] == [(), ()]


@EACH_PROVIDER
def test_everything_that_determines_an_answer_reaches_the_server(
    name: ProviderName, server: ModelServer, url: str
) -> None:
    turns = (
        Message(role="user", content="Is it «warm»?"),
        Message(role="assistant", content="Yes 🍞"),
        Message(role="user", content="Still?"),
    )
    full = make_request(
        name, messages=turns, temperature=0.7, reply_schema=SCHEMA, max_tokens=17, system="Sing."
    )
    plain = make_request(name)
    for request in (full, plain):
        ask(name, url, request)
    run_batch(name, url, [BatchItem("full", full), BatchItem("plain", plain)])
    assert len(server.heard) == 4
    for first, second in (server.heard[:2], server.heard[2:]):
        assert first.temperature == 0.7
        assert first.schema == SCHEMA
        assert first.turns == tuple((turn.role, turn.content) for turn in turns)
        assert (first.system, first.max_tokens, first.model) == ("Sing.", 17, MODEL)
        assert (second.temperature, second.schema) == (None, None)


# Batches


@EACH_PROVIDER
def test_a_batch_is_followed_from_its_creation_to_its_results(
    name: ProviderName, server: ModelServer, url: str
) -> None:
    items = [
        BatchItem(f"{fate}-{number}", make_request(name, f"{fate} {number}?"))
        for fate in FATES
        for number in range(3)
    ]
    server.batch_fate = lambda custom_id: custom_id.split("-")[0]
    (submitted, listed, retrieved), results = run_batch(name, url, items)
    assert (submitted.ended, submitted.total, submitted.done) == (False, 12, 0)
    assert (listed.id, listed.total) == (submitted.id, 12)
    assert (retrieved.ended, retrieved.total, retrieved.done) == (True, 12, 12)
    assert {state.name for state in (submitted, listed, retrieved)} == {
        "ours" if name == "openai" else None
    }
    assert abs(submitted.created - server.batches[submitted.id].created) < 1.0
    assert [row.custom_id for row in results] != [item.custom_id for item in items]
    found = {row.custom_id: row for row in results}
    assert len(found) == len(results) == 12
    for item in items:
        row, fate = found[item.custom_id], item.custom_id.split("-")[0]
        if fate == "succeeded":
            assert isinstance(row.outcome, Answer) and row.outcome.batch == submitted.id
            (asked,) = [
                a for a in server.heard if a.turns[0][1] == item.request.messages[0].content
            ]
            assert row.outcome.text == server.author(asked)
        else:
            assert isinstance(row.outcome, ItemFailed)


def test_an_openai_batch_that_was_refused_states_the_reason(server: ModelServer, url: str) -> None:
    server.batch_refusal = f"line 1 is not a request, says {KEY}"
    (_, _, state), results = run_batch("openai", url, [BatchItem("a", make_request("openai"))])
    assert state.ended and results == []
    (refusal,) = state.refusals
    assert str(refusal.fault).startswith("line 1 is not a request, says ")
    assert KEY not in str(refusal.fault)


@EACH_PROVIDER
def test_an_unknown_batch_is_not_found(name: ProviderName, url: str) -> None:
    async def work() -> None:
        provider = open_model(name, url)
        try:
            await provider.retrieve_batch("batch_of_another")
        finally:
            await provider.close()

    with pytest.raises(NotFound):
        run(work)


@EACH_PROVIDER
def test_deleted_results_are_not_found(name: ProviderName, server: ModelServer, url: str) -> None:
    def vanish(step: str) -> Fault | None:
        for batch in server.batches.values():
            batch.archived = True
        return Fault(404) if step == "results" else None

    server.batch_faults = vanish
    with pytest.raises(NotFound):
        run_batch(name, url, [BatchItem("a", make_request(name))])


@EACH_PROVIDER
@pytest.mark.parametrize("kind", ["truncate", "drop"])
@pytest.mark.parametrize("step", ["create", "list", "read", "results"])
def test_the_response_of_a_batch_call_can_be_lost(
    name: ProviderName, kind: Any, step: str, server: ModelServer, url: str
) -> None:
    server.batch_faults = lambda at: Fault(kind=kind) if at == step else None
    with pytest.raises(ResponseLost):
        run_batch(name, url, [BatchItem("a", make_request(name))])


# Failures


def fail_with(name: ProviderName, server: ModelServer, url: str, fault: Fault) -> Exception:
    server.faults = lambda asked: fault
    with pytest.raises((ProviderFault, AuthError)) as failed:
        ask(name, url, timeout=1.0)
    return failed.value


@EACH_PROVIDER
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(400), InvalidRequest),
        (Fault(400, message="Your credit balance is too low to access this"), AuthError),
        (Fault(401), AuthError),
        (Fault(402), AuthError),
        (Fault(403), AuthError),
        (Fault(404), NotFound),
        (Fault(408), ServerError),
        (Fault(409), ServerError),
        (Fault(413), InvalidRequest),
        (Fault(422), InvalidRequest),
        (Fault(429), RateLimited),
        (Fault(429, retry_after=7.5), RateLimited),
        (Fault(429, code="insufficient_quota", message="insufficient_quota"), AuthError),
        (Fault(500), ServerError),
        (Fault(503, retry_after=2.0), ServerError),
        (Fault(529), ServerError),
    ],
)
def test_each_status_has_its_kind_of_fault(
    name: ProviderName, fault: Fault, kind: type[Exception], server: ModelServer, url: str
) -> None:
    failed = fail_with(name, server, url, fault)
    assert type(failed) is kind
    assert str(fault.status) in str(failed)
    assert (fault.message or f"loopback says {fault.status}") in str(failed)
    if isinstance(failed, ProviderFault):
        assert failed.retry_after == fault.retry_after
        assert not failed.billed
    assert len(server.arrivals) == 1  # the SDKs do not retry


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7.5"}, 7.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, 7200.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "Fri, 27 Nov 2026 99:00:00 GMT"}, None),
        ({"retry-after": "later"}, None),
        ({}, None),
    ],
)
def test_a_wait_is_given_in_seconds_or_milliseconds(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert read_retry_after(headers) == seconds


def test_a_wait_can_be_given_as_a_date() -> None:
    late = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    assert read_retry_after({"retry-after": late}) == pytest.approx(3600, abs=60)
    assert read_retry_after({"retry-after": "Fri, 27 Nov 2020 09:00:00 GMT"}) == 0.0


@EACH_PROVIDER
@pytest.mark.parametrize("kind", ["truncate", "drop", "hang", "other"])
def test_an_incomplete_answer_may_be_billed(
    name: ProviderName, kind: Any, server: ModelServer, url: str
) -> None:
    failed = fail_with(name, server, url, Fault(kind=kind))
    assert type(failed) is (Unreadable if kind == "other" else ResponseLost)
    assert failed.billed
    assert server.bill > 0


@EACH_PROVIDER
def test_a_failed_connection_is_not_billed(name: ProviderName) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConnectionFailed) as failed:
            ask(name, url)
    assert not failed.value.billed
    assert str(failed.value)


def test_a_missing_key_is_reported_by_name(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(KEY_VARIABLE, " ")
    with expect_error(AuthError, "key-missing", model=MODEL, variable=KEY_VARIABLE):
        open_provider(MODEL, make_model("openai", url))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "ftp://proxy"),
        ("HTTP_PROXY", "http://proxy:port"),
        ("SSL_CERT_FILE", "/nowhere/all.pem"),
    ],
)
@EACH_PROVIDER
def test_a_connection_that_the_environment_forbids_is_told(
    name: ProviderName, variable: str, value: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with expect_error(BackendError, "connection-settings") as caught:
        open_model(name, url)
    assert variable in caught.error.remedy


@EACH_PROVIDER
def test_requests_go_through_a_proxy(
    name: ProviderName, server: ModelServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    assert ask(name, "http://models.invalid", make_request(name)).text
    assert len(server.charges) == 1


@EACH_PROVIDER
def test_a_proxy_that_is_not_there_bills_nothing(
    name: ProviderName, server: ModelServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(ConnectionFailed):
        ask(name, url, make_request(name))
    assert server.bill == 0


@EACH_PROVIDER
@pytest.mark.parametrize("field", ["text", "system"])
def test_a_request_with_half_a_character_is_refused(name: ProviderName, field: str) -> None:
    with expect_error(BackendError, "request-half-character", model=MODEL):
        make_request(name, **{field: "An egg: \ud83e"})


@EACH_PROVIDER
def test_a_client_answers_plain_requests_without_a_workflow(
    name: ProviderName,
    server: ModelServer,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    config = LLMConfig({MODEL: make_model(name, url)}, tmp_path / "ledger.sqlite", "single")
    requests = [make_request(name, text) for text in ("One?", "Two?")]
    tag = UsageTag("mine", "greeting")
    first = LLMClient(config).ask(requests, tag=tag)
    assert all(isinstance(outcome, Answer) for outcome in first)
    assert LLMClient(config).ask(requests, tag=tag) == first
    assert server.statuses[200] == 2  # the second client replayed the ledger


# The key


def show_all(error: BaseException | None) -> Iterator[str]:
    """Every text of an error that a log or a traceback may show."""
    while error is not None:
        yield from (str(error), repr(error), "".join(traceback.format_exception(error)))
        error = error.__cause__


@EACH_PROVIDER
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_no_error_repeats_the_key_that_a_server_repeats(
    name: ProviderName, status: int, server: ModelServer, url: str
) -> None:
    failed = fail_with(name, server, url, Fault(status, message=f"no such thing as {KEY}"))
    assert any("no such thing as" in text for text in show_all(failed))
    assert not any(KEY in text for text in show_all(failed))


@EACH_PROVIDER
def test_a_wrong_key_is_refused_and_not_shown(
    name: ProviderName, server: ModelServer, url: str
) -> None:
    with expect_error(AuthError, "access-refused", status=401) as caught:
        ask(name, url, key=OTHER_KEY)
    assert server.keys == {OTHER_KEY}
    assert not any(OTHER_KEY in text for text in show_all(caught.error))


@EACH_PROVIDER
def test_no_answer_repeats_the_key(name: ProviderName, server: ModelServer, url: str) -> None:
    server.author = lambda asked: f"Your key is {KEY}, is it not?"
    request = make_request(name)
    _, results = run_batch(name, url, [BatchItem("a", request)])
    for answer in (ask(name, url, request), results[0].outcome):
        assert isinstance(answer, Answer)
        assert answer.text == "Your key is [key], is it not?"


AUTHORS: list[Callable[[Asked], str]] = [
    lambda asked: "",
    lambda asked: "Ünïcödé 🍞\u2028and\x00more\r\n",
    lambda asked: '{"answer": "a \\"quoted\\" word"}',
]


@EACH_PROVIDER
@pytest.mark.parametrize("author", AUTHORS)
def test_every_text_arrives_unchanged(
    name: ProviderName, author: Callable[[Asked], str], server: ModelServer, url: str
) -> None:
    server.author = author
    request = make_request(name)
    _, results = run_batch(name, url, [BatchItem("a", request)])
    batched = results[0].outcome
    assert isinstance(batched, Answer)
    assert ask(name, url, request).text == batched.text == author(server.heard[0])
