"""A loopback model server: both providers' single calls and batches, billed as they bill.

`author` writes the answers; `latency`, `capacity`, `faults` and the batches' fate are a test's to
set, also while it runs. Whatever it answers is billed, acknowledged or not.

It checks what it is sent no further than by reading it, and knows neither streams nor tools.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "sk-loopback-0123456789"
START_SECONDS = 20.0
CHARACTERS = 4
"""Of a token, on this server."""
CACHED_FROM = 1024
"""Tokens of the shortest beginning that is cached."""
BATCH_FACTOR = 0.5
REFUSAL = "I cannot help with that."
OPENAI_QUEUE_FULL = (
    "Enqueued token limit reached for loop in organization org-loop. Limit: 2,000 enqueued tokens. "
    "Please try again once some in_progress batches have been completed."
)
ANTHROPIC_QUEUE_FULL = "Too many batch requests in the processing queue; try again later."
ITEM_ERRORS = {
    "invalid": (400, "max_tokens: 64 is more than this model allows"),
    "forbidden": (403, "this key may not use the model"),
    "broke": (400, "Your credit balance is too low to access the API."),
    "busy": (429, "the model is overloaded"),
}
"""Status and message of items that fail in a batch, by their fate."""

Provider = Literal["anthropic", "openai"]
Stop = Literal["", "cut", "refusal"]
"""Why an answer ended, where not by itself."""
Body = dict[str, Any]
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Price:
    """Picodollars a token."""

    input: int = 1_000_000
    output: int = 5_000_000
    cache_write: int = 1_250_000
    cache_read: int = 100_000


@dataclass(frozen=True)
class Asked:
    """A request as either protocol brings it."""

    provider: Provider
    model: str
    system: str
    turns: tuple[tuple[str, str], ...]
    """Role and text of each."""
    max_tokens: int
    schema: Body | None
    """Of the JSON that is asked for."""
    cached: tuple[str, ...]
    """Beginnings that are to be cached, the longest last."""
    number: int
    """How many requests came before."""
    temperature: float | None = None

    @property
    def text(self) -> str:
        """Everything that is read."""
        return "".join([self.system, *(text for _, text in self.turns)])

    def draw(self, salt: str = "") -> random.Random:
        """A source of chance of its own, the same whenever it is asked."""
        return random.Random(f"{salt}{self.model}{self.text}")


@dataclass(frozen=True)
class Fault:
    """What happens to a request in place of an answer."""

    status: int = 200
    retry_after: float | None = None
    kind: Literal["status", "truncate", "drop", "hang", "other"] = "status"
    """Beside a status: half a body, a cut connection, no end, or other JSON: the message."""
    code: str | None = None
    """What the provider calls it, beside the status."""
    message: str = ""


@dataclass(frozen=True)
class Charge:
    """A line of the bill."""

    provider: Provider
    model: str
    batch: bool
    pico: int


@dataclass
class Batch:
    """A batch of either provider, with what its requests came to once it has ended."""

    id: str
    provider: Provider
    items: list[tuple[str, Body]]
    """Each with its custom id."""
    created: float
    metadata: Body | None = None
    input_file: str = ""
    cancelled: bool = False
    ended: float | None = None
    results: list[Body] = field(default_factory=list)
    outputs: str | None = None
    """Of an ended OpenAI batch: the files of its results and errors."""
    errors: str | None = None
    refusal: str = ""
    """Why an OpenAI batch was refused whole."""
    refused_line: int | None = None
    """The line of it that is to blame."""
    archived: bool = False
    """Whether its results are gone."""


def answer_in_words(asked: Asked) -> str:
    """An author that says which request it answers."""
    return f"Answer {hashlib.sha256(asked.text.encode()).hexdigest()[:12]}."


class ModelServer:
    """The state of a server, and what a test may turn."""

    def __init__(self, *, author: Callable[[Asked], str] = answer_in_words) -> None:
        self.author = author
        self.latency = 0.0
        self.capacity: int | None = None
        """Requests at once; beyond them it answers 429."""
        self.retry_after: float | None = None
        """What it says beside a 429 of its own."""
        self.faults: Callable[[Asked], Fault | None] = lambda asked: None
        self.batch_seconds = 0.0
        """From a batch's creation to its end."""
        self.hidden_seconds = 0.0
        """How long a new batch is not found."""
        self.batch_fate: Callable[[str], str] = lambda custom_id: "succeeded"
        """What becomes of an item: succeeded, errored, expired or canceled; or garbled, which is
        told and billed as a success and holds no answer; or the name of one of ITEM_ERRORS."""
        self.batch_refusal = ""
        """Why batches are refused whole after their creation, as OpenAI does."""
        self.refused_line: int | None = None
        """The line that it names."""
        self.no_file: str | None = None  # in place of the id of a file without lines
        self.dialect: Callable[[Body], str] = lambda body: ""
        """Why a single request is refused as invalid, by its body; empty if it is not."""
        self.bodies: list[Body] = []
        """Single requests as they came."""
        self.queue_limit: int | None = None
        """Requests in open batches; a batch beyond them is refused, as each provider does it."""
        self.edit_results: Callable[[list[str]], list[str]] = lambda lines: lines
        """What becomes of the lines of results on their way."""
        self.batch_faults: Callable[[str], Fault | None] = lambda step: None
        """What happens to a call about batches, by its step: upload, create, list, read, results
        or cancel. A fault that is no status spoils what is said, and not what is done."""
        self.edit: Callable[[Asked, Body], Any] = lambda asked, body: body
        """What becomes of each answer's body on its way, after it was billed."""
        self.refuses: Callable[[Asked], bool] = lambda asked: False
        """Whether a model declines to answer."""
        self.bills_writes: tuple[Provider, ...] = ("anthropic",)
        """Whose prompt caches are paid for when they are written."""
        self.prices: Mapping[str, Price] = {}
        self.charges: list[Charge] = []
        self.statuses: Counter[int] = Counter()
        self.asked: Counter[str] = Counter()
        """How often each text was answered."""
        self.keys: set[str] = set()
        """Keys that were shown."""
        self.arrivals: list[float] = []
        """When single calls came, by the monotonic clock."""
        self.heard: list[Asked] = []
        """What was answered, in order."""
        self.submitted: list[int] = []
        """Bytes of what was sent as batches."""
        self.steps: Counter[str] = Counter()
        """Calls about batches, by their step."""
        self.finished: Counter[str] = Counter()
        """Those whose work is done."""
        self.in_flight = self.most_in_flight = 0
        self.batches: dict[str, Batch] = {}
        self.files: dict[str, bytes] = {}
        self._cached: dict[str, float] = {}
        """Since when beginnings are found in the cache: whoever came before must write them too."""
        self._number = self._made = 0

    @property
    def bill(self) -> int:
        """Picodollars in all."""
        return sum(charge.pico for charge in self.charges)

    @property
    def app(self) -> Starlette:
        """Its routes."""
        batches = "/v1/messages/batches"
        anthropic: list[tuple[str, str, str, Handler]] = [
            ("create", "POST", batches, self._anthropic_create),
            ("list", "GET", batches, self._anthropic_list),
            ("read", "GET", f"{batches}/{{id}}", self._anthropic_read),
            ("results", "GET", f"{batches}/{{id}}/results", self._anthropic_results),
            ("cancel", "POST", f"{batches}/{{id}}/cancel", self._anthropic_cancel),
        ]
        openai: list[tuple[str, str, str, Handler]] = [
            ("upload", "POST", "/openai/files", self._upload),
            ("results", "GET", "/openai/files/{id}/content", self._download),
            ("create", "POST", "/openai/batches", self._openai_create),
            ("list", "GET", "/openai/batches", self._openai_list),
            ("read", "GET", "/openai/batches/{id}", self._openai_read),
            ("cancel", "POST", "/openai/batches/{id}/cancel", self._openai_cancel),
        ]
        return Starlette(
            routes=[
                Route("/v1/messages", self._message, methods=["POST"]),
                Route("/openai/chat/completions", self._completion, methods=["POST"]),
                *(self._route("anthropic", *route) for route in anthropic),
                *(self._route("openai", *route) for route in openai),
            ]
        )

    def _route(
        self, provider: Provider, step: str, method: str, path: str, handle: Handler
    ) -> Route:
        """A call about batches, with the fault that a test wants."""

        async def endpoint(request: Request) -> Response:
            refusal = self._check_key(request, provider)
            if refusal is not None:
                return refusal
            await request.body()  # whole, whatever becomes of its sender
            self.steps[step] += 1
            fault = self.batch_faults(step)
            if fault is not None and fault.kind == "status":
                self.finished[step] += 1
                return self._refuse(provider, fault)
            response = await handle(request)
            self.finished[step] += 1
            return response if fault is None else await self._spoil(bytes(response.body), fault)

        return Route(path, endpoint, methods=[method])

    # Single calls

    async def _message(self, request: Request) -> Response:
        return await self._answer(request, "anthropic")

    async def _completion(self, request: Request) -> Response:
        return await self._answer(request, "openai")

    async def _answer(self, request: Request, provider: Provider) -> Response:
        refusal = self._check_key(request, provider)
        if refusal is not None:
            return refusal
        arrived = time.monotonic()
        self.arrivals.append(arrived)
        body = json.loads(await request.body())
        self.bodies.append(body)
        words = self.dialect(body)
        if words:
            return self._refuse(provider, Fault(400, message=words))
        asked = self._read(provider, body)
        self._number += 1
        if self.capacity is not None and self.in_flight >= self.capacity:
            return self._refuse(provider, Fault(429, self.retry_after))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            fault = self.faults(asked)
            await asyncio.sleep(self.latency)
            if fault is not None and fault.kind == "status":
                return self._refuse(provider, fault)
            body = self._compose(asked, arrived, batch=False)
            if fault is not None:
                return await self._spoil(json.dumps(body).encode(), fault)
            self.statuses[200] += 1
            whole = body if isinstance(body, bytes) else json.dumps(body).encode()
            return Response(
                whole,
                headers={"request-id": f"req_{asked.number}"},
                media_type="application/json",
            )
        finally:
            self.in_flight -= 1

    async def _spoil(self, whole: bytes, fault: Fault) -> Response:
        """An answer that was made, and billed, and does not arrive whole."""
        self.statuses[0] += 1
        if fault.kind == "other":
            return Response(fault.message or "{}", media_type="application/json")
        if fault.kind == "truncate":
            return Response(whole[: len(whole) // 2], media_type="application/json")
        if fault.kind == "hang":
            await asyncio.sleep(3600)
        return CutResponse(whole, media_type="application/json")

    def _refuse(self, provider: Provider, fault: Fault) -> Response:
        self.statuses[fault.status] += 1
        headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
        body = error_body(provider, fault.status, fault.message, code=fault.code)
        return JSONResponse(body, fault.status, headers=headers)

    def _check_key(self, request: Request, provider: Provider) -> Response | None:
        shown = request.headers.get("x-api-key") or request.headers.get("authorization", "")
        self.keys.add(shown.removeprefix("Bearer "))
        if shown.removeprefix("Bearer ") == KEY:
            return None
        self.statuses[401] += 1
        return JSONResponse(error_body(provider, 401, f"invalid key {shown}"), 401)

    # Reading and composing

    def _read(self, provider: Provider, body: Body) -> Asked:
        read = read_anthropic if provider == "anthropic" else read_openai
        return read(body, self._number)

    def _compose(self, asked: Asked, arrived: float, *, batch: bool) -> Any:
        """Answer and bill a request."""
        refused = self.refuses(asked)
        text = REFUSAL if refused else self.author(asked)
        limit = asked.max_tokens * CHARACTERS
        cut, text = len(text) > limit, text[:limit]
        self.asked[asked.text] += 1
        self.heard.append(asked)
        usage = self._measure(asked, text, arrived)
        price = self.prices.get(asked.model, Price())
        pico = (
            usage["fresh"] * price.input
            + usage["written"] * price.cache_write
            + usage["read"] * price.cache_read
            + usage["output"] * price.output
        )
        factor = BATCH_FACTOR if batch else 1.0
        self.charges.append(Charge(asked.provider, asked.model, batch, int(pico * factor)))
        compose = compose_anthropic if asked.provider == "anthropic" else compose_openai
        stop: Stop = "refusal" if refused else "cut" if cut else ""
        return self.edit(asked, compose(asked, text, usage, stop=stop))

    def _measure(self, asked: Asked, text: str, arrived: float) -> Counter[str]:
        total, read, written = count_tokens(asked.text), 0, 0
        for beginning in asked.cached:
            size = count_tokens(beginning)
            if size < CACHED_FROM:
                continue
            name = f"{asked.provider}/{asked.model}/{beginning}"
            if self._cached.setdefault(name, time.monotonic()) <= arrived:
                read = size
            else:
                written = size - read if asked.provider in self.bills_writes else 0
        fresh = total - read - written
        return Counter(fresh=fresh, read=read, written=written, output=count_tokens(text))

    def clear_cache(self) -> None:
        """Forget every beginning, as providers do within minutes."""
        self._cached.clear()

    # Batches

    def _start_batch(self, provider: Provider, items: Sequence[tuple[str, Body]]) -> Batch:
        self._made += 1
        prefix = "msgbatch" if provider == "anthropic" else "batch"
        batch = Batch(f"{prefix}_{self._made:04d}", provider, list(items), time.time())
        self.batches[batch.id] = batch
        return batch

    def _find_batch(self, request: Request, provider: Provider) -> Batch | None:
        batch = self.batches.get(request.path_params["id"])
        if batch is None or batch not in self._list_batches(provider):
            return None
        self._settle(batch)
        return batch

    def _list_batches(self, provider: Provider) -> list[Batch]:
        """Those that are found by now, the newest first."""
        known = [batch for batch in self.batches.values() if batch.provider == provider]
        now = time.time()
        return [b for b in reversed(known) if now >= b.created + self.hidden_seconds]

    def _settle(self, batch: Batch) -> None:
        """End a batch whose time has come: answer, bill, and put results out of order."""
        if batch.ended is not None:
            return
        if not batch.cancelled and time.time() < batch.created + self.batch_seconds:
            return
        batch.ended = time.time()
        if batch.provider == "openai" and self.batch_refusal:
            batch.refusal, batch.refused_line = self.batch_refusal, self.refused_line
            return
        for custom_id, body in batch.items:
            fate = "canceled" if batch.cancelled else self.batch_fate(custom_id)
            answer = None
            if fate in ("succeeded", "garbled"):
                asked = self._read(batch.provider, body)
                answer = self._compose(asked, time.monotonic(), batch=True)
                self._number += 1
            if fate == "garbled":
                fate, answer = "succeeded", {"id": "garbled"}
            batch.results.append({"custom_id": custom_id, "fate": fate, "answer": answer})
        random.Random(batch.id).shuffle(batch.results)

    def _has_room(self, provider: Provider, size: int) -> bool:
        """Whether the queue takes a batch of so many requests."""
        ours = [batch for batch in self.batches.values() if batch.provider == provider]
        for batch in ours:
            self._settle(batch)
        queued = sum(len(batch.items) for batch in ours if batch.ended is None)
        return self.queue_limit is None or queued + size <= self.queue_limit

    async def _anthropic_create(self, request: Request) -> Response:
        sent = await request.body()
        self.submitted.append(len(sent))
        body = json.loads(sent)
        items = [(item["custom_id"], item["params"]) for item in body["requests"]]
        if len({name for name, _ in items}) < len(items):
            return JSONResponse(error_body("anthropic", 400, "custom_id is not unique"), 400)
        if not self._has_room("anthropic", len(items)):
            return JSONResponse(error_body("anthropic", 429, ANTHROPIC_QUEUE_FULL), 429)
        return JSONResponse(show_anthropic(self._start_batch("anthropic", items), request))

    async def _anthropic_list(self, request: Request) -> Response:
        shown = [show_anthropic(batch, request) for batch in self._list_batches("anthropic")]
        return JSONResponse({"data": shown, "has_more": False, "first_id": None, "last_id": None})

    async def _anthropic_read(self, request: Request) -> Response:
        batch = self._find_batch(request, "anthropic")
        if batch is None:
            return JSONResponse(error_body("anthropic", 404), 404)
        return JSONResponse(show_anthropic(batch, request))

    async def _anthropic_cancel(self, request: Request) -> Response:
        batch = self._find_batch(request, "anthropic")
        if batch is None:
            return JSONResponse(error_body("anthropic", 404), 404)
        batch.cancelled = batch.ended is None
        return JSONResponse(show_anthropic(batch, request))

    async def _anthropic_results(self, request: Request) -> Response:
        batch = self._find_batch(request, "anthropic")
        if batch is None or batch.ended is None or batch.archived:
            return JSONResponse(error_body("anthropic", 404), 404)
        lines = [json.dumps(show_anthropic_result(result)) + "\n" for result in batch.results]
        return Response("".join(self.edit_results(lines)), media_type="application/x-jsonl")

    async def _upload(self, request: Request) -> Response:
        form = await request.form()
        upload: Any = form["file"]
        data = await upload.read()
        self.submitted.append(len(data))
        return JSONResponse(self._keep_file(data, str(form["purpose"])))

    def _keep_file(self, data: bytes, purpose: str) -> Body:
        name = f"file-{len(self.files):04d}"
        self.files[name] = data
        return {
            "id": name,
            "bytes": len(data),
            "created_at": int(time.time()),
            "filename": f"{name}.jsonl",
            "object": "file",
            "purpose": purpose,
            "status": "processed",
        }

    async def _download(self, request: Request) -> Response:
        data = self.files.get(request.path_params["id"])
        if data is None:
            return JSONResponse(error_body("openai", 404), 404)
        return Response(data, media_type="application/octet-stream")

    async def _openai_create(self, request: Request) -> Response:
        body = json.loads(await request.body())
        lines = self.files[body["input_file_id"]].decode().splitlines()
        items = [(row["custom_id"], row["body"]) for row in map(json.loads, lines)]
        has_room = self._has_room("openai", len(items))
        batch = self._start_batch("openai", items)
        if not has_room:
            batch.refusal, batch.ended = OPENAI_QUEUE_FULL, batch.created
        batch.metadata, batch.input_file = body.get("metadata"), body["input_file_id"]
        return JSONResponse(show_openai(batch))

    async def _openai_list(self, request: Request) -> Response:
        shown = [show_openai(batch) for batch in self._list_batches("openai")]
        return JSONResponse({"object": "list", "data": shown, "has_more": False})

    async def _openai_read(self, request: Request) -> Response:
        batch = self._find_batch(request, "openai")
        if batch is None:
            return JSONResponse(error_body("openai", 404), 404)
        self._write_files(batch)
        return JSONResponse(show_openai(batch))

    async def _openai_cancel(self, request: Request) -> Response:
        batch = self._find_batch(request, "openai")
        if batch is None:
            return JSONResponse(error_body("openai", 404), 404)
        batch.cancelled = batch.ended is None
        return JSONResponse(show_openai(batch))

    def _write_files(self, batch: Batch) -> None:
        """Results of an ended batch lie in two files: answers, and requests that failed."""
        if batch.ended is None or batch.outputs or batch.errors:
            return
        shown = [show_openai_result(result) for result in batch.results]
        good = [row for row in shown if (row["response"] or {}).get("status_code") == 200]
        bad = [row for row in shown if row not in good]
        for place, rows in (("outputs", good), ("errors", bad)):
            data = "".join(self.edit_results([json.dumps(row) + "\n" for row in rows])).encode()
            setattr(
                batch, place, self._keep_file(data, "batch_output")["id"] if rows else self.no_file
            )


class CutResponse(Response):
    """Half of what its header promises, after which the connection is closed."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2]})


def count_tokens(text: str) -> int:
    """Tokens of a text, on this server."""
    return math.ceil(len(text) / CHARACTERS)


def read_anthropic(body: Body, number: int) -> Asked:
    """A request to the Messages interface."""
    system = body.get("system", "")
    blocks = [{"text": system}] if isinstance(system, str) else system
    cached, text = [], ""
    for block in blocks:
        text += block["text"]
        if block.get("cache_control"):
            cached.append(text)
    form = (body.get("output_config") or {}).get("format") or {}
    return Asked(
        provider="anthropic",
        model=body["model"],
        system=text,
        turns=tuple((turn["role"], read_text(turn["content"])) for turn in body["messages"]),
        max_tokens=body["max_tokens"],
        schema=form.get("schema"),
        cached=tuple(cached),
        number=number,
        temperature=body.get("temperature"),
    )


def read_openai(body: Body, number: int) -> Asked:
    """A request to the chat completions interface; the system prompt is cached by itself."""
    turns = [(turn["role"], read_text(turn["content"])) for turn in body["messages"]]
    system = "".join(text for role, text in turns if role in ("system", "developer"))
    form = body.get("response_format") or {}
    return Asked(
        provider="openai",
        model=body["model"],
        system=system,
        turns=tuple(turn for turn in turns if turn[0] in ("user", "assistant")),
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens") or 4096,
        schema=(form.get("json_schema") or {}).get("schema"),
        cached=(system,),
        number=number,
        temperature=body.get("temperature"),
    )


def read_text(content: str | Sequence[Body]) -> str:
    """A turn's text, as a string or in blocks."""
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def compose_anthropic(asked: Asked, text: str, usage: Counter[str], *, stop: Stop) -> Body:
    """A Message."""
    return {
        "id": f"msg_{asked.number:08d}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": {"": "end_turn", "cut": "max_tokens", "refusal": "refusal"}[stop],
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage["fresh"],
            "cache_creation_input_tokens": usage["written"],
            "cache_read_input_tokens": usage["read"],
            "output_tokens": usage["output"],
        },
    }


def compose_openai(asked: Asked, text: str, usage: Counter[str], *, stop: Stop) -> Body:
    """A ChatCompletion."""
    read = usage["fresh"] + usage["read"] + usage["written"]
    told = {"content": None, "refusal": text} if stop == "refusal" else {"content": text}
    return {
        "id": f"chatcmpl-{asked.number:08d}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model,
        "choices": [
            {
                "index": 0,
                "finish_reason": "length" if stop == "cut" else "stop",
                "message": {"role": "assistant", **told},
            }
        ],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": usage["output"],
            "total_tokens": read + usage["output"],
            "prompt_tokens_details": {
                "cached_tokens": usage["read"],
                "cache_write_tokens": usage["written"],
            },
        },
    }


ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def error_body(
    provider: Provider, status: int, message: str = "", *, code: str | None = None
) -> Body:
    """What a provider says beside a status that is no success."""
    kind = ANTHROPIC_ERRORS.get(status, "api_error")
    told = {"type": kind, "message": message or f"loopback says {status}"}
    if provider == "anthropic":
        return {"type": "error", "error": told, "request_id": "req_error"}
    return {"error": {**told, "code": code, "param": None}}


def show_anthropic(batch: Batch, request: Request) -> Body:
    """A MessageBatch."""
    fates = Counter(
        "errored" if result["fate"] in ITEM_ERRORS else result["fate"] for result in batch.results
    )
    over = batch.ended is not None
    status = "ended" if over else "canceling" if batch.cancelled else "in_progress"
    url = str(request.base_url).rstrip("/") + f"/v1/messages/batches/{batch.id}/results"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": {
            "processing": 0 if over else len(batch.items),
            **{fate: fates[fate] for fate in ("succeeded", "errored", "canceled", "expired")},
        },
        "created_at": show_time(batch.created),
        "expires_at": show_time(batch.created + timedelta(days=1).total_seconds()),
        "ended_at": show_time(batch.ended) if batch.ended else None,
        "archived_at": show_time(time.time()) if batch.archived else None,
        "cancel_initiated_at": show_time(batch.created) if batch.cancelled else None,
        "results_url": url if over and not batch.archived else None,
    }


def show_anthropic_result(result: Body) -> Body:
    """A line of a MessageBatch's results."""
    told: Body = {"type": result["fate"]}
    if result["fate"] == "succeeded":
        told["message"] = result["answer"]
    if result["fate"] == "errored" or result["fate"] in ITEM_ERRORS:
        told["type"] = "errored"
        told["error"] = error_body("anthropic", *ITEM_ERRORS.get(result["fate"], (500, "")))
    return {"custom_id": result["custom_id"], "result": told}


def show_time(seconds: float) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def show_openai(batch: Batch) -> Body:
    """A Batch."""
    over = batch.ended is not None
    fates = Counter(result["fate"] for result in batch.results)
    status = "cancelling" if batch.cancelled else "in_progress"
    if over:
        status = "cancelled" if batch.cancelled else "completed"
    if over and fates["expired"]:
        status = "expired"
    if batch.refusal:
        status = "failed"
    errors = {
        "object": "list",
        "data": [{"code": "refused", "message": batch.refusal, "line": batch.refused_line}],
    }
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "created_at": int(batch.created),
        "input_file_id": batch.input_file,
        "status": status,
        "metadata": batch.metadata,
        "output_file_id": batch.outputs,
        "error_file_id": batch.errors,
        "errors": errors if batch.refusal else None,
        "request_counts": {
            "completed": fates["succeeded"],
            "failed": len(batch.results) - fates["succeeded"],
            "total": len(batch.items),
        },
    }


def show_openai_result(result: Body) -> Body:
    """A line of a Batch's output or error file."""
    codes = {"expired": "batch_expired", "canceled": "batch_cancelled", "errored": "server_error"}
    good = result["fate"] == "succeeded"
    response = {"status_code": 200, "request_id": "req", "body": result["answer"]}
    error = {"code": codes.get(result["fate"]), "message": f"loopback: {result['fate']}"}
    if result["fate"] in ITEM_ERRORS:
        status, message = ITEM_ERRORS[result["fate"]]
        said = error_body("openai", status, message)
        response = {"status_code": status, "request_id": "req", "body": said}
        return {"custom_id": result["custom_id"], "response": response, "error": None}
    return {
        "id": f"batch_req_{result['custom_id']}",
        "custom_id": result["custom_id"],
        "response": response if good else None,
        "error": None if good else error,
    }


class _BriskServer(uvicorn.Server):
    """Says when it takes no more connections: its own end comes two tenths of a second later."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.closed = threading.Event()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self.closed.set()
        await super().shutdown(sockets)


@contextmanager
def serve(server: ModelServer, *, port: int = 0) -> Iterator[str]:
    """Serve on a port of this machine, by default a free one; gives the address."""
    config = uvicorn.Config(server.app, port=port, log_level="critical", lifespan="off")
    running = _BriskServer(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    end = time.monotonic() + START_SECONDS
    while not running.started:
        assert time.monotonic() < end, "the loopback server did not start"
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = running.force_exit = True  # whoever hangs is not waited for
        running.closed.wait(START_SECONDS)
