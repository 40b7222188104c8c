"""OpenAI and every server with its chat completions API: vLLM, llama.cpp, Ollama, and others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import httpx2
import openai
from openai.types import Batch

from bestiary.llm.chat_body import ENDPOINT, write_batch_line, write_body
from bestiary.llm.completion import read_item, read_item_error, read_openai
from bestiary.llm.provider import BatchItem, BatchRefusal, BatchResult, BatchState, ItemFailed
from bestiary.llm.request import Answer, ModelRequest
from bestiary.llm.sdk import MALFORMED, UNLIMITED, faults, parse_body, parse_lines

END_STATES = ("completed", "failed", "expired", "cancelled", "canceled")
NAME = "bestiary"
"""The key of our name for a batch in its metadata."""


class OpenAIProvider:
    """Calls the official SDK, with the SDK's own retries off."""

    def __init__(self, *, key: str, url: str | None, timeout: float, token_limit: str) -> None:
        self._key = key
        self._limit = token_limit
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=url,
            timeout=timeout,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(limits=UNLIMITED),
        )

    async def ask(self, request: ModelRequest) -> Answer:
        """Send one request and return its answer."""
        with faults(openai, self._key):
            # Not `chat.completions.create`: it looks up the type of every parameter and builds the
            # answer field by field, which takes longer than everything else here.
            response = await self._client.post(
                "/chat/completions", cast_to=httpx2.Response, body=self._write(request)
            )
            return read_openai(parse_body(response.content, self._key), self._key)

    async def submit(self, items: Sequence[BatchItem], *, name: str) -> BatchState:
        """Start a batch that stores our name for it."""
        lines = (write_batch_line(one.custom_id, self._write(one.request)) for one in items)
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        with faults(openai, self._key):
            file = await self._client.files.create(file=(f"{name}.jsonl", data), purpose="batch")
            created = await self._client.batches.create(
                input_file_id=file.id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={NAME: name},
            )
        return self._read_batch(created)

    async def retrieve_batch(self, batch_id: str) -> BatchState:
        """The state of a batch."""
        with faults(openai, self._key):
            return self._read_batch(await self._client.batches.retrieve(batch_id))

    async def list_batches(self) -> AsyncIterator[BatchState]:
        """The account's batches, newest first."""
        with faults(openai, self._key):
            async for batch in self._client.batches.list(limit=100):
                yield self._read_batch(batch)

    async def read_results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """The results of a batch that has ended: its answers, then its errors."""
        with faults(openai, self._key):
            batch = await self._client.batches.retrieve(batch_id)
            for file in (batch.output_file_id, batch.error_file_id):
                if not file:
                    continue
                content = await self._client.files.content(file)
                for row in parse_lines(content.content):
                    with suppress(*MALFORMED):  # a line that is no result: its item is missing
                        yield self._read_result(row, batch_id)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    def _write(self, request: ModelRequest) -> dict[str, Any]:
        return write_body(request, token_limit=self._limit)

    def _read_result(self, row: Any, batch_id: str) -> BatchResult:
        """The result in one line of a batch's output or error file."""
        response = row.get("response") or {}
        error, body = row.get("error"), response.get("body")
        if error or response.get("status_code") != 200:
            fault = read_item_error(response.get("status_code"), error or body, self._key)
            return BatchResult(row["custom_id"], fault)
        return BatchResult(row["custom_id"], read_item(read_openai, body, self._key, batch_id))

    def _read_batch(self, batch: Batch) -> BatchState:
        counts = batch.request_counts
        errors = (batch.errors.data if batch.errors else None) or []
        refusals = [
            BatchRefusal(error.line, read_item_error(400, error.to_dict(), self._key))
            for error in errors
        ]
        if batch.status == "failed" and not refusals:
            refusals = [BatchRefusal(None, ItemFailed("the provider does not say why it failed"))]
        return BatchState(
            id=batch.id,
            ended=batch.status in END_STATES,
            total=counts.total if counts else 0,
            done=counts.completed + counts.failed if counts else 0,
            created=float(batch.created_at),
            name=(batch.metadata or {}).get(NAME),
            refusals=tuple(refusals),
        )
