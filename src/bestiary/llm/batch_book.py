"""The batches of a ledger, each recorded with all its requests before it is submitted."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import NamedTuple

from bestiary.errors import BackendError
from bestiary.llm.ledger import Ledger, Reservation, Settlement
from bestiary.llm.ledger_file import explain_errors

MIN_SHARE = 0.1
"""Of the requests proposed for a batch, the share that the budget must have room for. A batch may
take a day, and under a budget that tight the next one would be smaller still."""


class BatchEntry(NamedTuple):
    """A request proposed for a batch."""

    custom_id: str
    key: str
    reservation: Reservation


@dataclass(frozen=True)
class OpenBatch:
    """A batch whose results have not all been committed."""

    name: str
    model: str
    remote_id: str | None
    """The provider's id; None if no process has recorded it, so that it may not be submitted."""
    begun: float
    """When it was recorded, in seconds since 1970."""
    items: dict[str, tuple[str, int]]
    """The request's key and the reservation's id, by custom id."""

    @property
    def reservations(self) -> list[int]:
        """The ids of all its reservations."""
        return [spend for _, spend in self.items.values()]


class HeldError(BackendError):
    """Another process is handling the batches of a ledger."""


class BatchBook:
    """The batches of a ledger, from the intent to submit one until its results are committed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._file = ledger.file

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let only this process handle the batches; raises HeldError if another one does."""
        path = self._file.path.with_name(self._file.path.name + ".batches")
        with explain_errors(self._file.path):
            file = path.open("ab")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                raise HeldError(
                    f"{self._file.path}: another process is handling this ledger's batches",
                    "wait for it, send single requests with --mode single, or use another ledger "
                    "with --ledger",
                    code="batches-held",
                    path=self._file.path,
                ) from cause
            yield

    def record_intent(
        self, name: str, model: str, entries: Sequence[BatchEntry]
    ) -> OpenBatch | None:
        """Record a batch of as many requests, from the first on, as the budget has room for.

        Returns None, and records nothing, if there is no room for MIN_SHARE of them.
        """
        begun = time.time()
        with self._file.transaction():
            room = self._count_affordable(entries)
            if room < max(1.0, MIN_SHARE * len(entries)):
                return None
            reservations = [entry.reservation for entry in entries[:room]]
            spends = self._ledger.settle_and_reserve([], reservations)
            self._file.execute(
                "INSERT INTO batches (name, model, begun) VALUES (?, ?, ?)", (name, model, begun)
            )
            items: dict[str, tuple[str, int]] = {}
            for entry, spend in zip(entries, spends, strict=False):
                assert spend is not None, "it was counted as affordable in this transaction"
                items[entry.custom_id] = entry.key, spend
                self._file.execute(
                    "INSERT INTO batch_items VALUES (?, ?, ?, ?)",
                    (entry.custom_id, name, entry.key, spend),
                )
        return OpenBatch(name, model, None, begun, items)

    def _count_affordable(self, entries: Sequence[BatchEntry]) -> int:
        if self._ledger.budget is None:
            return len(entries)
        room = self._ledger.budget - self._ledger.taken()
        sums = accumulate(entry.reservation.pico for entry in entries)
        return sum(1 for _ in takewhile(lambda pico: pico <= room, sums))

    def record_remote_id(self, name: str, remote_id: str) -> None:
        """Record the provider's id of a batch."""
        with self._file.transaction():
            self._file.execute("UPDATE batches SET remote_id = ? WHERE name = ?", (remote_id, name))

    def close(self, name: str, *, unbilled: Iterable[int] = ()) -> None:
        """Close a batch and release the reservations of requests that were not billed."""
        with self._file.transaction():
            self._ledger.settle_and_reserve([Settlement(spend) for spend in unbilled])
            self._file.execute("UPDATE batches SET closed = 1 WHERE name = ?", (name,))

    def list_open(self) -> list[OpenBatch]:
        """The batches whose results have not all been committed, oldest first."""
        rows = self._file.execute(
            "SELECT name, model, remote_id, begun FROM batches WHERE NOT closed ORDER BY begun"
        )
        return [
            OpenBatch(name, model, remote_id, begun, self._list_items(name))
            for name, model, remote_id, begun in rows
        ]

    def _list_items(self, name: str) -> dict[str, tuple[str, int]]:
        rows = self._file.execute(
            "SELECT custom_id, key, spend FROM batch_items WHERE batch = ?", (name,)
        )
        return {custom_id: (key, spend) for custom_id, key, spend in rows}

    def list_remote_ids(self) -> set[str]:
        """The provider's ids of all batches, open or closed."""
        rows = self._file.execute("SELECT remote_id FROM batches WHERE remote_id IS NOT NULL")
        return {remote_id for (remote_id,) in rows}
