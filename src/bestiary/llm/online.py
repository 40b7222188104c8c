"""Single requests: as many in flight as the server takes, each reserved before it is sent."""

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
    NotFound,
    Provider,
    ProviderFault,
    RateLimited,
    Unreadable,
)
from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered

COMMIT_SECONDS = 0.005
"""How long the ledger's entries are gathered into one transaction."""
UNREADABLE_TRIES = 3
"""Tries before a request is given up whose answers are whole bodies that cannot be read."""
TRIES = 8
"""Tries before a request is given up; rate-limit refusals and failed connections do not count."""
PATIENCE_SECONDS = 600.0
"""How long a server may be unreachable before the run ends; a sleeping machine counts no time."""
REFUSED_SECONDS = 3600.0
"""How long a rate limit may refuse everything: one by the minute, or the hour, has passed then."""
CACHE_SECONDS = 240.0
"""How long a prefix is sure to stay cached after its last use. Providers promise five minutes; the
rest is for the time that a request may wait before it is sent."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Limits in seconds of the pauses between tries; each is twice the previous one, with jitter."""


class BudgetError(BackendError):
    """The budget has no room for the next request."""

    def __init__(self, ledger: Ledger, wanted: str = "another request") -> None:
        super().__init__(
            f"{ledger.path}: the budget has no room for {wanted}",
            "raise it with --budget and run the same command again; all answers are kept",
            code="budget-exhausted",
            path=ledger.path,
            wanted=wanted,
        )


class LedgerWriter:
    """Writes the settlements and reservations of many requests in one transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._reserving: list[tuple[Reservation, asyncio.Future[int]]] = []
        self._settling: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._in_flight = 0
        """Reservations of this process whose requests may still be answered."""

    async def reserve(self, reservation: Reservation) -> int:
        """Reserve once there is room; BudgetError if no request in flight can make room."""
        reserved: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reserving.append((reservation, reserved))
        self._schedule()
        return await reserved

    async def settle(self, settlement: Settlement) -> None:
        """Commit an answer and its bill."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append((settlement, settled))
        self._schedule()
        await settled

    def leave_open(self) -> None:
        """Leave a reservation in the ledger, because its answer was lost but may be billed."""
        self._in_flight -= 1
        self._schedule()

    def close(self) -> None:
        """Reserve nothing more: tasks that wait for a reservation are canceled."""
        self._closed = True
        self._write()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COMMIT_SECONDS, self._write)

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reserving, self._reserving = self._reserving, []
        settling, self._settling = self._settling, []
        if self._closed:
            for _, reserved in reserving:
                reserved.cancel()
            reserving = []
        try:
            spends = self._ledger.settle_and_reserve(
                [one for one, _ in settling], [one for one, _ in reserving]
            )
        except BaseException as error:
            for _, reserved in reserving:
                set_error(reserved, error)
            for _, settled in settling:
                set_error(settled, error)
            return
        self._in_flight -= len(settling)
        for _, settled in settling:
            set_result(settled, None)
        for (reservation, reserved), spend in zip(reserving, spends, strict=True):
            if spend is None:
                self._reserving.append((reservation, reserved))
                continue
            self._in_flight += 1
            set_result(reserved, spend)
        if self._reserving and not self._in_flight:
            for _, reserved in self._reserving:
                set_error(reserved, BudgetError(self._ledger))
            self._reserving = []


@dataclass
class Call:
    """A request, and the future of its outcome."""

    request: ModelRequest
    tag: UsageTag
    outcome: asyncio.Future[Outcome]
    tries: int = 0


@dataclass
class ModelQueue:
    """One model: its provider, its prices, its limiter, and the calls waiting for it."""

    name: str
    provider: Provider
    price: Price
    limiter: Limiter
    unreachable_since: float | None = None
    """When the server was first unreachable; None while it can be reached."""
    refused_since: float | None = None
    """When its rate limit began to refuse every request; None while it takes some."""
    waiting: deque[Call] = field(default_factory=deque)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    _cached_at: dict[str, float] = field(default_factory=dict)
    """When the provider last used each shared prefix."""
    _held: dict[str, list[Call]] = field(default_factory=dict)
    """Calls held back until the first call with their prefix is answered. Sent any sooner they
    would miss the cache, and each would pay to write the prefix there."""

    def add(self, call: Call) -> None:
        """Queue a call, or hold it back while the first call with its prefix is in flight."""
        prefix = call.request.system
        if call.request.shared and not self._is_cached(prefix):
            if prefix in self._held:
                self._held[prefix].append(call)
                return
            self._held[prefix] = []
        self.waiting.append(call)
        self.more.set()

    def add_first(self, call: Call) -> None:
        """Queue a call for another try, ahead of all others."""
        self.waiting.appendleft(call)
        self.more.set()

    def finish(self, call: Call, *, answered: bool) -> None:
        """Queue the calls that were held back for this one."""
        prefix = call.request.system
        if call.request.shared:
            if answered:
                self._cached_at[prefix] = time.monotonic()
            self.waiting.extend(self._held.pop(prefix, ()))
            self.more.set()

    def _is_cached(self, prefix: str) -> bool:
        cached_at = self._cached_at.get(prefix)
        return cached_at is not None and time.monotonic() - cached_at < CACHE_SECONDS


class OnlineDispatcher:
    """Sends requests one by one, many at the same time."""

    def __init__(self, queues: Mapping[str, ModelQueue], writer: LedgerWriter) -> None:
        self._queues = queues
        self._writer = writer
        self._calls: set[asyncio.Task[None]] = set()
        self._senders = [asyncio.create_task(self._send(queue)) for queue in queues.values()]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Send nothing more, but wait for requests in flight: their answers are billed.

        Only when the run is canceled, as by Ctrl-C, are requests in flight abandoned.
        """
        for sender in self._senders:
            sender.cancel()
        self._writer.close()
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            for call in self._calls:
                call.cancel()
        await asyncio.gather(*self._senders, *self._calls, return_exceptions=True)

    async def ask(self, requests: Sequence[ModelRequest], tag: UsageTag) -> list[Outcome]:
        """Outcomes in order; answers are committed to the ledger before they are returned.

        Raises the first error at once, without waiting for the other outcomes.
        """
        loop = asyncio.get_running_loop()
        calls = [Call(request, tag, loop.create_future()) for request in requests]
        for call in calls:
            self._queues[call.request.model].add(call)
        return list(await asyncio.gather(*(call.outcome for call in calls)))

    def flush(self) -> None:
        """Do nothing: no request is held back for others."""

    async def _send(self, queue: ModelQueue) -> None:
        """Start one call after another, as the limiter admits them."""
        while True:
            while not queue.waiting:
                queue.more.clear()
                await queue.more.wait()
            ticket = await queue.limiter.enter()
            task = asyncio.create_task(self._call(queue, queue.waiting.popleft(), ticket))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _call(self, queue: ModelQueue, call: Call, ticket: Ticket) -> None:
        """Try a call once; queue it again, after a pause, if another try may help."""
        try:
            result = await self._try(queue, call, ticket)
        except Exception as error:  # the caller must get it, whatever it is
            set_error(call.outcome, error)
            queue.finish(call, answered=False)
            return
        if isinstance(result, float):
            asyncio.get_running_loop().call_later(result, queue.add_first, call)
            return
        set_result(call.outcome, result)
        queue.finish(call, answered=isinstance(result, Answer))

    async def _try(self, queue: ModelQueue, call: Call, ticket: Ticket) -> Outcome | float:
        """Send a request once; returns its outcome, or the seconds to wait before the next try."""
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
            queue.unreachable_since = queue.refused_since = None
            queue.limiter.answered(ticket)
        finally:
            queue.limiter.leave()
        bill = queue.price.bill(answer.usage)
        await self._writer.settle(Settlement(spend, bill, call.request.key, answer))
        return answer

    async def _handle_fault(
        self, queue: ModelQueue, call: Call, ticket: Ticket, spend: int, fault: ProviderFault
    ) -> Unanswered | float:
        """Settle a fault; returns the outcome, or the seconds to wait before the next try."""
        if isinstance(fault, Unreadable) and fault.usage is not None:
            bill = queue.price.bill(fault.usage)
            await self._writer.settle(Settlement(spend, bill, usage=fault.usage))
        elif fault.billed:
            self._writer.leave_open()
        else:
            await self._writer.settle(Settlement(spend))
        if isinstance(fault, ConnectionFailed):
            return self._choose_reconnect_pause(queue, fault)
        queue.unreachable_since = None
        if isinstance(fault, RateLimited):
            queue.limiter.refused(ticket, retry_after=fault.retry_after)
            _check_refusals(queue, fault)
            return 0.0
        queue.refused_since = None
        if isinstance(fault, NotFound):
            raise AuthError(
                f"{queue.name}: the server does not know this model: {fault}",
                "correct its name or url in the model file",
                code="model-unknown",
                model=queue.name,
            )
        call.tries += 1
        most = UNREADABLE_TRIES if isinstance(fault, Unreadable) else TRIES
        if fault.final or call.tries >= most:
            return Unanswered(reason=str(fault))
        return choose_pause(call.tries, fault.retry_after)

    def _choose_reconnect_pause(self, queue: ModelQueue, fault: ConnectionFailed) -> float:
        """Seconds before the next try; BackendError after PATIENCE_SECONDS."""
        now = time.monotonic()
        if queue.unreachable_since is None:
            queue.unreachable_since = now
        away = now - queue.unreachable_since
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


def _check_refusals(queue: ModelQueue, fault: RateLimited) -> None:
    """Raise BackendError once a server has refused everything for REFUSED_SECONDS."""
    now = time.monotonic()
    queue.refused_since = queue.refused_since or now
    refused = now - queue.refused_since
    if refused > REFUSED_SECONDS:
        raise BackendError(
            f"{queue.name}: the server has refused every request for {refused:.0f} s ({fault})",
            "see the limits of the account, and run the same command again later; all answers are "
            "kept",
            code="rate-limited",
            model=queue.name,
            seconds=refused,
        )


def set_result(future: asyncio.Future[Any], result: object) -> None:
    """Set a future's result, unless it was canceled because the run is ending."""
    if not future.done():
        future.set_result(result)


def set_error(future: asyncio.Future[Any], error: BaseException) -> None:
    """Set a future's error, unless it was canceled because the run is ending."""
    if not future.done():
        future.set_exception(error)


def choose_pause(tries: int, retry_after: float | None) -> float:
    """Seconds before the next try: what the server asks for, else exponential with jitter."""
    if retry_after is not None:
        return retry_after
    return random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**tries)
