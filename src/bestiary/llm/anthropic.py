"""Anthropic's Messages and Message Batches, with prompt caching."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import anthropic
from anthropic.types import Message
from anthropic.types.messages import MessageBatch

from bestiary.llm.provider import BatchItem, BatchResult, BatchState, NotFound
from bestiary.llm.request import Answer, ModelRequest, Usage
from bestiary.llm.sdk import UNLIMITED, faults, hide

END_REASONS = ("end_turn", "stop_sequence")


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
        params = _write_params(request)
        # `create` has no such argument; in a batch it is an ordinary parameter.
        sampling = {name: params.pop(name) for name in ("temperature",) if name in params}
        with faults(anthropic, self._key):
            message = await self._client.messages.create(**params, extra_body=sampling)
            return self._read(message)

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
            async for row in await self._client.messages.batches.results(batch_id):
                if row.result.type != "succeeded":
                    yield BatchResult(row.custom_id, None, row.result.type)
                    continue
                try:
                    answer = self._read(row.result.message, batch=batch_id)
                except ValueError:
                    yield BatchResult(row.custom_id, None, "unreadable")
                else:
                    yield BatchResult(row.custom_id, answer, "")

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    def _read(self, message: Message, *, batch: str | None = None) -> Answer:
        # The SDK does not validate: a body it cannot parse is a string, a missing field is None.
        if not isinstance(message, Message) or None in (message.content, message.usage):
            raise ValueError("the body is not a message")
        usage = message.usage
        text = "".join(block.text for block in message.content if block.type == "text")
        return Answer(
            text=hide(text, self._key),
            stop=_read_stop(message.stop_reason),
            usage=Usage(
                input=usage.input_tokens,
                output=usage.output_tokens,
                cache_write=usage.cache_creation_input_tokens or 0,
                cache_read=usage.cache_read_input_tokens or 0,
            ),
            id=message.id,
            batch=batch,
        )


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
    }
    if request.reply_schema is not None:
        output = {"type": "json_schema", "schema": request.reply_schema}
        params["output_config"] = {"format": output}
    if request.temperature is not None:
        params["temperature"] = request.temperature
    return params


def _read_stop(reason: str | None) -> Literal["end", "length", "refusal"]:
    if reason in END_REASONS:
        return "end"
    return "length" if reason == "max_tokens" else "refusal"


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
