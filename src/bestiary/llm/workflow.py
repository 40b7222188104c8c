"""Workflows that query language models, and the scheduler that runs many of them at once.

A workflow is a generator: it yields request groups, receives their outcomes, and returns its
result. It knows nothing of rate limits, batches, costs or other workflows, and a rerun that finds
every answer in the ledger takes the same path without sending a request.
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
    """Requests of one stage that do not depend on each other."""

    stage: str
    requests: Sequence[ModelRequest]


Outcomes = list[list[Outcome]]
"""For each group, one outcome per request."""
Workflow = Generator[list[RequestGroup], Outcomes, T]


@dataclass(frozen=True)
class Job(Generic[T]):
    """A workflow to complete."""

    name: str
    """Identifies it among its results."""
    project: str
    """The project its costs are charged to."""
    workflow: Workflow[T]


class JobResult(NamedTuple, Generic[T]):
    """The result of a job's workflow, or the error that ended it."""

    name: str
    value: T | BestiaryError


class Dispatcher(Protocol):
    """Sends requests that the ledger has no answer for."""

    async def ask(self, requests: Sequence[ModelRequest], tag: UsageTag) -> list[Outcome]:
        """Outcomes in order; answers are committed to the ledger before they are returned."""
        ...

    def flush(self) -> None:
        """Every workflow waits for an answer: no further request will come until one arrives."""
        ...


def run_without_models(workflow: Workflow[T]) -> T:
    """The result of a workflow that sends no request; raises AssertionError if it sends one."""
    try:
        groups = next(workflow)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError(f"no model to ask: {[group.stage for group in groups]}")


class LocalRunner:
    """Runs workflows that send no requests, one after another."""

    def run(
        self, jobs: Iterable[Job[T]], *, heartbeat: Callable[[], None] = lambda: None
    ) -> Iterator[JobResult[T]]:
        """Complete each workflow; an error that ends one job is its result."""
        for job in jobs:
            yield JobResult(job.name, attempt(partial(run_without_models, job.workflow)))

    def describe(self) -> str:
        """Empty: local work costs nothing."""
        return ""


def join(workflows: Sequence[Workflow[T]]) -> Workflow[list[T]]:
    """Several workflows as one, which sends their concurrent requests together."""
    results: dict[int, T] = {}
    received: dict[int, Outcomes | None] = dict.fromkeys(range(len(workflows)))
    while True:
        sent: dict[int, list[RequestGroup]] = {}
        for number, outcomes in received.items():
            try:
                sent[number] = workflows[number].send(outcomes)  # type: ignore[arg-type]
            except StopIteration as end:
                results[number] = end.value
        if not sent:
            return [results[number] for number in range(len(workflows))]
        found = iter((yield [group for groups in sent.values() for group in groups]))
        received = {number: [next(found) for _ in groups] for number, groups in sent.items()}


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
    """Answers and tokens received in this run."""

    answered: int = 0
    tokens: int = 0


class Scheduler:
    """Runs many workflows at once; requests the ledger cannot answer go to a dispatcher."""

    def __init__(
        self, ledger: Ledger, dispatcher: Dispatcher, *, at_once: int, meter: Meter
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._at_once = at_once
        self._meter = meter
        self._in_flight: dict[str, asyncio.Future[Outcome]] = {}
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
                answers = [self._answer(group, job.project) for group in step]
                outcomes = list(await asyncio.gather(*answers))
            finally:
                self._waiting -= 1

    async def _answer(self, group: RequestGroup, project: str) -> list[Outcome]:
        """Outcomes of a group; a request that several workflows share is sent once."""
        tag = UsageTag(project, group.stage)
        keys = [request.key for request in group.requests]
        found: dict[str, Outcome] = {**self._ledger.find(keys)}
        self._count_replays(tag, group, found)
        wanted = {r.key: r for r in group.requests if r.key not in found}
        theirs = {key: self._in_flight[key] for key in wanted if key in self._in_flight}
        found |= await self._ask([r for key, r in wanted.items() if key not in theirs], tag)
        for key, flight in theirs.items():
            found[key] = await asyncio.shield(flight)
        return [found[key] for key in keys]

    def _count_replays(
        self, tag: UsageTag, group: RequestGroup, found: Mapping[str, Outcome]
    ) -> None:
        replayed = [request for request in group.requests if request.key in found]
        if replayed:
            self._ledger.count_replays(tag, replayed[0].model, len(replayed))

    async def _ask(self, requests: Sequence[ModelRequest], tag: UsageTag) -> dict[str, Outcome]:
        loop = asyncio.get_running_loop()
        flights = {request.key: loop.create_future() for request in requests}
        self._in_flight |= flights
        self._flush()
        try:
            outcomes = await self._dispatcher.ask(requests, tag)
        except BaseException as error:
            for flight in flights.values():
                flight.set_exception(error)
                flight.exception()  # mark it retrieved: another workflow may not be waiting for it
            raise
        finally:
            for key in flights:
                del self._in_flight[key]
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
            self._dispatcher.flush()
