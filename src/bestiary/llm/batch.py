"""Batches: half the price, up to a day of waiting, and no request paid twice for a kill.

A batch is written into the ledger before it is submitted. What a rerun finds open there it looks
for at the provider: it goes on with a batch that was submitted, under whatever id, and gives back
what was reserved for one that never was. Only requests without an answer are asked again.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, TypeVar

from bestiary.errors import BackendError
from bestiary.llm.ledger import (
    LEAST,
    BatchEntry,
    Ledger,
    OpenBatch,
    Reservation,
    Settlement,
    UsageTag,
)
from bestiary.llm.online import PATIENCE_SECONDS, BudgetError, choose_pause, fail
from bestiary.llm.price import Price
from bestiary.llm.provider import (
    BatchItem,
    BatchResult,
    BatchState,
    InvalidRequest,
    NotFound,
    Provider,
    ProviderFault,
    ResponseLost,
)
from bestiary.llm.request import ModelRequest, Outcome, Unanswered

T = TypeVar("T")
TRIES = 3
"""Batches in which a request may come back without an answer."""
CHUNK = 500
"""Results committed together."""


@dataclass(frozen=True)
class PollPolicy:
    """Seconds that are waited for a provider's batches."""

    poll: float = 2.0
    """Between the first looks at a batch; later ones are further apart."""
    longest_poll: float = 60.0
    hidden: float = 120.0
    """How long after its creation a batch may not be found."""
    skew: float = 300.0
    """By how much the provider's clock may differ from ours."""


@dataclass(frozen=True)
class BatchQueue:
    """One model's batches: whom to ask, what they cost and how large one may be."""

    name: str
    provider: Provider
    price: Price
    most_requests: int
    most_bytes: int


@dataclass
class PendingRequest:
    """A request that waits for the next batch."""

    request: ModelRequest
    tag: UsageTag
    outcome: asyncio.Future[Outcome]
    tries: int = 0


class BatchDispatcher:
    """Gathers requests until it hears that no more are coming, and asks them in batches."""

    def __init__(
        self,
        queues: Mapping[str, BatchQueue],
        ledger: Ledger,
        *,
        poll: PollPolicy,
        log: Callable[[str], None],
    ) -> None:
        self._queues = queues
        self._ledger = ledger
        self._poll = poll
        self._log = log
        self._pool: list[PendingRequest] = []
        self._full = asyncio.Event()
        self._server = asyncio.create_task(self._serve())

    async def ask(self, requests: Sequence[ModelRequest], tag: UsageTag) -> list[Outcome]:
        """Answers that are committed, in order, or why there is none."""
        loop = asyncio.get_running_loop()
        pooled = [PendingRequest(request, tag, loop.create_future()) for request in requests]
        self._pool += pooled
        return list(await asyncio.gather(*(one.outcome for one in pooled)))

    def flush(self) -> None:
        """Whoever could ask waits for an answer: what is gathered goes out."""
        self._full.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop waiting. Batches continue at their provider, where a rerun finds them."""
        self._server.cancel()
        await asyncio.gather(self._server, return_exceptions=True)

    async def finish_open(self) -> None:
        """Go on with the batches that an earlier run left open."""
        for batch in self._ledger.list_open():
            if batch.model in self._queues:
                self._log(f"going on with a batch of {len(batch.items)} that was left open")
                await self._finish(batch)

    async def _serve(self) -> None:
        while True:
            await self._full.wait()
            self._full.clear()
            while self._pool:
                pool, self._pool = self._pool, []
                try:
                    self._pool += await self._ask_once(pool)
                except Exception as error:
                    for one in pool:
                        fail(one.outcome, error)

    async def _ask_once(self, pool: Sequence[PendingRequest]) -> list[PendingRequest]:
        """Put requests into batches and wait; what is worth another batch comes back."""
        batches: list[OpenBatch] = []
        sent: list[PendingRequest] = []
        for group in self._divide(pool):
            batch = await self._submit(group)
            if batch is not None:
                batches.append(batch)
                sent += group[: len(batch.items)]
            if batch is None or len(batch.items) < len(group):
                break  # the budget has no room until these are billed
        if not batches:
            raise BudgetError(self._ledger, f"{LEAST:.0%} of the next batch")
        said: dict[str, str] = {}
        for batch in batches:
            said |= await self._finish(batch)
        left = {id(one) for one in pool} - {id(one) for one in sent}
        return [*self._resolve(sent, said), *(one for one in pool if id(one) in left)]

    def _divide(self, pool: Sequence[PendingRequest]) -> Iterator[list[PendingRequest]]:
        """Groups of one model each, as large as a batch may be.

        Those with one beginning stand together, which is likelier then to be found in a cache.
        """
        ordered = sorted(pool, key=lambda one: one.request.system)
        for name, queue in self._queues.items():
            group: list[PendingRequest] = []
            size = 0
            for one in (one for one in ordered if one.request.model == name):
                if group and (
                    len(group) == queue.most_requests or size + one.request.size > queue.most_bytes
                ):
                    yield group
                    group, size = [], 0
                group.append(one)
                size += one.request.size
            if group:
                yield group

    def _resolve(
        self, sent: Sequence[PendingRequest], said: Mapping[str, str]
    ) -> Iterator[PendingRequest]:
        """Hand answers out; give back what has none and may still get one."""
        answers = self._ledger.find(one.request.key for one in sent)
        for one in sent:
            key = one.request.key
            one.tries += 1
            if key in answers:
                one.outcome.set_result(answers[key])
            elif one.tries == TRIES:
                one.outcome.set_result(Unanswered(reason=f"batch: {said.get(key, 'missing')}"))
            else:
                yield one

    # One batch, from its intent to its results

    async def _submit(self, group: Sequence[PendingRequest]) -> OpenBatch | None:
        """Write a batch down and start it; None where the budget has no room for any of it."""
        queue = self._queues[group[0].request.model]
        name = secrets.token_hex(8)
        entries = [
            BatchEntry(
                f"{name}-{number}",
                one.request.key,
                Reservation(one.tag, queue.name, queue.price.bound(one.request), "batch"),
            )
            for number, one in enumerate(group)
        ]
        batch = self._ledger.intend(name, queue.name, entries)
        if batch is None:
            return None
        items = [
            BatchItem(entry.custom_id, one.request)
            for entry, one in zip(entries, group, strict=True)
            if entry.custom_id in batch.items
        ]
        remote = await self._start(queue, batch, items)
        self._ledger.name_batch(name, remote)
        self._log(f"batch {remote}: {len(items)} requests to {queue.name}")
        return replace(batch, remote=remote)

    async def _start(self, queue: BatchQueue, batch: OpenBatch, items: Sequence[BatchItem]) -> str:
        """Submit until it is known how the provider calls it."""

        async def submit() -> str:
            try:
                return (await queue.provider.submit(items, name=batch.name)).id
            except ResponseLost:
                found = await self._adopt(queue, batch)
                if found is None:
                    raise
                return found

        try:
            return await self._retry(queue, submit)
        except (InvalidRequest, NotFound) as fault:
            self._ledger.close_batch(batch.name, unbilled=list_spends(batch))
            raise BackendError(
                f"{queue.name}: the provider refused the batch: {fault}",
                "send single requests with --mode single",
                code="batch-refused",
                model=queue.name,
                reason=str(fault),
            ) from None

    async def _adopt(self, queue: BatchQueue, batch: OpenBatch) -> str | None:
        """How the provider calls a batch that may have been submitted; None where it was not."""
        for wait in (0.0, batch.begun + self._poll.hidden - time.time()):
            await asyncio.sleep(max(0.0, wait))
            known = self._ledger.list_remotes()
            for state in await self._retry(queue, partial(self._list_since, queue, batch)):
                if state.id not in known and await self._is_ours(queue, state, batch):
                    return state.id
        return None

    async def _list_since(self, queue: BatchQueue, batch: OpenBatch) -> list[BatchState]:
        found = []
        async for state in queue.provider.list_batches():
            if state.created < batch.begun - self._poll.skew:
                break
            found.append(state)
        return found

    async def _is_ours(self, queue: BatchQueue, state: BatchState, batch: OpenBatch) -> bool:
        """Whether a batch is this one: by its name, or else by what stands in its results."""
        if state.name is not None or state.total != len(batch.items):
            return state.name == batch.name
        if await self._wait(queue, state.id, since=batch.begun) is None:
            return False

        async def peek() -> bool:
            async for row in queue.provider.read_results(state.id):
                return row.custom_id in batch.items
            return False

        return await self._retry(queue, peek)

    async def _finish(self, batch: OpenBatch) -> dict[str, str]:
        """See a batch through; gives what is to be said of each key that has no answer."""
        queue = self._queues[batch.model]
        remote = batch.remote or await self._adopt(queue, batch)
        if remote is None:
            self._ledger.close_batch(batch.name, unbilled=list_spends(batch))
            return {}
        if batch.remote is None:
            self._ledger.name_batch(batch.name, remote)
        state = await self._wait(queue, remote, since=batch.begun)
        if state is None:  # whether it was billed nobody knows, so that what is reserved stays
            self._ledger.close_batch(batch.name)
            return {key: f"{remote} is not known" for key, _ in batch.items.values()}
        try:
            said = await self._collect_all(queue, batch, remote)
        except (NotFound, InvalidRequest) as fault:  # whether they were billed nobody knows either
            self._ledger.close_batch(batch.name)
            return {key: str(fault) for key, _ in batch.items.values()}
        unbilled = list_spends(batch) if state.said else []
        self._ledger.close_batch(batch.name, unbilled=unbilled)
        if state.said:
            self._log(f"batch {remote} was refused: {state.said}")
            said = {key: state.said for key, _ in batch.items.values()}
        return said

    async def _wait(self, queue: BatchQueue, remote: str, *, since: float) -> BatchState | None:
        """The batch once it has ended; None where the provider does not know it any more."""
        pause = self._poll.poll
        told = -1
        while True:
            try:
                state = await self._retry(queue, partial(queue.provider.look, remote))
            except NotFound:
                if time.time() > since + self._poll.hidden:
                    return None
            else:
                if state.ended:
                    return state
                if state.done != told:
                    self._log(f"batch {remote}: {state.done}/{state.total}")
                told = state.done
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, self._poll.longest_poll)

    async def _collect_all(
        self, queue: BatchQueue, batch: OpenBatch, remote: str
    ) -> dict[str, str]:
        """Commit every result; gives what is said of the keys that have no answer.

        Where items are missing a file may have come back short, and is read again.
        """
        faults: dict[str, str] = {}
        for _ in range(TRIES):
            faults = await self._retry(queue, partial(self._collect, queue, batch, remote))
            if len(faults) == len(batch.items):
                break
        return {key: fault for key, fault in faults.items() if fault}

    async def _collect(self, queue: BatchQueue, batch: OpenBatch, remote: str) -> dict[str, str]:
        """Commit the results that come; gives the fault of each key, empty for an answer."""
        faults: dict[str, str] = {}
        found: list[Settlement] = []
        async for row in queue.provider.read_results(remote):
            if row.custom_id not in batch.items:
                continue
            key, spend = batch.items[row.custom_id]
            faults[key] = row.fault
            if row.fault != "unreadable":  # which may be billed, so that its reservation stays
                found.append(settle_result(row, queue.price, key, spend))
            if len(found) == CHUNK:
                self._ledger.write([], found)
                found = []
        self._ledger.write([], found)
        return faults

    async def _retry(self, queue: BatchQueue, call: Callable[[], Awaitable[T]]) -> T:
        """Call again where the provider is away or unwell, for a while."""
        started, tries = time.monotonic(), 0
        while True:
            try:
                return await call()
            except (InvalidRequest, NotFound):
                raise
            except ProviderFault as fault:
                away = time.monotonic() - started
                if away > PATIENCE_SECONDS:
                    raise BackendError(
                        f"{queue.name}: batches unreachable for {away:.0f} s ({fault})",
                        "run the same command again; it resumes the open batches",
                        code="batches-unreachable",
                        model=queue.name,
                        seconds=away,
                    ) from None
                tries += 1
                await asyncio.sleep(choose_pause(min(tries, 6), fault.retry_after))


def list_spends(batch: OpenBatch) -> list[int]:
    """The reservations of a batch."""
    return [spend for _, spend in batch.items.values()]


def settle_result(row: BatchResult, price: Price, key: str, spend: int) -> Settlement:
    """What a result means for its reservation: only answers are billed."""
    if row.answer is None:
        return Settlement(spend)
    return Settlement(spend, price.bill(row.answer.usage), key, row.answer)
