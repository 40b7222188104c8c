"""The ledger: what was asked, answered and paid, in one SQLite file that processes may share.

What a request may cost at most is reserved before it is sent. Its bill takes the reservation's
place when its answer is committed, in one transaction with the answer. A reservation whose answer
never came, since a process or a connection died, stays: the server may have billed it. A batch
is written down, with all its requests, before it is submitted.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Literal, NamedTuple

from bestiary.errors import BackendError
from bestiary.llm.request import Answer, Usage

VERSION = 1
BUSY_SECONDS = 60.0
"""How long one process waits for another's transaction."""
FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""Errors of a full disk: the file cannot grow, or the index beside it that processes share."""
LEAST = 0.1
"""Of a batch: for fewer of its requests nobody waits a day, and the next batch would be smaller."""
Mode = Literal["single", "batch", "replay"]
SCHEMA = """
CREATE TABLE answers (
  key TEXT PRIMARY KEY,
  answer TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE purse (taken INTEGER NOT NULL);
INSERT INTO purse VALUES (0);
CREATE TABLE spends (
  id INTEGER PRIMARY KEY,
  behavior TEXT NOT NULL,
  stage TEXT NOT NULL,
  model TEXT NOT NULL,
  mode TEXT NOT NULL,
  begun REAL NOT NULL,
  reserved INTEGER NOT NULL,
  billed INTEGER,
  input INTEGER NOT NULL DEFAULT 0,
  output INTEGER NOT NULL DEFAULT 0,
  cached INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE replays (
  behavior TEXT NOT NULL,
  stage TEXT NOT NULL,
  model TEXT NOT NULL,
  requests INTEGER NOT NULL,
  PRIMARY KEY (behavior, stage, model)
) WITHOUT ROWID;
CREATE TABLE batches (
  name TEXT PRIMARY KEY,
  model TEXT NOT NULL,
  remote TEXT UNIQUE,
  begun REAL NOT NULL,
  over INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE batch_items (
  custom_id TEXT PRIMARY KEY,
  batch TEXT NOT NULL REFERENCES batches (name),
  key TEXT NOT NULL,
  spend INTEGER NOT NULL REFERENCES spends (id)
) WITHOUT ROWID;
CREATE INDEX batch_items_of ON batch_items (batch);
"""


class UsageTag(NamedTuple):
    """What a request is for."""

    behavior: str
    stage: str


@dataclass(frozen=True)
class Reservation:
    """What a request may cost at most, before it is sent."""

    purpose: UsageTag
    model: str
    pico: int
    mode: Mode = "single"


@dataclass(frozen=True)
class Settlement:
    """What became of a reservation: an answer and its bill, or nothing that a server bills."""

    spend: int
    pico: int = 0
    key: str = ""
    answer: Answer | None = None


class BatchEntry(NamedTuple):
    """A request that is to go into a batch."""

    custom_id: str
    key: str
    reservation: Reservation


@dataclass(frozen=True)
class OpenBatch:
    """A batch whose results have not all been read."""

    name: str
    model: str
    remote: str | None
    """How its provider calls it; None where that was never heard."""
    begun: float
    """Seconds since 1970."""
    items: dict[str, tuple[str, int]]
    """Key and reservation of each custom id."""


@dataclass(frozen=True)
class Spent:
    """What was asked for one purpose of one model."""

    behavior: str
    stage: str
    model: str
    mode: Mode
    requests: int
    """Answered; in the mode replay, by an answer of before."""
    pico: int
    """Their bills."""
    unknown: int
    """Picodollars reserved for answers that never came, or are on their way."""
    input: int
    output: int
    cached: int


class HeldError(BackendError):
    """Another process sees to the batches of a ledger."""


class Ledger:
    """One file, opened by one thread of one process."""

    def __init__(self, path: Path, *, budget: int | None = None) -> None:
        self.path = path
        self.budget = budget
        self._failure: BackendError | None = None
        """The error of the first transaction that was lost."""
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            self._write_ahead()
            self._db.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise BackendError(
                    f"{path}: the ledger has version {version}; this version of bestiary reads "
                    f"version {VERSION}",
                    "use the version of bestiary that wrote it, or another file with --ledger",
                    code="ledger-version",
                    path=path,
                    version=version,
                )

    def _write_ahead(self) -> None:
        """Let others read while one writes; here SQLite does not wait for another process."""
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as cause:
                if not read_name(cause).startswith("SQLITE_BUSY") or time.monotonic() > end:
                    raise
                time.sleep(0.05)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as cause:
            raise BackendError(
                f"{self.path}: {cause.strerror}",
                "choose another path with --ledger",
                code="ledger-unreachable",
                path=self.path,
                reason=cause.strerror,
            ) from cause
        except sqlite3.Error as cause:
            raise self._explain(cause) from cause

    def _explain(self, cause: sqlite3.Error) -> BackendError:
        if read_name(cause) in FULL:
            free = shutil.disk_usage(self.path.parent).free // 2**20
            return BackendError(
                f"{self.path}: the disk is full ({free} MiB free)",
                "free some space and run the same command again; everything committed is kept",
                code="disk-full",
                path=self.path,
                free_mib=free,
            )
        return BackendError(
            f"{self.path}: SQLite cannot use the ledger: {cause}",
            "check the disk; if the file is damaged, move it away (its answers are then requested "
            "and paid for again)",
            code="ledger-failed",
            path=self.path,
            reason=str(cause),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as cause:
                if isinstance(cause, sqlite3.Error):
                    self._failure = self._failure or self._explain(cause)
                if self._db.in_transaction:  # SQLite may have rolled it back itself
                    self._db.execute("ROLLBACK")
                raise

    def find(self, keys: Iterable[str]) -> dict[str, Answer]:
        """Answers that are there, by key."""
        with self._errors():
            rows = self._db.execute(
                "SELECT key, answer FROM answers WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(list(keys)),),
            )
            return {key: Answer.model_validate_json(answer) for key, answer in rows}

    def count_replays(self, purpose: UsageTag, model: str, requests: int) -> None:
        """Note that answers of before served so many requests."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO replays VALUES (?, ?, ?, ?) ON CONFLICT "
                "DO UPDATE SET requests = requests + excluded.requests",
                (*purpose, model, requests),
            )

    # Single calls

    def write(
        self, reservations: Sequence[Reservation], settlements: Sequence[Settlement]
    ) -> list[int | None]:
        """Settle, then reserve, in one transaction; None where the budget has no room.

        Once a transaction was lost nothing more is reserved: on a disk that is nearly full there
        may be room for a reservation and none for its answer, which would be paid for in vain.
        """
        with self._transaction():
            for settlement in settlements:
                self._settle(settlement)
            if self._failure is None or not reservations:
                return [self._reserve(reservation) for reservation in reservations]
        raise self._failure

    def _reserve(self, one: Reservation) -> int | None:
        room = "" if self.budget is None else " WHERE taken + :pico <= :budget"
        values = {"pico": one.pico, "budget": self.budget}
        if not self._db.execute(f"UPDATE purse SET taken = taken + :pico{room}", values).rowcount:
            return None
        return self._db.execute(
            "INSERT INTO spends (behavior, stage, model, mode, begun, reserved) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (*one.purpose, one.model, one.mode, time.time(), one.pico),
        ).lastrowid

    def _settle(self, one: Settlement) -> None:
        usage = one.answer.usage if one.answer else Usage(input=0, output=0)
        row = self._db.execute(
            "UPDATE spends SET billed = ?, input = ?, output = ?, cached = ? "
            "WHERE id = ? AND billed IS NULL RETURNING reserved",
            (
                one.pico,
                usage.input + usage.cache_write,
                usage.output,
                usage.cache_read,
                one.spend,
            ),
        ).fetchone()
        if row is not None:
            self._db.execute("UPDATE purse SET taken = taken + ?", (one.pico - row[0],))
        if one.answer is not None:
            self._db.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?)",
                (one.key, one.answer.model_dump_json()),
            )

    # Batches

    def intend(self, name: str, model: str, entries: Sequence[BatchEntry]) -> OpenBatch | None:
        """Write a batch down, with as many of its requests as the budget has room for.

        None, and nothing is written, where it has no room for LEAST of them.
        """
        if self._failure:
            raise self._failure
        begun = time.time()
        with self._transaction():
            room = self._count_affordable(entries)
            if room < max(1.0, LEAST * len(entries)):
                return None
            items: dict[str, tuple[str, int]] = {}
            for entry in entries[:room]:
                spend = self._reserve(entry.reservation)
                assert spend is not None  # it was counted in this transaction
                items[entry.custom_id] = entry.key, spend
            self._db.execute(
                "INSERT INTO batches (name, model, begun) VALUES (?, ?, ?)", (name, model, begun)
            )
            self._db.executemany(
                "INSERT INTO batch_items VALUES (?, ?, ?, ?)",
                [(custom_id, name, *item) for custom_id, item in items.items()],
            )
        return OpenBatch(name, model, None, begun, items)

    def _count_affordable(self, entries: Sequence[BatchEntry]) -> int:
        """How many requests, from the first on, the budget has room for."""
        if self.budget is None:
            return len(entries)
        room = self.budget - self.taken()
        sums = accumulate(entry.reservation.pico for entry in entries)
        return sum(1 for _ in takewhile(lambda pico: pico <= room, sums))

    @contextmanager
    def hold_batches(self) -> Iterator[None]:
        """See to this ledger's batches alone; raises HeldError when another process does."""
        path = self.path.with_name(self.path.name + ".batches")
        with self._errors():
            file = path.open("ab")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                raise HeldError(
                    f"{self.path}: another process is handling this ledger's batches",
                    "wait for it, send single requests with --mode single, or use another ledger "
                    "with --ledger",
                    code="batches-held",
                    path=self.path,
                ) from cause
            yield

    def name_batch(self, name: str, remote: str) -> None:
        """Note how its provider calls a batch."""
        with self._transaction():
            self._db.execute("UPDATE batches SET remote = ? WHERE name = ?", (remote, name))

    def close_batch(self, name: str, *, unbilled: Iterable[int] = ()) -> None:
        """Note that a batch is over; what was reserved and is not billed is given back."""
        with self._transaction():
            for spend in unbilled:
                self._settle(Settlement(spend))
            self._db.execute("UPDATE batches SET over = 1 WHERE name = ?", (name,))

    def list_open(self) -> list[OpenBatch]:
        """Batches whose results have not all been read, the oldest first."""
        with self._errors():
            rows = self._db.execute(
                "SELECT name, model, remote, begun FROM batches WHERE NOT over ORDER BY begun"
            ).fetchall()
            return [
                OpenBatch(name, model, remote, begun, self._list_items(name))
                for name, model, remote, begun in rows
            ]

    def _list_items(self, name: str) -> dict[str, tuple[str, int]]:
        rows = self._db.execute(
            "SELECT custom_id, key, spend FROM batch_items WHERE batch = ?", (name,)
        )
        return {custom_id: (key, spend) for custom_id, key, spend in rows}

    def list_remotes(self) -> set[str]:
        """Every batch of a provider that is known here."""
        with self._errors():
            rows = self._db.execute("SELECT remote FROM batches WHERE remote IS NOT NULL")
            return {remote for (remote,) in rows}

    # Accounts

    def taken(self) -> int:
        """Picodollars that are billed or reserved."""
        with self._errors():
            (taken,) = self._db.execute("SELECT taken FROM purse").fetchone()
            return int(taken)

    def list_spent(self) -> list[Spent]:
        """What was asked and paid, by behavior, stage, model and mode."""
        with self._errors():
            rows = self._db.execute(
                "SELECT behavior, stage, model, mode, sum(billed IS NOT NULL), "
                "sum(coalesce(billed, 0)), sum(iif(billed IS NULL, reserved, 0)), "
                "sum(input), sum(output), sum(cached) "
                "FROM spends WHERE billed IS NULL OR input + output + cached > 0 "
                "GROUP BY 1, 2, 3, 4 "
                "UNION ALL SELECT behavior, stage, model, 'replay', requests, 0, 0, 0, 0, 0 "
                "FROM replays ORDER BY 1, 2, 3, 4"
            )
            return [Spent(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def read_spent(path: Path) -> list[Spent]:
    """What a ledger holds; raises BackendError where there is none."""
    if not path.is_file():
        raise BackendError(
            f"{path}: no such ledger",
            "pass its path with --ledger or --out",
            code="ledger-missing",
            path=path,
        )
    ledger = Ledger(path)
    try:
        return ledger.list_spent()
    finally:
        ledger.close()


def read_name(cause: sqlite3.Error) -> str:
    """What SQLite calls an error; nothing where the error is Python's."""
    return getattr(cause, "sqlite_errorname", "")
