"""A language backend at work: its ledger, its providers, and one caller for every exchange."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

from bestiary.llm.batch import BatchDispatcher, BatchQueue, PollPolicy
from bestiary.llm.ledger import HeldError, Ledger
from bestiary.llm.limiter import Limiter
from bestiary.llm.models import LanguageModel
from bestiary.llm.online import LedgerWriter, ModelQueue, OnlineDispatcher
from bestiary.llm.price import PICO, read_price, show_dollars
from bestiary.llm.provider import AuthError, Provider
from bestiary.llm.workflow import Caller, Job, JobResult, Meter, Scheduler

T = TypeVar("T")
Mode = Literal["single", "batch"]
AT_ONCE: Mapping[Mode, int] = {"single": 32, "batch": 1000}
"""Corpora that are written at the same time: enough to keep the servers busy."""
HEARTBEAT_SECONDS = 1.0
MEGABYTE = 10**6


@dataclass(frozen=True)
class LLMConfig:
    """How language models are asked."""

    models: Mapping[str, LanguageModel]
    """By the name that requests give."""
    ledger: Path
    mode: Mode
    budget: float | None = None
    """US dollars over everything that the ledger holds."""
    poll: PollPolicy = field(default_factory=PollPolicy)
    log: Callable[[str], None] = lambda line: None
    """Hears what becomes of batches."""


class LLMClient:
    """Runs workflows that ask language models, as its configuration says."""

    def __init__(self, config: LLMConfig) -> None:
        self._config = config
        self._meter = Meter()
        self._ledger: Ledger | None = None
        self._started = time.monotonic()

    def run(
        self, jobs: Iterable[Job[T]], *, heartbeat: Callable[[], None] = lambda: None
    ) -> Iterator[JobResult[T]]:
        """Complete workflows and yield each result as it comes.

        `heartbeat` is called every second while requests are running. Without any job no provider
        is reached and no key is needed. Raises BackendError if none of the jobs can go on.
        """
        todo = iter(jobs)
        first = next(todo, None)
        if first is None:
            return
        with asyncio.Runner() as loop:
            results = self._run(chain((first,), todo), heartbeat)
            try:
                while (result := loop.run(_next(results))) is not None:
                    yield result
            finally:
                loop.run(results.aclose())

    def describe(self) -> str:
        """Requests and tokens a second, and the money spent and left."""
        if self._ledger is None:
            return ""
        meter, seconds = self._meter, time.monotonic() - self._started
        taken, budget = self._ledger.taken(), self._ledger.budget
        left = "" if budget is None else f", {show_dollars(budget - taken)} left"
        return (
            f"{meter.answered / seconds:.1f} requests/s, {meter.tokens / seconds:,.0f} tokens/s, "
            f"{show_dollars(taken)} spent or reserved{left}"
        )

    async def _run(
        self, jobs: Iterable[Job[T]], heartbeat: Callable[[], None]
    ) -> AsyncGenerator[JobResult[T], None]:
        config = self._config
        budget = None if config.budget is None else round(config.budget * PICO)
        async with AsyncExitStack() as stack:
            ledger = Ledger(config.ledger, budget=budget)
            stack.callback(ledger.close)
            providers = {name: open_provider(name, model) for name, model in config.models.items()}
            for provider in providers.values():
                stack.push_async_callback(provider.close)
            caller = await self._open_caller(stack, ledger, providers)
            self._ledger, self._started = ledger, time.monotonic()
            stack.callback(self._forget_ledger)
            beating = asyncio.create_task(_beat(heartbeat))
            stack.callback(beating.cancel)
            scheduler = Scheduler(ledger, caller, at_once=AT_ONCE[config.mode], meter=self._meter)
            async with aclosing(scheduler.run(jobs)) as results:
                async for result in results:
                    yield result

    def _forget_ledger(self) -> None:
        self._ledger = None

    async def _open_caller(
        self, stack: AsyncExitStack, ledger: Ledger, providers: Mapping[str, Provider]
    ) -> Caller:
        """The caller of the mode; batches that an earlier run left open are seen through first."""
        if self._config.mode == "batch":
            return await self._open_batches(stack, ledger, providers)
        if ledger.list_open():
            with suppress(HeldError):  # whoever holds them sees them through
                await self._open_batches(stack, ledger, providers)
        singles = OnlineDispatcher(
            {name: self._queue(name, providers[name]) for name in providers}, LedgerWriter(ledger)
        )
        stack.push_async_callback(singles.close)
        return singles

    async def _open_batches(
        self, stack: AsyncExitStack, ledger: Ledger, providers: Mapping[str, Provider]
    ) -> BatchDispatcher:
        stack.enter_context(ledger.hold_batches())
        batches = BatchDispatcher(
            {name: self._batch_queue(name, providers[name]) for name in providers},
            ledger,
            poll=self._config.poll,
            log=self._config.log,
        )
        stack.push_async_callback(batches.close)
        await batches.finish_open()
        return batches

    def _queue(self, name: str, provider: Provider) -> ModelQueue:
        model = self._config.models[name]
        limiter = Limiter(most=model.in_flight)
        return ModelQueue(name, provider, read_price(model, batch=False), limiter)

    def _batch_queue(self, name: str, provider: Provider) -> BatchQueue:
        model = self._config.models[name]
        return BatchQueue(
            name,
            provider,
            read_price(model, batch=True),
            most_requests=model.batch_requests,
            most_bytes=model.batch_megabytes * MEGABYTE,
        )


async def _next(results: AsyncIterator[JobResult[T]]) -> JobResult[T] | None:
    """The next result; None at the end."""
    return await anext(results, None)


async def _beat(heartbeat: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        heartbeat()


def open_provider(name: str, model: LanguageModel) -> Provider:
    """Reach a model; raises AuthError where its key is not in the environment."""
    key = read_key(name, model)
    if model.provider == "anthropic":
        from bestiary.llm.anthropic import AnthropicProvider

        return AnthropicProvider(key=key, url=model.url, timeout=model.timeout)
    from bestiary.llm.openai import OpenAIProvider

    return OpenAIProvider(key=key, url=model.url, timeout=model.timeout)


def read_key(name: str, model: LanguageModel) -> str:
    """The key of a model's server, from the environment alone."""
    if model.key is None:
        return "none"  # the SDKs insist on one
    key = os.environ.get(model.key, "").strip()
    if not key:
        raise AuthError(
            f"{name}: the environment has no {model.key}; export it, or choose a model that wants "
            "no key"
        )
    return key
