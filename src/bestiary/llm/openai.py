"""OpenAI and every server with its chat completions API: vLLM, llama.cpp, Ollama, and others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import httpx2
import openai
from openai.types import Batch
from pydantic import BaseModel, Field, ValidationError

from bestiary.llm.provider import BatchItem, BatchResult, BatchState
from bestiary.llm.request import Answer, ModelRequest, Usage
from bestiary.llm.sdk import UNLIMITED, faults, hide

END_STATES = ("completed", "failed", "expired", "cancelled")
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
NAME = "bestiary"
"""The key of our name for a batch in its metadata."""
FAULTS: dict[str, Literal["expired", "canceled"]] = {
    "batch_expired": "expired",
    "batch_cancelled": "canceled",
}


class ResponseMessage(BaseModel):
    """The assistant's message in a completion."""

    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One choice of a completion."""

    message: ResponseMessage
    finish_reason: str | None = None


class PromptDetails(BaseModel):
    """How prompt tokens are billed."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class TokenCounts(BaseModel):
    """The tokens of a completion."""

    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptDetails | None = None


class Completion(BaseModel):
    """The fields of a chat completion that are used; any server's completion has them."""

    id: str = ""
    choices: list[Choice] = Field(min_length=1)
    usage: TokenCounts | None = None


class OpenAIProvider:
    """Calls the official SDK, with the SDK's own retries off."""

    def __init__(self, *, key: str, url: str | None, timeout: float) -> None:
        self._key = key
        # Other servers know only the older name.
        self._limit = "max_completion_tokens" if url is None else "max_tokens"
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
                "/chat/completions", cast_to=httpx2.Response, body=self._write_params(request)
            )
            return self._read(json.loads(response.content))

    async def submit(self, items: Sequence[BatchItem], *, name: str) -> BatchState:
        """Start a batch that stores our name for it."""
        lines = (
            {
                "custom_id": item.custom_id,
                "method": "POST",
                "url": ENDPOINT,
                "body": self._write_params(item.request),
            }
            for item in items
        )
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
                if file is None:
                    continue
                content = await self._client.files.content(file)
                for line in content.text.split("\n"):
                    if line:
                        yield self._read_result(json.loads(line), batch_id)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    def _write_params(self, request: ModelRequest) -> dict[str, Any]:
        """The parameters of the API call; the server caches prefixes on its own."""
        turns = [{"role": "system", "content": request.system}]
        turns += [{"role": turn.role, "content": turn.content} for turn in request.messages]
        params: dict[str, Any] = {
            "model": request.model_on_wire,
            "messages": turns,
            self._limit: request.max_tokens,
        }
        if request.reply_schema is not None:
            schema = {"name": "reply", "schema": request.reply_schema, "strict": True}
            params["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.temperature is not None:
            params["temperature"] = request.temperature
        return params

    def _read(self, body: object, *, batch: str | None = None) -> Answer:
        """The answer in a completion; a server that reports no tokens is assumed to bill none."""
        try:
            completion = Completion.model_validate(body)
        except ValidationError:
            raise ValueError("the body is not a completion") from None
        choice, usage = completion.choices[0], completion.usage
        details = usage.prompt_tokens_details if usage else None
        read = (details.cached_tokens or 0) if details else 0
        written = (details.cache_write_tokens or 0) if details else 0
        return Answer(
            text=hide(choice.message.content or "", self._key),
            stop=_read_stop(choice.finish_reason, choice.message.refusal),
            usage=Usage(
                input=usage.prompt_tokens - read - written if usage else 0,
                output=usage.completion_tokens if usage else 0,
                cache_write=written,
                cache_read=read,
            ),
            id=completion.id,
            batch=batch,
        )

    def _read_result(self, row: dict[str, Any], batch_id: str) -> BatchResult:
        """The result in one line of a batch's output or error file."""
        response = row.get("response")
        if response is not None and response["status_code"] == 200:
            try:
                answer = self._read(response["body"], batch=batch_id)
            except ValueError:
                return BatchResult(row["custom_id"], None, "unreadable")
            return BatchResult(row["custom_id"], answer, "")
        code = str((row.get("error") or {}).get("code"))
        return BatchResult(row["custom_id"], None, FAULTS.get(code, "errored"))

    def _read_batch(self, batch: Batch) -> BatchState:
        counts = batch.request_counts
        errors = (batch.errors.data if batch.errors else None) or []
        return BatchState(
            id=batch.id,
            ended=batch.status in END_STATES,
            total=counts.total if counts else 0,
            done=counts.completed + counts.failed if counts else 0,
            created=float(batch.created_at),
            name=(batch.metadata or {}).get(NAME),
            refusal=hide("; ".join(error.message or "" for error in errors), self._key),
        )


def _read_stop(reason: str | None, refusal: str | None) -> Literal["end", "length", "refusal"]:
    if refusal is not None or reason == "content_filter":
        return "refusal"
    return "length" if reason == "length" else "end"
