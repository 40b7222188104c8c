"""Anthropic's Messages and Message Batches, with prompt caching."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import anthropic
import httpx2
from anthropic.types.messages import MessageBatch

from bestiary.llm.completion import read_anthropic, read_item, read_item_error
from bestiary.llm.provider import BatchItem, BatchResult, BatchState, NotFound
from bestiary.llm.request import Answer, ModelRequest
from bestiary.llm.sdk import MALFORMED, UNLIMITED, faults, parse_body, parse_lines


class AnthropicProvider:
    """Calls the official SDK, with the SDK's own retries off."""

    def __init__(self, *, key: str, url: str | None, timeout: float) -> None:
        self._key = key
        self._client = anthropic.AsyncAnthropic(
            api_key=key,
            base_url=url,
            timeout=timeout,
            max_retries=0,
            http_client=anthropic.DefaultAioHttpClient(limits=UNLIMITED),
        )

    async def ask(self, request: ModelRequest) -> Answer:
        """Send one request and return its answer."""
        with faults(anthropic, self._key):
            # Not `messages.create`: it knows no temperature, and does not keep the body as it is.
            response = await self._client.post(
                "/v1/messages", cast_to=httpx2.Response, body=_write_params(request)
            )
            return read_anthropic(parse_body(response.content, self._key), self._key)

    async def submit(self, items: Sequence[BatchItem], *, name: str) -> BatchState:
        """Start a batch; Anthropic stores no name for it, only the items' custom ids."""
        requests: list[Any] = [
            {"custom_id": item.custom_id, "params": _write_params(item.request)} for item in items
        ]
        with faults(anthropic, self._key):
            return _read_batch(await self._client.messages.batches.create(requests=requests))

    async def retrieve_batch(self, batch_id: str) -> BatchState:
        """The state of a batch."""
        with faults(anthropic, self._key):
            return _read_batch(await self._client.messages.batches.retrieve(batch_id))

    async def list_batches(self) -> AsyncIterator[BatchState]:
        """The account's batches, newest first."""
        with faults(anthropic, self._key):
            async for batch in self._client.messages.batches.list(limit=100):
                yield _read_batch(batch)

    async def read_results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """The results of a batch that has ended."""
        with faults(anthropic, self._key):
            batch = await self._client.messages.batches.retrieve(batch_id)
            if batch.results_url is None:
                raise NotFound(f"the results of {batch_id} have been deleted")
            response = await self._client.get(batch.results_url, cast_to=httpx2.Response)
            for row in parse_lines(response.content):
                with suppress(*MALFORMED):  # a line that is no result: its item is missing
                    yield self._read_result(row, batch_id)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    def _read_result(self, row: Any, batch_id: str) -> BatchResult:
        """The result in one line of a batch's results."""
        result = row["result"]
        if result["type"] != "succeeded":
            fault = read_item_error(None, result.get("error") or result["type"], self._key)
            return BatchResult(row["custom_id"], fault)
        body = result.get("message")
        return BatchResult(row["custom_id"], read_item(read_anthropic, body, self._key, batch_id))


def _write_params(request: ModelRequest) -> dict[str, Any]:
    """The parameters of the API call; a shared system prompt is marked for caching."""
    system: dict[str, Any] = {"type": "text", "text": request.system}
    if request.shared:
        system["cache_control"] = {"type": "ephemeral"}
    params: dict[str, Any] = {
        "model": request.model_on_wire,
        "max_tokens": request.max_tokens,
        "system": [system],
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
        **request.extra_body,
    }
    if request.reply_schema is not None:
        output = {"type": "json_schema", "schema": request.reply_schema}
        params["output_config"] = {"format": output}
    if request.temperature is not None:
        params["temperature"] = request.temperature
    return params


def _read_batch(batch: MessageBatch) -> BatchState:
    counts = batch.request_counts
    done = counts.succeeded + counts.errored + counts.canceled + counts.expired
    return BatchState(
        id=batch.id,
        ended=batch.processing_status == "ended",
        total=done + counts.processing,
        done=done,
        created=batch.created_at.timestamp(),
        name=None,
    )
