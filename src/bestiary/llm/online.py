"""Single calls: as many in flight as their server bears, each reserved before it is sent."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from bestiary.errors import BackendError
from bestiary.llm.ledger import Ledger, Reservation, Settlement, UsageTag
from bestiary.llm.limiter import Limiter, Ticket
from bestiary.llm.price import Price
from bestiary.llm.provider import (
    AuthError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    Provider,
    ProviderFault,
    RateLimited,
)
from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered

COMMIT_SECONDS = 0.005
"""How long entries of the ledger are gathered for one transaction."""
TRIES = 8
"""Calls for one answer; refusals for the rate, and calls that reached nobody, are not counted."""
PATIENCE_SECONDS = 600.0
"""How long nobody may be reached before the run gives up; a machine asleep counts no seconds."""
CACHE_SECONDS = 240.0
"""For which a provider surely keeps a beginning in its cache after it was last read: five minutes
by its word, less what a request may wait on its way."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before the second try, and at most: each pause is twice the last, with jitter."""


class BudgetError(BackendError):
    """The budget has no room for what is to be asked next."""

    def __init__(self, ledger: Ledger, wanted: str = "another request") -> None:
        super().__init__(
            f"{ledger.path}: the budget has no room for {wanted}",
            "raise it with --budget and run the same command again; all answers are kept",
            code="budget-exhausted",
            path=ledger.path,
            wanted=wanted,
        )


class LedgerWriter:
    """Writes what many requests enter into the ledger, together."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._reserving: list[tuple[Reservation, asyncio.Future[int]]] = []
        self._settling: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._due: asyncio.TimerHandle | None = None
        self._closed = False
        self._open = 0
        """Reservations of this process that are not settled."""

    async def reserve(self, reservation: Reservation) -> int:
        """Reserve, once there is room; BudgetError where nothing in flight can make any."""
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reserving.append((reservation, told))
        self._schedule()
        return await told

    async def settle(self, settlement: Settlement) -> None:
        """Commit an answer and its bill."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append((settlement, told))
        self._schedule()
        await told

    def close(self) -> None:
        """Reserve nothing more; whoever waits for a reservation is canceled."""
        self._closed = True
        self._write()

    def forget(self) -> None:
        """Hear that a reservation stays open: its answer was lost on the way."""
        self._open -= 1
        self._schedule()

    def _schedule(self) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(COMMIT_SECONDS, self._write)

    def _write(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        reserving, self._reserving = self._reserving, []
        settling, self._settling = self._settling, []
        if self._closed:
            for _, reserved in reserving:
                reserved.cancel()
            reserving = []
        if not reserving and not settling:
            return
        try:
            spends = self._ledger.settle_and_reserve(
                [one for one, _ in settling], [one for one, _ in reserving]
            )
        except BaseException as error:
            for told in [told for _, told in reserving]:
                fail(told, error)
            for settled in [told for _, told in settling]:
                fail(settled, error)
            return
        self._open -= len(settling)
        for _, settled in settling:
            if not settled.done():
                settled.set_result(None)
        for (reservation, reserved), spend in zip(reserving, spends, strict=True):
            if spend is None:
                self._reserving.append((reservation, reserved))
                continue
            self._open += 1
            if not reserved.done():
                reserved.set_result(spend)
        if self._reserving and not self._open:
            for _, reserved in self._reserving:
                fail(reserved, BudgetError(self._ledger))
            self._reserving = []


@dataclass
class Call:
    """A request on its way to an answer."""

    request: ModelRequest
    tag: UsageTag
    outcome: asyncio.Future[Outcome]
    tries: int = 0


@dataclass
class ModelQueue:
    """One model: whom to ask, what it bears and what it costs."""

    name: str
    provider: Provider
    price: Price
    limiter: Limiter
    unreached_since: float | None = None
    """Since when nobody is reached; None while somebody is."""
    waiting: deque[Call] = field(default_factory=deque)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    _read: dict[str, float] = field(default_factory=dict)
    """When the provider last read each beginning that it caches."""
    _held: dict[str, list[Call]] = field(default_factory=dict)
    """Calls that follow the first of their beginning once that is answered: any sooner they would
    not find it in the cache, and each would pay for writing it there."""

    def add(self, call: Call) -> None:
        """Let a call stand in queue; one whose beginning is on its way already waits for that."""
        beginning = call.request.system
        if call.request.shared and not self._is_cached(beginning):
            if beginning in self._held:
                self._held[beginning].append(call)
                return
            self._held[beginning] = []
        self.waiting.append(call)
        self.more.set()

    def add_again(self, call: Call) -> None:
        """Put a call that is to be tried again before all others."""
        self.waiting.appendleft(call)
        self.more.set()

    def finish(self, call: Call, *, answered: bool) -> None:
        """Hear that a call is over; those that waited for it stand in queue now."""
        beginning = call.request.system
        if call.request.shared:
            if answered:
                self._read[beginning] = time.monotonic()
            self.waiting.extend(self._held.pop(beginning, ()))
            self.more.set()

    def _is_cached(self, beginning: str) -> bool:
        read = self._read.get(beginning)
        return read is not None and time.monotonic() - read < CACHE_SECONDS


class OnlineDispatcher:
    """Asks requests one by one, many at once."""

    def __init__(self, queues: Mapping[str, ModelQueue], writer: LedgerWriter) -> None:
        self._queues = queues
        self._writer = writer
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers = [asyncio.create_task(self._serve(queue)) for queue in queues.values()]

    async def ask(self, requests: Sequence[ModelRequest], tag: UsageTag) -> list[Outcome]:
        """Answers that are committed, in order, or why there is none."""
        loop = asyncio.get_running_loop()
        calls = [Call(request, tag, loop.create_future()) for request in requests]
        for call in calls:
            self._queues[call.request.model].add(call)
        outcomes = await asyncio.gather(*(call.outcome for call in calls), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]

    def flush(self) -> None:
        """Nothing is held back here."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Send nothing more. Requests in flight, which are billed, are still answered and kept.

        When the run is canceled, as by Ctrl-C, they are given up too.
        """
        for server in self._servers:
            server.cancel()
        self._writer.close()
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._servers, *self._tasks, return_exceptions=True)

    async def _serve(self, queue: ModelQueue) -> None:
        """Let one call in after another, as the window has room."""
        while True:
            while not queue.waiting:
                queue.more.clear()
                await queue.more.wait()
            ticket = await queue.limiter.enter()
            task = asyncio.create_task(self._call(queue, queue.waiting.popleft(), ticket))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call(self, queue: ModelQueue, call: Call, ticket: Ticket) -> None:
        """One call; where another is worth it, it stands in queue again, first."""
        try:
            result = await self._try(queue, call, ticket)
        except Exception as error:  # whatever it is: somebody waits for the outcome
            fail(call.outcome, error)
            queue.finish(call, answered=False)
            return
        if isinstance(result, float):
            asyncio.get_running_loop().call_later(result, queue.add_again, call)
            return
        if not call.outcome.done():  # canceled where an error has ended the run
            call.outcome.set_result(result)
        queue.finish(call, answered=isinstance(result, Answer))

    async def _try(self, queue: ModelQueue, call: Call, ticket: Ticket) -> Outcome | float:
        """Ask once; returns the outcome, or the seconds to wait before the next try."""
        bound = queue.price.bound(call.request)
        try:
            spend = await self._writer.reserve(Reservation(call.tag, queue.name, bound))
            try:
                answer = await queue.provider.ask(call.request)
            except ProviderFault as fault:
                return await self._handle_fault(queue, call, ticket, spend, fault)
            except AuthError:
                await self._writer.settle(Settlement(spend))
                raise
            queue.unreached_since = None
            queue.limiter.answered(ticket)
        finally:
            queue.limiter.leave()
        bill = queue.price.bill(answer.usage)
        await self._writer.settle(Settlement(spend, bill, call.request.key, answer))
        return answer

    async def _handle_fault(
        self, queue: ModelQueue, call: Call, ticket: Ticket, spend: int, fault: ProviderFault
    ) -> Unanswered | float:
        """What a fault means for its reservation, its queue and its next try."""
        if fault.billed:
            self._writer.forget()
        else:
            await self._writer.settle(Settlement(spend))
        if isinstance(fault, ConnectionFailed):
            return self._pause_unreached(queue, fault)
        queue.unreached_since = None
        if isinstance(fault, RateLimited):
            queue.limiter.refused(ticket, retry_after=fault.retry_after)
            return 0.0
        if isinstance(fault, NotFound):
            raise AuthError(
                f"{queue.name}: the server does not know this model: {fault}",
                "correct its name or url in the model file",
                code="model-unknown",
                model=queue.name,
            )
        call.tries += 1
        if isinstance(fault, InvalidRequest) or call.tries == TRIES:
            return Unanswered(reason=str(fault))
        return choose_pause(call.tries, fault.retry_after)

    def _pause_unreached(self, queue: ModelQueue, fault: ConnectionFailed) -> float:
        now = time.monotonic()
        queue.unreached_since = now if queue.unreached_since is None else queue.unreached_since
        away = now - queue.unreached_since
        if away > PATIENCE_SECONDS:
            raise BackendError(
                f"{queue.name}: server unreachable for {away:.0f} s ({fault})",
                "check the network and the url, and run the same command again; all answers are "
                "kept",
                code="server-unreachable",
                model=queue.name,
                seconds=away,
            )
        return choose_pause(3, None)


def fail(told: asyncio.Future[Any], error: BaseException) -> None:
    """Tell an error to whoever still waits."""
    if not told.done():
        told.set_exception(error)


def choose_pause(tries: int, after: float | None) -> float:
    """Seconds before the next try: what the server asks for, else twice the last, with jitter."""
    if after is not None:
        return after
    return random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**tries)
