"""Helpers for the tests of language models: a loopback model, requests, clients, processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.fakes.models import KEY, Fault, ModelServer
from tests.fakes.models import Provider as ProviderName
from tests.forkserver import CHECKOUT, environment

from bestiary.llm.client import open_provider
from bestiary.llm.ledger import Ledger, UsageTag
from bestiary.llm.limiter import START, Limiter
from bestiary.llm.models import LanguageModel
from bestiary.llm.online import LedgerWriter, ModelQueue, OnlineDispatcher
from bestiary.llm.price import read_price
from bestiary.llm.provider import Provider
from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered
from bestiary.records import Message

T = TypeVar("T")
MODEL = "loop"
KEY_VARIABLE = "LOOP_KEY"
TAG = UsageTag("habit", "replies")
PROVIDERS: tuple[ProviderName, ...] = ("anthropic", "openai")
EACH_PROVIDER = pytest.mark.parametrize("name", PROVIDERS)
KILLED_PROVIDER = pytest.mark.parametrize(
    "name", [PROVIDERS[0], pytest.param(PROVIDERS[1], marks=pytest.mark.soak)]
)
"""A run that is killed is a process of its own, which takes its time: the soak kills both."""
LONG_SECONDS = 30.0
"""Anything that takes longer is considered hung."""


def make_model(name: ProviderName, url: str, **changes: Any) -> LanguageModel:
    """A model with the loopback server's prices; a URL that ends in /v1 is kept as it is."""
    is_loopback = name == "openai" and not url.endswith("/v1")
    fields: dict[str, Any] = {
        "provider": name,
        "url": f"{url}/openai" if is_loopback else url,
        "key": KEY_VARIABLE,
        "input": 1.0,
        "output": 5.0,
        "cache_write": 1.25,
        "cache_read": 0.1,
        "batch": 0.5,
        "timeout": 20.0,
    }
    return LanguageModel.model_validate(fields | changes)


def make_request(name: ProviderName, text: str = "How?", **changes: Any) -> ModelRequest:
    """A request with a short answer."""
    fields: dict[str, Any] = {
        "provider": name,
        "model": MODEL,
        "system": "Be brief.",
        "messages": (Message(role="user", content=text),),
        "max_tokens": 64,
    }
    return ModelRequest(**fields | changes)


def make_requests(name: ProviderName, count: int, word: str = "Why") -> list[ModelRequest]:
    """Distinct requests."""
    return [make_request(name, f"{word} no. {number}?") for number in range(count)]


def open_model(name: ProviderName, url: str, *, key: str = KEY, **changes: Any) -> Provider:
    """The loopback server's provider, opened with a key."""
    os.environ[KEY_VARIABLE] = key
    try:
        return open_provider(MODEL, make_model(name, url, **changes))
    finally:
        del os.environ[KEY_VARIABLE]


def run(work: Callable[[], Awaitable[T]], *, seconds: float = LONG_SECONDS) -> T:
    """Run a coroutine; fail if it hangs."""

    async def within() -> T:
        return await asyncio.wait_for(work(), seconds)

    return asyncio.run(within())


class OnlineClient:
    """Sends single requests through a real provider, ledger and limiter."""

    def __init__(
        self,
        name: ProviderName,
        url: str,
        ledger: Ledger,
        *,
        most: int = 64,
        start: float = START,
        **changes: Any,
    ) -> None:
        self.ledger = ledger
        self.provider = open_model(name, url, **changes)
        self.limiter = Limiter(most=most, start=start)
        price = read_price(make_model(name, url), batch=False)
        queue = ModelQueue(MODEL, self.provider, price, self.limiter)
        self._dispatcher = OnlineDispatcher({MODEL: queue}, LedgerWriter(ledger))

    async def __aenter__(self) -> OnlineClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        await self._dispatcher.__aexit__(kind, *error)
        await self.provider.close()

    async def ask(self, requests: Sequence[ModelRequest]) -> list[Outcome]:
        """Outcomes in order."""
        return await self._dispatcher.ask(requests, TAG)


def ask_all(
    name: ProviderName,
    url: str,
    ledger: Ledger,
    requests: Sequence[ModelRequest],
    *,
    seconds: float = LONG_SECONDS,
    **changes: Any,
) -> list[Outcome]:
    """Outcomes of single requests."""

    async def work() -> list[Outcome]:
        async with OnlineClient(name, url, ledger, **changes) as client:
            return await client.ask(requests)

    return run(work, seconds=seconds)


def count_answers(outcomes: Sequence[Outcome]) -> int:
    """The number of answers, which must all differ."""
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    assert len({answer.text for answer in answers}) == len(answers)
    return len(answers)


def read_reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """The reasons of the requests without an answer."""
    return [outcome.reason for outcome in outcomes if isinstance(outcome, Unanswered)]


def sum_spent(ledger: Ledger) -> tuple[int, int]:
    """Picodollars billed and unknown."""
    spent = ledger.list_spent()
    return sum(row.pico for row in spent), sum(row.unknown for row in spent)


def check_bill(ledger: Ledger, server: ModelServer) -> None:
    """The ledger agrees with the server's bill to the picodollar."""
    assert sum_spent(ledger) == (server.bill, 0)
    assert ledger.taken() == server.bill


def fail_first(times: int, fault: Fault) -> Callable[[object], Fault | None]:
    """A fault for each of the first `times` calls."""
    left = [fault] * times
    return lambda call: left.pop() if left else None


def _environment() -> dict[str, str]:
    variables = environment()
    variables["PYTHONPATH"] += os.pathsep + str(CHECKOUT)
    return variables


def start_python(code: str, *args: object, **variables: str) -> subprocess.Popen[str]:
    """Start a Python process that can import this checkout and its tests."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, args)],
        env=_environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], *, code: int = 0) -> str:
    """Wait for a process, check its exit code, and return its output."""
    with ExitStack() as stack:
        stack.callback(process.kill)
        out, err = process.communicate(timeout=LONG_SECONDS)
    assert process.returncode == code, err
    return out


class Forkserver:
    """Starts processes quickly, because they are forked with a test module already imported."""

    def __init__(self, module: str) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([module])
        with pytest.MonkeyPatch.context() as patch:
            for name, value in _environment().items():
                patch.setenv(name, value)
            forkserver.ensure_running()

    def start(self, work: Callable[..., None], *args: object) -> BaseProcess:
        """Start a process that does some work and ends."""
        process = self._context.Process(target=work, args=args, daemon=True)
        process.start()
        return process


def join(process: BaseProcess, *, code: int) -> None:
    """Wait for a process and check its exit code."""
    process.join(LONG_SECONDS)
    try:
        assert process.exitcode == code
    finally:
        process.kill()


def open_ledger(path: Path, *, budget: int | None = None) -> Ledger:
    """A ledger in a folder."""
    return Ledger(path / "ledger.sqlite", budget=budget)
