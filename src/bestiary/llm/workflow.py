"""Work that asks language models as it goes, and what carries the questions there and back.

An exchange is a generator: it yields what it asks, is sent the outcomes, and returns what it came
to. It knows nothing of rates, batches, money or other exchanges, and a rerun that finds every
answer in the ledger takes the same way without asking anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from bestiary.errors import BestiaryError, attempt
from bestiary.llm.ledger import Ledger, UsageTag
from bestiary.llm.request import Answer, ModelRequest, Outcome

T = TypeVar("T")


@dataclass(frozen=True)
class RequestGroup:
    """Requests of one stage, which do not wait for each other."""

    stage: str
    requests: Sequence[ModelRequest]


Outcomes = list[list[Outcome]]
"""Of each ask, one a request."""
Workflow = Generator[list[RequestGroup], Outcomes, T]


@dataclass(frozen=True)
class Job(Generic[T]):
    """A workflow to complete."""

    name: str
    """Identifies it among its results."""
    behavior: str
    """What its requests are accounted to."""
    workflow: Workflow[T]


class JobResult(NamedTuple, Generic[T]):
    """What a job came to: its workflow's result, or the error that ended it."""

    name: str
    value: T | BestiaryError


class Caller(Protocol):
    """Asks requests that no answer is there for."""

    async def ask(self, requests: Sequence[ModelRequest], purpose: UsageTag) -> list[Outcome]:
        """Outcomes in order; an answer is committed by then."""
        ...

    def flush(self) -> None:
        """Hear that everybody waits for an answer, so that no further request will come."""
        ...


def run_without_models(exchange: Workflow[T]) -> T:
    """The result of an exchange that asks nobody."""
    try:
        asked = next(exchange)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError(f"nobody is there to ask: {[ask.stage for ask in asked]}")


class LocalRunner:
    """Runs workflows that ask no model, one after another."""

    def run(
        self, jobs: Iterable[Job[T]], *, heartbeat: Callable[[], None] = lambda: None
    ) -> Iterator[JobResult[T]]:
        """Complete each workflow; an error that ends one job is its result."""
        for job in jobs:
            yield JobResult(job.name, attempt(partial(run_without_models, job.workflow)))

    def describe(self) -> str:
        """Nothing is paid."""
        return ""


def join(exchanges: Sequence[Workflow[T]]) -> Workflow[list[T]]:
    """Several exchanges as one: what they ask at the same time is asked together."""
    results: dict[int, T] = {}
    told: dict[int, Outcomes | None] = dict.fromkeys(range(len(exchanges)))
    while True:
        asked: dict[int, list[RequestGroup]] = {}
        for number, outcomes in told.items():
            try:
                asked[number] = exchanges[number].send(outcomes)  # type: ignore[arg-type]
            except StopIteration as end:
                results[number] = end.value
        if not asked:
            return [results[number] for number in range(len(exchanges))]
        found = yield [ask for asks in asked.values() for ask in asks]
        share = iter(found)
        told = {number: [next(share) for _ in asks] for number, asks in asked.items()}


class _Returned(NamedTuple):
    """The value that a workflow returned."""

    value: Any


def _advance(workflow: Workflow[T], outcomes: Outcomes | None) -> list[RequestGroup] | _Returned:
    """Run a workflow up to its next requests, or to its end."""
    try:
        return workflow.send(outcomes)  # type: ignore[arg-type]
    except StopIteration as end:
        return _Returned(end.value)


@dataclass
class Meter:
    """What has been asked and answered in this run."""

    answered: int = 0
    tokens: int = 0


class Scheduler:
    """Carries many exchanges at once: answers of before from the ledger, others from a caller."""

    def __init__(self, ledger: Ledger, caller: Caller, *, at_once: int, meter: Meter) -> None:
        self._ledger = ledger
        self._caller = caller
        self._at_once = at_once
        self._meter = meter
        self._flying: dict[str, asyncio.Future[Outcome]] = {}
        self._alive = self._waiting = 0

    async def run(self, jobs: Iterable[Job[T]]) -> AsyncGenerator[JobResult[T], None]:
        """Complete every workflow, `at_once` at a time, and yield each result as it comes.

        An error that ends one job is its result; an error that ends the run is raised.
        """
        todo = iter(jobs)
        results: asyncio.Queue[JobResult[T] | None] = asyncio.Queue()
        workers = [asyncio.create_task(self._work(todo, results)) for _ in range(self._at_once)]
        finishing = asyncio.gather(*workers)
        finishing.add_done_callback(lambda _: results.put_nowait(None))
        try:
            while (result := await results.get()) is not None:
                yield result
            await finishing
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, finishing, return_exceptions=True)

    async def _work(
        self, todo: Iterable[Job[T]], results: asyncio.Queue[JobResult[T] | None]
    ) -> None:
        for job in todo:
            self._alive += 1
            try:
                value = await self._complete(job)
                results.put_nowait(JobResult(job.name, value))
            finally:
                self._alive -= 1
                self._flush()

    async def _complete(self, job: Job[T]) -> T | BestiaryError:
        outcomes: Outcomes | None = None
        while True:
            step = attempt(partial(_advance, job.workflow, outcomes))
            if isinstance(step, BestiaryError):
                return step
            if isinstance(step, _Returned):
                value: T = step.value
                return value
            self._waiting += 1
            try:
                answers = [self._answer(group, job.behavior) for group in step]
                outcomes = list(await asyncio.gather(*answers))
            finally:
                self._waiting -= 1

    async def _answer(self, ask: RequestGroup, behavior: str) -> list[Outcome]:
        """Outcomes of requests, of which each is asked once however many exchanges want it."""
        purpose = UsageTag(behavior, ask.stage)
        keys = [request.key for request in ask.requests]
        found: dict[str, Outcome] = {**self._ledger.find(keys)}
        self._count_replays(purpose, ask, found)
        wanted = {r.key: r for r in ask.requests if r.key not in found}
        theirs = {key: self._flying[key] for key in wanted if key in self._flying}
        found |= await self._ask([r for key, r in wanted.items() if key not in theirs], purpose)
        for key, flight in theirs.items():
            found[key] = await asyncio.shield(flight)
        return [found[key] for key in keys]

    def _count_replays(
        self, purpose: UsageTag, ask: RequestGroup, found: Mapping[str, Outcome]
    ) -> None:
        replayed = [request for request in ask.requests if request.key in found]
        if replayed:
            self._ledger.count_replays(purpose, replayed[0].model, len(replayed))

    async def _ask(self, requests: Sequence[ModelRequest], purpose: UsageTag) -> dict[str, Outcome]:
        loop = asyncio.get_running_loop()
        flights = {request.key: loop.create_future() for request in requests}
        self._flying |= flights
        self._flush()
        try:
            outcomes = await self._caller.ask(requests, purpose)
        except BaseException as error:
            for flight in flights.values():
                flight.set_exception(error)
                flight.exception()  # seen: whether or not somebody else waits for it
            raise
        finally:
            for key in flights:
                del self._flying[key]
        for flight, outcome in zip(flights.values(), outcomes, strict=True):
            flight.set_result(outcome)
            self._count(outcome)
        return dict(zip(flights, outcomes, strict=True))

    def _count(self, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            self._meter.answered += 1
            self._meter.tokens += outcome.usage.input + outcome.usage.output

    def _flush(self) -> None:
        if self._alive and self._waiting == self._alive:
            self._caller.flush()
