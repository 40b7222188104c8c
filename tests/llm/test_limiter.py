"""The limiter finds a server's capacity and follows it, on a simulated clock and over HTTP.

Run: python -m pytest tests/llm/test_limiter.py
"""

from __future__ import annotations

import asyncio
import random
import selectors
import types
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from tests.fakes.models import ModelServer, serve
from tests.fakes.models import Provider as ProviderName
from tests.llm.calls import (
    EACH_PROVIDER,
    OnlineClient,
    check_bill,
    count_answers,
    make_requests,
    open_ledger,
    run,
)

from bestiary.llm import limiter as limiting
from bestiary.llm.limiter import CUT, Limiter, Ticket

T = TypeVar("T")
RESERVE_SECONDS = 0.005
"""Seconds between a request's admission and its sending: a commit of the ledger."""
REFUSE_SECONDS = 0.002


class InstantSelector(selectors.DefaultSelector):
    """Sets the simulated clock forward instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "every task waits for another: a deadlock"
            self.now += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop on a simulated clock, where waiting takes no real time."""

    def __init__(self) -> None:
        self.selector = InstantSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedLoop]:
    loop = SimulatedLoop()
    monkeypatch.setattr(limiting, "time", types.SimpleNamespace(monotonic=loop.time))
    yield loop
    loop.close()


def run_simulated(loop: SimulatedLoop, work: Callable[[], Awaitable[T]]) -> T:
    async def run_and_cancel() -> T:
        try:
            return await work()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    return loop.run_until_complete(run_and_cancel())


@dataclass
class SimulatedServer:
    """A server on the simulated clock, and one client that always has another request."""

    loop: SimulatedLoop
    limiter: Limiter
    capacity: int
    latency: float
    retry_after: float | None = None
    busy: int = 0
    answered: int = 0
    entered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    area: float = 0.0
    """Request-seconds served."""
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    async def ask(self) -> None:
        """Send requests until canceled."""
        asking: set[asyncio.Task[None]] = set()
        while True:
            ticket = await self.limiter.enter()
            self.entered.append(self.loop.time())
            task = asyncio.create_task(self._call(ticket))
            asking.add(task)
            task.add_done_callback(asking.discard)

    async def _call(self, ticket: Ticket) -> None:
        await asyncio.sleep(RESERVE_SECONDS)
        if self.busy >= self.capacity:
            await asyncio.sleep(REFUSE_SECONDS)
            self.refused.append(self.loop.time())
            self.limiter.refused(ticket, retry_after=self.retry_after)
        else:
            self.busy += 1
            seconds = self.latency * self.draw.uniform(0.8, 1.2)
            await asyncio.sleep(seconds)
            self.busy -= 1
            self.area += seconds
            self.answered += 1
            self.limiter.answered(ticket)
        self.limiter.leave()

    async def measure(self, seconds: float) -> tuple[float, float]:
        """The shares of the capacity that is used and of requests that are refused."""
        area, answered, refused = self.area, self.answered, len(self.refused)
        await asyncio.sleep(seconds)
        good, bad = self.answered - answered, len(self.refused) - refused
        return (self.area - area) / seconds / self.capacity, bad / max(1, good + bad)


@pytest.mark.parametrize(
    ("latency", "share"), [(0.02, 0.75), (0.1, 0.8), (0.5, 0.8), (2.0, 0.8), (20.0, 0.8)]
)
def test_the_capacity_of_a_server_is_found_and_followed(
    latency: float, share: float, simulated: SimulatedLoop
) -> None:
    """At 20 ms, a fifth of the window is taken by the ledger's commits, not by the server."""

    async def work() -> dict[int, tuple[float, float]]:
        server = SimulatedServer(simulated, Limiter(most=256), capacity=40, latency=latency)
        asking = asyncio.create_task(server.ask())
        found = {}
        for capacity in (40, 15, 60):
            server.capacity = capacity
            await asyncio.sleep(max(1.0, 40 * latency))
            found[capacity] = await server.measure(200 * latency)
        asking.cancel()
        return found

    found = run_simulated(simulated, work)
    assert {c: round(used, 2) for c, (used, _) in found.items() if used < share} == {}
    assert {c: round(refused, 3) for c, (_, refused) in found.items() if refused > 0.02} == {}


def test_without_refusals_the_window_grows_to_its_limit(simulated: SimulatedLoop) -> None:
    async def work() -> SimulatedServer:
        server = SimulatedServer(simulated, Limiter(most=100), capacity=1000, latency=1.0)
        asking = asyncio.create_task(server.ask())
        await asyncio.sleep(20.0)
        assert (await server.measure(20.0))[0] > 0.09
        asking.cancel()
        return server

    server = run_simulated(simulated, work)
    assert server.limiter.window == 100.0
    assert server.refused == []


@pytest.mark.parametrize("retry_after", [0.5, 1.0, 3.0])
def test_nothing_is_admitted_before_the_time_that_the_server_named(
    retry_after: float, simulated: SimulatedLoop
) -> None:
    async def work() -> SimulatedServer:
        server = SimulatedServer(
            simulated, Limiter(most=64), 40, latency=0.5, retry_after=retry_after
        )
        asking = asyncio.create_task(server.ask())
        for capacity in (40, 12, 20):
            server.capacity = capacity
            await asyncio.sleep(40.0)
        asking.cancel()
        return server

    server = run_simulated(simulated, work)
    assert len(server.refused) > 3
    for at in server.refused:
        early = [t for t in server.entered if at < t < at + retry_after - 1e-6]
        assert early == [], f"refused at {at}"
    # Requests resume after every pause.
    assert server.entered[-1] > 120.0 - 2 * retry_after - 2.0


def test_a_refusal_during_a_pause_extends_it_and_requests_resume(simulated: SimulatedLoop) -> None:
    async def work() -> float:
        limiter = Limiter(most=8, start=2.0)
        first, second = await limiter.enter(), await limiter.enter()
        waiting = asyncio.create_task(limiter.enter())
        await asyncio.sleep(0.1)
        limiter.refused(first, retry_after=0.9)
        limiter.leave()
        await asyncio.sleep(0.4)  # the waiting task now sleeps until 1.0
        limiter.refused(second, retry_after=1.0)
        limiter.leave()  # no request is left in flight that could wake it
        await waiting
        return simulated.time()

    assert run_simulated(simulated, work) == pytest.approx(1.5)


def test_a_burst_of_refusals_cuts_once(simulated: SimulatedLoop) -> None:
    async def work() -> Limiter:
        limiter = Limiter(most=64, start=20.0)
        tickets = [await limiter.enter() for _ in range(20)]
        for ticket in tickets[:15]:
            limiter.refused(ticket, retry_after=None)
            limiter.leave()
        assert limiter.window == pytest.approx(20 * CUT)
        for ticket in tickets[15:]:  # admitted before the cut, so they say nothing of it
            limiter.answered(ticket)
            limiter.leave()
        assert limiter.window == pytest.approx(20 * CUT)
        later = [await limiter.enter() for _ in range(int(20 * CUT))]
        limiter.refused(later[0], retry_after=None)
        return limiter

    limiter = run_simulated(simulated, work)
    assert limiter.window == pytest.approx(20 * CUT * CUT)


def test_a_server_that_refuses_everything_gets_ever_fewer_requests_until_it_recovers(
    simulated: SimulatedLoop,
) -> None:
    async def work() -> tuple[int, tuple[float, float]]:
        server = SimulatedServer(simulated, Limiter(most=64), capacity=0, latency=0.5)
        asking = asyncio.create_task(server.ask())
        await asyncio.sleep(60.0)
        count = len(server.refused)
        server.capacity = 20
        await asyncio.sleep(60.0)
        found = await server.measure(30.0)
        asking.cancel()
        return count, found

    count, (used, _) = run_simulated(simulated, work)
    assert count < 1000  # slower than it can refuse them
    assert used > 0.8


def test_a_window_that_is_not_full_does_not_grow(simulated: SimulatedLoop) -> None:
    async def work() -> Limiter:
        limiter = Limiter(most=64, start=8.0)
        for _ in range(100):
            ticket = await limiter.enter()
            limiter.answered(ticket)
            limiter.leave()
        return limiter

    assert run_simulated(simulated, work).window == 8.0


# Over HTTP


@EACH_PROVIDER
def test_a_real_server_is_followed_while_its_capacity_changes(
    name: ProviderName, tmp_path: Path
) -> None:
    server = ModelServer()
    server.latency, server.capacity = 0.05, 6
    ledger = open_ledger(tmp_path)

    async def reach(seen: Callable[[OnlineClient], bool], client: OnlineClient) -> None:
        while not seen(client):
            await asyncio.sleep(0.005)

    async def work(url: str) -> int:
        async with OnlineClient(name, url, ledger, most=32) as client:
            asking = asyncio.create_task(client.ask(make_requests(name, 600)))
            await reach(lambda client: server.in_flight == 6 and server.statuses[429] > 0, client)
            server.capacity = 2
            await reach(lambda client: client.limiter.window < 3.5, client)
            server.capacity = 12
            await reach(lambda client: server.in_flight == 12, client)
            assert not asking.done()
            server.capacity = None
            return count_answers(await asking)

    with serve(server) as url:
        assert run(lambda: work(url)) == 600
    assert server.statuses[200] == 600
    assert server.statuses[429] < 300
    check_bill(ledger, server)
    ledger.close()


@EACH_PROVIDER
def test_no_request_arrives_before_the_time_that_a_real_server_named(
    name: ProviderName, tmp_path: Path
) -> None:
    """Requests that were already admitted may still arrive."""
    server = ModelServer()
    server.latency, server.capacity, server.retry_after = 0.1, 3, 1.0
    ledger = open_ledger(tmp_path)

    async def work(url: str) -> int:
        async with OnlineClient(name, url, ledger, start=8.0) as client:
            return count_answers(await client.ask(make_requests(name, 10)))

    with serve(server) as url:
        assert run(lambda: work(url)) == 10
    assert server.statuses[429] > 0
    gaps = [later - at for at, later in zip(server.arrivals, server.arrivals[1:], strict=False)]
    # The first burst has eight requests; then none arrives for a second.
    assert gaps[7] > 0.9
    check_bill(ledger, server)
    ledger.close()
