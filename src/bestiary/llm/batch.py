"""Batches of requests: half the price, up to a day of waiting, and no request paid for twice.

A batch is recorded in the ledger before it is submitted, so a rerun finds it again at the provider
and resumes it, or releases the reservations of one that was never submitted. Only requests without
an answer are sent again.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from bestiary.errors import BackendError
from bestiary.llm.batch_book import MIN_SHARE, BatchBook, BatchEntry, OpenBatch
from bestiary.llm.ledger import Ledger, Reservation, UsageTag
from bestiary.llm.online import BudgetError, Call, set_error
from bestiary.llm.price import Price
from bestiary.llm.provider import BatchItem, ItemFailed, Provider, ProviderFault, QueueFull
from bestiary.llm.remote_batch import PollPolicy, RemoteBatch
from bestiary.llm.request import ModelRequest, Outcome, Unanswered

QUEUE_SECONDS = 100_000.0
"""How long a queue may be full: somewhat more than the day that a batch may take."""
TRIES = 3
"""Batches that a request may be part of before it is given up."""


@dataclass
class BatchQueue:
    """One model: its provider, its prices, and the largest batch it takes."""

    name: str
    provider: Provider
    price: Price
    most_requests: int
    most_bytes: int
    room: int = sys.maxsize
    """Requests that the provider's queue is expected to take at once."""
    full_since: float | None = None
    """When the queue was first full; None while it takes all."""


class BatchDispatcher:
    """Pools requests until every workflow is waiting for answers, then sends them in batches."""

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
        self._book = BatchBook(ledger)
        self._poll = poll
        self._log = log
        self._pool: list[Call] = []
        self._flushed = asyncio.Event()
        self._sender = asyncio.create_task(self._send_flushed())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop waiting. Batches continue at their provider, where a rerun finds them."""
        self._sender.cancel()
        await asyncio.gather(self._sender, return_exceptions=True)

    async def ask(self, requests: Sequence[ModelRequest], tag: UsageTag) -> list[Outcome]:
        """Outcomes in order; answers are committed to the ledger before they are returned."""
        loop = asyncio.get_running_loop()
        pooled = [Call(request, tag, loop.create_future()) for request in requests]
        self._pool += pooled
        return list(await asyncio.gather(*(one.outcome for one in pooled)))

    def flush(self) -> None:
        """Send the pooled requests: every workflow is waiting for an answer."""
        self._flushed.set()

    async def finish_open(self) -> None:
        """Finish the batches that earlier runs left open."""
        for record in self._book.list_open():
            if record.model in self._queues:
                self._log(f"resuming a batch of {len(record.items)} from an earlier run")
                await self._open(record).finish()

    async def _send_flushed(self) -> None:
        while True:
            await self._flushed.wait()
            self._flushed.clear()
            while self._pool:
                await self._settle()
                pool, self._pool = self._pool, []
                try:
                    self._pool += await self._send(pool)
                except Exception as error:
                    for one in pool:
                        set_error(one.outcome, error)

    async def _settle(self) -> None:
        """Wait until the pool has stopped growing.

        Workflows that were just answered, by a batch or from the ledger, have yet to pool their
        next requests.
        """
        size = 0
        while len(self._pool) > size:
            size = len(self._pool)
            await asyncio.sleep(self._poll.poll)

    async def _send(self, pool: Sequence[Call]) -> list[Call]:
        """Send requests and wait for their results; returns those that need another batch."""
        batches: list[RemoteBatch] = []
        sent: list[Call] = []
        refused: dict[str, int] = {}
        for group in self._divide(pool):
            model = group[0].request.model
            if model in refused:
                continue
            try:
                batch = await self._submit(group)
            except QueueFull as fault:
                refused[model] = len(group)
                self._log(f"{model}: no room for a batch of {len(group)} requests yet: {fault}")
                continue
            if batch is not None:
                batches.append(batch)
                sent += group[: batch.size]
            if batch is None or batch.size < len(group):
                break  # the budget has no room until these are billed
        if not batches and not refused:
            raise BudgetError(self._ledger, f"{MIN_SHARE:.0%} of the next batch")
        faults: dict[str, ProviderFault] = {}
        for batch in batches:
            faults |= await batch.finish()
        left = {id(one) for one in pool} - {id(one) for one in sent}
        again = [*self._resolve(sent, faults), *(one for one in pool if id(one) in left)]
        await self._make_room(sent, faults, refused)
        return again

    async def _make_room(
        self,
        sent: Sequence[Call],
        faults: Mapping[str, ProviderFault],
        refused: Mapping[str, int],
    ) -> None:
        """Fit the next batches to what each queue took; pause if one took nothing."""
        for name, queue in self._queues.items():
            keys = [one.request.key for one in sent if one.request.model == name]
            full = sum(isinstance(faults.get(key), QueueFull) for key in keys)
            taken, tried = len(keys) - full, full + refused.get(name, 0)
            if not tried:
                queue.room = min(sys.maxsize, 2 * queue.room)
                queue.full_since = None
            else:
                queue.room = taken or max(1, min(tried, queue.room) // 2)
                await self._wait_for_room(queue, moved=taken > 0)

    async def _wait_for_room(self, queue: BatchQueue, *, moved: bool) -> None:
        """Wait for the batches of others; BackendError if they take longer than any batch may."""
        now = time.monotonic()
        queue.full_since = now if moved or queue.full_since is None else queue.full_since
        waited = now - queue.full_since
        if waited > QUEUE_SECONDS:
            raise BackendError(
                f"{queue.name}: the provider's queue of batches was full for {waited:.0f} s",
                "cancel other batches of this account, or send single requests with --mode single",
                code="batch-queue-full",
                model=queue.name,
                seconds=waited,
            )
        if not moved:
            await asyncio.sleep(min(self._poll.longest_poll, self._poll.poll + waited / 2))

    def _divide(self, pool: Sequence[Call]) -> Iterator[list[Call]]:
        """Groups of one model each, as large as a batch may be.

        Requests with the same system prompt are adjacent, which makes cache hits more likely.
        """
        ordered = sorted(pool, key=lambda one: one.request.system)
        for name, queue in self._queues.items():
            group: list[Call] = []
            size = 0
            ours = [one for one in ordered if one.request.model == name]
            for one in ours[: queue.room]:
                if group and (
                    len(group) == queue.most_requests or size + one.request.size > queue.most_bytes
                ):
                    yield group
                    group, size = [], 0
                group.append(one)
                size += one.request.size
            if group:
                yield group

    async def _submit(self, group: Sequence[Call]) -> RemoteBatch | None:
        """Record and submit a batch; None if the budget has no room for it."""
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
        record = self._book.record_intent(name, queue.name, entries)
        if record is None:
            return None
        batch = self._open(record)
        sent = zip(record.items, group, strict=False)  # the budget may have cut the group short
        await batch.submit([BatchItem(custom_id, one.request) for custom_id, one in sent])
        return batch

    def _open(self, record: OpenBatch) -> RemoteBatch:
        queue = self._queues[record.model]
        return RemoteBatch(
            record, queue.provider, queue.price, self._ledger, poll=self._poll, log=self._log
        )

    def _resolve(self, sent: Sequence[Call], faults: Mapping[str, ProviderFault]) -> Iterator[Call]:
        """Return answers to their callers; yields the requests that are worth another try."""
        answers = self._ledger.find(one.request.key for one in sent)
        for one in sent:
            key = one.request.key
            one.tries += 1
            fault = faults.get(key) or ItemFailed("the provider returned no result for it")
            if key in answers:
                one.outcome.set_result(answers[key])
            elif isinstance(fault, QueueFull):
                one.tries -= 1
                yield one
            elif fault.final or one.tries == TRIES:
                one.outcome.set_result(Unanswered(reason=f"batch: {fault}"))
            else:
                yield one
