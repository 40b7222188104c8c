"""One batch at its provider: submitted, found again, waited for, and its results committed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from bestiary.errors import BackendError
from bestiary.llm.batch_book import BatchBook, OpenBatch
from bestiary.llm.ledger import Ledger, Settlement
from bestiary.llm.online import PATIENCE_SECONDS, choose_pause
from bestiary.llm.price import Price
from bestiary.llm.provider import (
    AuthError,
    BatchItem,
    BatchRefusal,
    BatchState,
    InvalidRequest,
    ItemFailed,
    NotFound,
    Provider,
    ProviderFault,
    QueueFull,
    ResponseLost,
    Unreadable,
)
from bestiary.llm.request import Answer

T = TypeVar("T")
READS = 3
"""Times that results are read while some of them are missing."""
CHUNK = 500
"""Results committed together."""
LOGGED_REASONS = 3
"""Of each batch, the most frequent ones."""
TOO_LARGE = ("too large", "too_large", "exceeds the maximum", "maximum number of requests")
"""Phrases for a batch that would be accepted in parts."""
Faults = dict[str, ProviderFault | AuthError | None]
"""Why each key has no answer; None for one that has."""


@dataclass(frozen=True)
class PollPolicy:
    """How often to poll a batch, and how a provider may misreport a new one."""

    poll: float = 2.0
    """Seconds until the second poll; each further pause is 1.5 times the last."""
    longest_poll: float = 60.0
    hidden: float = 120.0
    """Seconds for which a provider may not find a new batch."""
    skew: float = 300.0
    """Seconds by which the provider's clock may differ from ours."""


class RemoteBatch:
    """A recorded batch at its provider, until its results are committed."""

    def __init__(
        self,
        record: OpenBatch,
        provider: Provider,
        price: Price,
        ledger: Ledger,
        *,
        poll: PollPolicy,
        log: Callable[[str], None],
    ) -> None:
        self._record = record
        self._provider = provider
        self._price = price
        self._ledger = ledger
        self._book = BatchBook(ledger)
        self._poll = poll
        self._log = log
        self._remote_id = record.remote_id

    @property
    def size(self) -> int:
        """Its number of requests."""
        return len(self._record.items)

    async def submit(self, items: Sequence[BatchItem]) -> None:
        """Submit the batch and record the provider's id.

        Raises QueueFull if it must wait or be smaller, and BackendError if it is refused.
        """

        async def submit_or_find() -> str:
            try:
                return (await self._provider.submit(items, name=self._record.name)).id
            except ResponseLost:
                found = await self._find()
                if found is None:
                    raise
                return found

        try:
            remote_id = await retry(self._record.model, submit_or_find)
        except QueueFull:
            self._close(unbilled=True)
            raise
        except (InvalidRequest, NotFound) as fault:
            self._close(unbilled=True)
            if self.size > 1 and any(phrase in str(fault).lower() for phrase in TOO_LARGE):
                raise QueueFull(str(fault)) from None
            raise BackendError(
                f"{self._record.model}: the provider refused the batch: {fault}",
                "send single requests with --mode single",
                code="batch-refused",
                model=self._record.model,
                reason=str(fault),
            ) from None
        self._record_id(remote_id)
        self._log(f"batch {remote_id}: {len(items)} requests to {self._record.model}")

    async def finish(self) -> dict[str, ProviderFault]:
        """Wait for the results and commit them; returns why each unanswered key has no answer.

        Raises AuthError once everything is committed if the account was refused.
        """
        remote_id = self._remote_id or await self._find_left()
        if remote_id is None:  # it was never submitted
            self._close(unbilled=True)
            return {}
        if self._remote_id is None:
            self._record_id(remote_id)
        state = await self._wait(remote_id)
        if state is None:
            self._close()
            return self._explain_all(f"the provider no longer knows batch {remote_id}")
        try:
            found = await self._collect_all(remote_id)
        except (NotFound, InvalidRequest) as fault:
            self._close()
            return self._explain_all(str(fault))
        self._close(unbilled=bool(state.refusals))
        if state.refusals:
            found = explain_refusal(self._record, state.refusals)
        return self._report(remote_id, found)

    def _report(self, remote_id: str, found: Faults) -> dict[str, ProviderFault]:
        """Log what the provider says of requests without an answer; raises its AuthError."""
        failed = [fault for fault in found.values() if fault is not None]
        for words, count in Counter(map(str, failed)).most_common(LOGGED_REASONS):
            self._log(f"batch {remote_id}: {count} of {self.size} requests failed: {words}")
        for fault in failed:
            if isinstance(fault, AuthError):
                raise fault
        return {key: fault for key, fault in found.items() if isinstance(fault, ProviderFault)}

    def _record_id(self, remote_id: str) -> None:
        self._book.record_remote_id(self._record.name, remote_id)
        self._remote_id = remote_id

    def _close(self, *, unbilled: bool = False) -> None:
        """Close the batch; unless it is known to be unbilled, open reservations stay."""
        self._book.close(self._record.name, unbilled=self._record.reservations if unbilled else ())

    def _explain_all(self, reason: str) -> dict[str, ProviderFault]:
        return {key: ItemFailed(reason) for key, _ in self._record.items.values()}

    async def _find_left(self) -> str | None:
        """As `_find`, for a batch of an earlier run: None too from a server without batches."""
        try:
            return await self._find()
        except (NotFound, InvalidRequest):
            return None

    async def _find(self) -> str | None:
        """The provider's id of a batch that may have been submitted; None if it was not.

        Raises NotFound or InvalidRequest if the server does not list batches.
        """
        for wait in (0.0, self._record.begun + self._poll.hidden - time.time()):
            await asyncio.sleep(max(0.0, wait))
            known = self._book.list_remote_ids()
            for state in await retry(self._record.model, self._list_recent):
                if state.id not in known and await self._is_same(state):
                    return state.id
        return None

    async def _list_recent(self) -> list[BatchState]:
        """The provider's batches since this one was recorded."""
        recent = []
        async for state in self._provider.list_batches():
            if state.created < self._record.begun - self._poll.skew:
                break
            recent.append(state)
        return recent

    async def _is_same(self, state: BatchState) -> bool:
        """Whether a provider's batch is this one, by its name or else by a custom id in it."""
        if state.name is not None or state.total != self.size:
            return state.name == self._record.name
        if await self._wait(state.id) is None:
            return False

        async def peek() -> bool:
            async for result in self._provider.read_results(state.id):
                return result.custom_id in self._record.items
            return False

        try:
            return await retry(self._record.model, peek)
        except (NotFound, InvalidRequest):  # its results have been deleted
            return False

    async def _wait(self, remote_id: str) -> BatchState | None:
        """The state of a batch once it has ended; None if the provider no longer knows it."""
        pause = self._poll.poll
        reported = -1
        while True:
            try:
                state = await retry(
                    self._record.model, partial(self._provider.retrieve_batch, remote_id)
                )
            except (NotFound, InvalidRequest):
                if time.time() > self._record.begun + self._poll.hidden:
                    return None
            else:
                if state.ended:
                    return state
                if state.done != reported:
                    self._log(f"batch {remote_id}: {state.done}/{state.total}")
                reported = state.done
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, self._poll.longest_poll)

    async def _collect_all(self, remote_id: str) -> Faults:
        """Commit every result; returns each key's fault.

        Results may be missing because a file was cut short or is late, so they are read again.
        """
        faults: Faults = {}
        for read in range(READS):
            await asyncio.sleep(read * self._poll.poll)
            faults = await retry(self._record.model, partial(self._collect, remote_id))
            if len(faults) == self.size:
                break
        return faults

    async def _collect(self, remote_id: str) -> Faults:
        """Commit the results that arrive; of several for one request, an answer counts."""
        faults: Faults = {}
        found: list[Settlement] = []
        failed: dict[str, Settlement] = {}
        async for custom_id, outcome in self._provider.read_results(remote_id):
            key, spend = self._record.items.get(custom_id, ("", 0))
            if not key or faults.get(key, outcome) is None:
                continue
            settlement = settle_result(outcome, self._price, key, spend)
            if isinstance(outcome, Answer):
                faults[key] = None
                found.append(settlement)
            else:
                faults[key] = outcome
                failed[key] = settlement
            if len(found) == CHUNK:
                self._ledger.settle_and_reserve(found)
                found = []
        found += [one for key, one in failed.items() if faults[key] is not None]
        self._ledger.settle_and_reserve(found)
        return faults


async def retry(model: str, call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call while the provider is unreachable or failing, up to PATIENCE_SECONDS."""
    started, tries = time.monotonic(), 0
    while True:
        try:
            return await call()
        except (InvalidRequest, NotFound, QueueFull):
            raise
        except ProviderFault as fault:
            away = time.monotonic() - started
            if away > PATIENCE_SECONDS:
                raise BackendError(
                    f"{model}: batches unreachable for {away:.0f} s ({fault})",
                    "run the same command again; it resumes the open batches",
                    code="batches-unreachable",
                    model=model,
                    seconds=away,
                ) from None
            tries += 1
            await asyncio.sleep(choose_pause(min(tries, 6), fault.retry_after))


def explain_refusal(record: OpenBatch, refusals: Sequence[BatchRefusal]) -> Faults:
    """Each key's fault in a batch that was refused: only the lines to blame are at fault."""
    keys = [key for key, _ in record.items.values()]
    lines = {refusal.line: refusal.fault for refusal in refusals}
    blamed = {key: lines[line] for line, key in enumerate(keys, start=1) if line in lines}
    if None in lines or not blamed:
        return dict.fromkeys(keys, refusals[0].fault)
    others = ItemFailed(f"another request in its batch was refused: {refusals[0].fault}")
    return {key: blamed.get(key, others) for key in keys}


def settle_result(
    outcome: Answer | ProviderFault | AuthError, price: Price, key: str, spend: int
) -> Settlement:
    """The settlement of a result: faults are not billed, except for bodies that are unreadable."""
    if isinstance(outcome, Answer):
        return Settlement(spend, price.bill(outcome.usage), key, outcome)
    if isinstance(outcome, Unreadable) and outcome.usage is not None:
        return Settlement(spend, price.bill(outcome.usage), usage=outcome.usage)
    return Settlement(spend, None if isinstance(outcome, Unreadable) else 0)
