"""The ledger: answers, reservations and bills under a budget, in a file that processes may share.

Before a request is sent, the most it can cost is reserved. Its answer is committed together with
its bill, which replaces the reservation. If a process or a connection dies before the answer
arrives, the reservation stays, marked unknown, since the server may have billed the request.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from bestiary.errors import BackendError
from bestiary.llm.ledger_file import LedgerFile
from bestiary.llm.request import Answer, Usage

Mode = Literal["single", "batch", "file", "replay"]


class UsageTag(NamedTuple):
    """What a request is for: costs are reported by project and stage."""

    project: str
    stage: str


@dataclass(frozen=True)
class Reservation:
    """The most a request can cost, set aside before it is sent."""

    tag: UsageTag
    model: str
    pico: int
    mode: Mode = "single"


@dataclass(frozen=True)
class Settlement:
    """What became of a request: an answer, a bill, both, or neither if it was not billed."""

    spend: int
    """The reservation's id."""
    pico: int | None = 0
    """The bill, which ends the reservation; None if it is unknown and the reservation stays."""
    key: str = ""
    answer: Answer | None = None
    usage: Usage | None = None
    """The tokens billed for a request without an answer."""


@dataclass(frozen=True)
class Spent:
    """Requests and costs of one tag, model and mode."""

    project: str
    stage: str
    model: str
    mode: Mode
    requests: int
    """Requests that were answered; in mode replay, from answers that the ledger already held."""
    pico: int
    """Picodollars billed."""
    unknown: int
    """Picodollars reserved for requests that are in flight or whose answer was lost."""
    input: int
    output: int
    cached: int


class Pace(NamedTuple):
    """How quickly servers answered, as far as the ledger knows."""

    requests: int
    seconds: float


class Ledger:
    """Answers, reservations and bills of one file; for one thread of one process."""

    def __init__(self, path: Path, *, budget: int | None = None) -> None:
        self.path = path
        self.budget = budget
        """The most that bills and reservations may add up to, in picodollars."""
        self.file = LedgerFile(path)

    def find(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers that the ledger holds, by key."""
        rows = self.file.execute(
            "SELECT key, answer FROM answers WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        return {key: Answer.model_validate_json(answer) for key, answer in rows}

    def keep(self, tag: UsageTag, model: str, answers: Mapping[str, Answer]) -> None:
        """Commit answers, by key, that came from a file: no budget has to allow them."""
        with self.file.transaction():
            for key, answer in answers.items():
                self._insert_answer(key, answer)
                self.file.execute(
                    "INSERT INTO spends (project, stage, model, mode, begun, reserved, billed, "
                    "input, output, cached) VALUES (?, ?, ?, 'file', ?, 0, 0, ?, ?, ?)",
                    (*tag, model, time.time(), *_count_tokens(answer.usage)),
                )

    def correct(self, answers: Mapping[str, Answer]) -> None:
        """Replace answers that the ledger holds, by key; what they cost stays."""
        with self.file.transaction():
            for key, answer in answers.items():
                self.file.execute(
                    "UPDATE answers SET answer = ? WHERE key = ?", (answer.model_dump_json(), key)
                )

    def _insert_answer(self, key: str, answer: Answer) -> None:
        self.file.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, answer.model_dump_json())
        )

    def count_replays(self, tag: UsageTag, model: str, requests: int) -> None:
        """Count requests that were answered from the ledger."""
        with self.file.transaction():
            self.file.execute(
                "INSERT INTO replays VALUES (?, ?, ?, ?) ON CONFLICT "
                "DO UPDATE SET requests = requests + excluded.requests",
                (*tag, model, requests),
            )

    def settle_and_reserve(
        self, settlements: Sequence[Settlement], reservations: Sequence[Reservation] = ()
    ) -> list[int | None]:
        """Settle, then reserve, in one transaction.

        Returns the id of each reservation, or None where the budget has no room for it. After a
        failed transaction, nothing more is reserved: on a nearly full disk a reservation may still
        fit where its answer does not, and the request would be paid for in vain.
        """
        failure = self.file.failure
        spends: list[int | None] = []
        with self.file.transaction():
            taken = self.taken() + sum(self._settle(settlement) for settlement in settlements)
            for reservation in reservations if failure is None else ():
                fits = self.budget is None or taken + reservation.pico <= self.budget
                spends.append(self._insert(reservation) if fits else None)
                taken += reservation.pico if fits else 0
            self.file.execute("UPDATE totals SET taken = ?", (taken,))
        if failure is not None and reservations:
            raise failure
        return spends

    def _settle(self, one: Settlement) -> int:
        """Settle a reservation; returns by how much this changes the total."""
        if one.answer is not None:
            self._insert_answer(one.key, one.answer)
        if one.pico is None:
            return 0
        pico, stated = one.pico, one.answer.usage if one.answer else one.usage
        usage = stated or Usage(input=0, output=0)
        settled = self.file.execute(
            "UPDATE spends SET billed = ?, input = ?, output = ?, cached = ? "
            "WHERE id = ? AND billed IS NULL RETURNING reserved",
            (pico, *_count_tokens(usage), one.spend),
        )
        return sum(pico - reserved for (reserved,) in settled)  # 0 if it was settled before

    def _insert(self, one: Reservation) -> int:
        ((spend,),) = self.file.execute(
            "INSERT INTO spends (project, stage, model, mode, begun, reserved) "
            "VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
            (*one.tag, one.model, one.mode, time.time(), one.pico),
        )
        return int(spend)

    def taken(self) -> int:
        """Picodollars billed or reserved."""
        ((taken,),) = self.file.execute("SELECT taken FROM totals")
        return int(taken)

    def list_spent(self) -> list[Spent]:
        """Requests and costs by project, stage, model and mode."""
        rows = self.file.execute(
            "SELECT project, stage, model, mode, sum(billed IS NOT NULL), "
            "sum(coalesce(billed, 0)), sum(iif(billed IS NULL, reserved, 0)), "
            "sum(input), sum(output), sum(cached) "
            "FROM spends WHERE billed IS NULL OR mode = 'file' OR input + output + cached > 0 "
            "GROUP BY 1, 2, 3, 4 "
            "UNION ALL SELECT project, stage, model, 'replay', requests, 0, 0, 0, 0, 0 "
            "FROM replays ORDER BY 1, 2, 3, 4"
        )
        return [Spent(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _count_tokens(usage: Usage) -> tuple[int, int, int]:
    """Input, output and cached tokens, as accounts count them: cache writes are input."""
    return usage.input + usage.cache_write, usage.output, usage.cache_read


def read_pace(path: Path, since: float) -> Pace:
    """Requests to servers that began after a time, in seconds since 1970, and how long they took.

    The time from the first beginning to the last, since the ledger holds no endings.
    """
    ledger = Ledger(path)
    try:
        rows = ledger.file.execute(
            "SELECT count(*), max(begun) - min(begun) FROM spends "
            "WHERE mode = 'single' AND begun >= ? AND input + output + cached > 0",
            (since,),
        )
        ((requests, seconds),) = rows
        return Pace(int(requests), float(seconds or 0))
    finally:
        ledger.close()


def read_spent(path: Path) -> list[Spent]:
    """What a ledger has spent; raises BackendError if the file does not exist."""
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
