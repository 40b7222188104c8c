"""The client: runs workflows or plain requests with a ledger, rate limits and a budget."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

from bestiary.errors import BackendError, BestiaryError
from bestiary.llm.batch import BatchDispatcher, BatchQueue
from bestiary.llm.batch_book import BatchBook, HeldError
from bestiary.llm.exchange import FileDispatcher
from bestiary.llm.keys import read_key
from bestiary.llm.ledger import Ledger, UsageTag
from bestiary.llm.limiter import Limiter
from bestiary.llm.models import LanguageModel
from bestiary.llm.online import LedgerWriter, ModelQueue, OnlineDispatcher
from bestiary.llm.price import PICO, read_price, show_dollars
from bestiary.llm.provider import Provider
from bestiary.llm.remote_batch import PollPolicy
from bestiary.llm.request import ModelRequest, Outcome
from bestiary.llm.workflow import (
    Dispatcher,
    Job,
    JobResult,
    Meter,
    RequestGroup,
    Scheduler,
    Workflow,
)

T = TypeVar("T")
Mode = Literal["single", "batch"]
AT_ONCE: Mapping[Mode, int] = {"single": 32, "batch": 1000}
"""Workflows that run at the same time: enough to keep the servers busy."""
CONNECTION_VARIABLES = tuple(
    variant
    for name in (
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"),
    )
    for variant in (name, name.lower())
)
"""Where the SDKs' clients look for proxies, certificates, and the address of their own server."""
HEARTBEAT_SECONDS = 1.0
MEGABYTE = 10**6


@dataclass(frozen=True)
class LLMConfig:
    """The models, the ledger and the limits of a client."""

    models: Mapping[str, LanguageModel]
    """By the name that requests use."""
    ledger: Path
    mode: Mode
    budget: float | None = None
    """Spending cap in US dollars over everything the ledger holds; None for no cap."""
    poll: PollPolicy = field(default_factory=PollPolicy)
    log: Callable[[str], None] = lambda line: None
    """Receives one line for each change of a batch."""


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

        `heartbeat` is called every second while requests are running. Without jobs, no provider is
        reached and no key is needed. Raises BackendError if an error ends the run; requests in
        flight are then still answered and kept.
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

    def ask(self, requests: Sequence[ModelRequest], *, tag: UsageTag) -> list[Outcome]:
        """Send requests that do not depend on each other; return their outcomes in order.

        Their costs are charged to `tag`; requests that the ledger holds answers to cost nothing.
        Raises BackendError if the budget, the ledger or a server ends the run.
        """
        return self.complete(tag.project, _ask_once(RequestGroup(tag.stage, requests)))

    def complete(self, project: str, workflow: Workflow[T]) -> T:
        """Run one workflow, whose costs are charged to `project`; returns its result.

        Raises its error, and BackendError if the budget, the ledger or a server ends the run.
        """
        (result,) = self.run([Job(project, project, workflow)])
        if isinstance(result.value, BestiaryError):
            raise result.value
        return result.value

    def describe(self) -> str:
        """Requests and tokens per second, and the money spent and left."""
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
            folder = self._find_folder()
            served = {} if folder else config.models
            providers = {name: open_provider(name, model) for name, model in served.items()}
            for provider in providers.values():
                stack.push_async_callback(provider.close)
            dispatcher = await self._open_dispatcher(stack, ledger, providers, folder)
            self._ledger, self._started = ledger, time.monotonic()
            stack.callback(self._forget_ledger)
            heartbeats = asyncio.create_task(_call_repeatedly(heartbeat))
            stack.callback(heartbeats.cancel)
            at_once = AT_ONCE["batch" if folder else config.mode]
            scheduler = Scheduler(ledger, dispatcher, at_once=at_once, meter=self._meter)
            async with aclosing(scheduler.run(jobs)) as results:
                async for result in results:
                    yield result

    def _find_folder(self) -> Path | None:
        """Where requests are answered in files; None if servers answer them."""
        places = {
            model.url if model.provider == "file" else None
            for model in self._config.models.values()
        }
        if len(places) > 1:
            raise BackendError(
                f"{' and '.join(self._config.models)} are answered in different places",
                "name the same folder for both, or a server for both",
                code="models-mixed",
                models=sorted(self._config.models),
            )
        (place,) = places
        return None if place is None else Path(place)

    def _forget_ledger(self) -> None:
        self._ledger = None

    async def _open_dispatcher(
        self,
        stack: AsyncExitStack,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        folder: Path | None,
    ) -> Dispatcher:
        """The dispatcher of the mode, after finishing the batches that earlier runs left open."""
        if folder is not None:
            return await stack.enter_async_context(FileDispatcher(folder, ledger))
        if self._config.mode == "batch":
            return await self._open_batches(stack, ledger, providers)
        if BatchBook(ledger).list_open():
            with suppress(HeldError):  # the process that holds them finishes them
                await self._open_batches(stack, ledger, providers)
        dispatcher = OnlineDispatcher(
            {name: self._queue(name, providers[name]) for name in providers}, LedgerWriter(ledger)
        )
        return await stack.enter_async_context(dispatcher)

    async def _open_batches(
        self, stack: AsyncExitStack, ledger: Ledger, providers: Mapping[str, Provider]
    ) -> BatchDispatcher:
        stack.enter_context(BatchBook(ledger).hold())
        dispatcher = BatchDispatcher(
            {name: self._batch_queue(name, providers[name]) for name in providers},
            ledger,
            poll=self._config.poll,
            log=self._config.log,
        )
        await stack.enter_async_context(dispatcher)
        await dispatcher.finish_open()
        return dispatcher

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


def _ask_once(group: RequestGroup) -> Workflow[list[Outcome]]:
    (outcomes,) = yield [group]
    return outcomes


async def _next(results: AsyncIterator[JobResult[T]]) -> JobResult[T] | None:
    """The next result; None at the end."""
    return await anext(results, None)


async def _call_repeatedly(heartbeat: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        heartbeat()


def open_provider(name: str, model: LanguageModel) -> Provider:
    """Open a model's provider.

    Raises AuthError without a well-formed key in the environment, and BackendError if the
    environment states a proxy, certificates, or a server's address that cannot be used.
    """
    if model.provider == "file":
        raise BackendError(
            f"{name} is answered in files, and has no server",
            f"build with it; its requests are written to {model.url}",
            code="server-missing",
            model=name,
        )
    key = read_key(name, model)
    from httpx2 import InvalidURL

    try:
        return _open_sdk(model, key)
    except (OSError, ValueError, InvalidURL) as cause:
        stated = [one for one in CONNECTION_VARIABLES if one in os.environ]
        raise BackendError(
            f"no connection can be set up as the environment states ({cause})",
            f"correct or unset {' and '.join(stated)}"
            if stated
            else "correct the proxy and the certificates in the settings of your system",
            code="connection-settings",
            variables=stated,
        ) from cause


def _open_sdk(model: LanguageModel, key: str) -> Provider:
    if model.provider == "anthropic":
        from bestiary.llm.anthropic import AnthropicProvider

        return AnthropicProvider(key=key, url=model.url, timeout=model.timeout)
    from bestiary.llm.openai import OpenAIProvider

    default = "max_completion_tokens" if model.url is None else "max_tokens"
    limit = model.token_limit or default
    return OpenAIProvider(key=key, url=model.url, timeout=model.timeout, token_limit=limit)
