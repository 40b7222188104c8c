"""The ledger's SQLite file: its tables, its transactions, and errors that name a remedy."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bestiary.errors import BackendError

VERSION = 2
BUSY_SECONDS = 60.0
"""How long one process waits for another's transaction."""
DISK_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""SQLite's errors on a full disk: neither the file nor its shared-memory index can grow."""
SCHEMA = """
CREATE TABLE answers (
  key TEXT PRIMARY KEY,
  answer TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE totals (taken INTEGER NOT NULL);
INSERT INTO totals VALUES (0);
CREATE TABLE spends (
  id INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
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
  project TEXT NOT NULL,
  stage TEXT NOT NULL,
  model TEXT NOT NULL,
  requests INTEGER NOT NULL,
  PRIMARY KEY (project, stage, model)
) WITHOUT ROWID;
CREATE TABLE batches (
  name TEXT PRIMARY KEY,
  model TEXT NOT NULL,
  remote_id TEXT UNIQUE,
  begun REAL NOT NULL,
  closed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE batch_items (
  custom_id TEXT PRIMARY KEY,
  batch TEXT NOT NULL REFERENCES batches (name),
  key TEXT NOT NULL,
  spend INTEGER NOT NULL REFERENCES spends (id)
) WITHOUT ROWID;
CREATE INDEX batch_items_of ON batch_items (batch);
"""
"""`totals` has one row: all picodollars billed or reserved."""


class LedgerFile:
    """A ledger's database, for one thread of one process; other processes may have it open too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: BackendError | None = None
        """The error of the first transaction that failed."""
        self._in_transaction = False
        with explain_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            self._write_ahead()
        self.execute("PRAGMA synchronous = NORMAL")  # a kill still loses nothing
        with self.transaction():
            self._create_tables()

    def _write_ahead(self) -> None:
        """Let readers work beside a writer. SQLite's own timeout does not cover this statement."""
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as cause:
                if not error_name(cause).startswith("SQLITE_BUSY") or time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def _create_tables(self) -> None:
        ((version,),) = self.execute("PRAGMA user_version")
        if version == 0:
            for statement in SCHEMA.split(";\n"):
                self.execute(statement)
            self.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise BackendError(
                f"{self.path}: the ledger has version {version}; this version of bestiary reads "
                f"version {VERSION}",
                "use the version of bestiary that wrote it, or another file with --ledger",
                code="ledger-version",
                path=self.path,
                version=version,
            )

    def execute(
        self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """The rows that a statement returns."""
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as cause:
            raise explain(self.path, cause) from cause

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all statements of the block or none; an inner transaction joins the outer one."""
        if self._in_transaction:
            yield
            return
        try:
            self.execute("BEGIN IMMEDIATE")
            self._in_transaction = True
            yield
            self.execute("COMMIT")
        except BaseException as error:
            if isinstance(error, BackendError):
                self.failure = self.failure or error
            if self._in_transaction and self._db.in_transaction:  # SQLite may have rolled it back
                self.execute("ROLLBACK")
            raise
        finally:
            self._in_transaction = False

    def close(self) -> None:
        """Close the database."""
        self._db.close()


@contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turn errors in the use of a ledger's files into BackendErrors that name a remedy."""
    try:
        yield
    except (OSError, sqlite3.Error) as cause:
        raise explain(path, cause) from cause


def explain(path: Path, cause: OSError | sqlite3.Error) -> BackendError:
    """The error to raise for one in the use of a ledger's files."""
    if isinstance(cause, OSError):
        return BackendError(
            f"{path}: {cause.strerror}",
            "choose another path with --ledger",
            code="ledger-unreachable",
            path=path,
            reason=cause.strerror,
        )
    if error_name(cause) in DISK_FULL:
        free = shutil.disk_usage(path.parent).free // 2**20
        return BackendError(
            f"{path}: the disk is full ({free} MiB free)",
            "free some space and run the same command again; everything committed is kept",
            code="disk-full",
            path=path,
            free_mib=free,
        )
    return BackendError(
        f"{path}: SQLite cannot use the ledger: {cause}",
        "check the disk; if the file is damaged, move it away (its answers are then requested and "
        "paid for again)",
        code="ledger-failed",
        path=path,
        reason=str(cause),
    )


def error_name(cause: sqlite3.Error) -> str:
    """SQLite's name of an error; empty for an error of Python's own."""
    return getattr(cause, "sqlite_errorname", "")
