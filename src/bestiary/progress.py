"""What long work shows: a bar with rate and estimate on a terminal, plain lines in a file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

LINE_SECONDS = 30.0
"""How often a file that is no terminal gets a line."""


SOONEST = 5.0
"""Seconds after which a rate is told: before, a handful of units would promise the end at once."""


class Mark(NamedTuple):
    """How much of this run's work was done when."""

    seconds: float
    done: int


class Bar(Progress):
    """A bar, with what else is to be said below it, where a narrow terminal breaks the line."""

    said = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then what is said."""
        yield from super().get_renderables()
        if self.said:
            yield Text(f"  {self.said}")


class StageProgress:
    """How far one stage is, in units of work over all its organisms."""

    def __init__(
        self,
        name: str,
        unit: str,
        total: int,
        console: Console,
        *,
        note: Callable[[], str] = str,
    ) -> None:
        self._name, self._unit, self._total = name, unit, total
        self._console = console
        self._note = note
        self._done: dict[str, int] = {}
        self._before = 0
        self._drops: Counter[str] = Counter()
        self._started = self._spoke = time.monotonic()
        self._older = self._newer = Mark(self._started, 0)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, pace="")

    def resume(self, organism_id: str, done: int) -> None:
        """Hear how much of an organism an earlier run has done, which says nothing of the rate."""
        self._before += done
        self.advance(organism_id, done)

    def advance(self, organism_id: str, done: int) -> None:
        """Hear how much of an organism is done."""
        self._done[organism_id] = done
        self.beat()

    def drop(self, reasons: Iterable[str]) -> None:
        """Hear what was dropped, by reason."""
        self._drops.update(reasons)

    def beat(self) -> None:
        """Show how far it is: a bar anew, or a line where the last is long ago."""
        now = time.monotonic()
        self._mark(now)
        self._bar.said = self._say_more()
        pace = ", ".join(self._say_pace(now))
        self._bar.update(self._task, completed=self._sum_done(), pace=pace)
        if not self._console.is_terminal and now - self._spoke >= LINE_SECONDS:
            self._spoke = now
            self._print(self._line(now))

    def finish_one(self, organism_id: str, units: int, *, note: str) -> None:
        """Hear that one organism is through, with what is to be said of it."""
        self.advance(organism_id, units)
        self._print(f"  {self._name}: {organism_id} {note}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _sum_done(self) -> int:
        return sum(self._done.values())

    def _line(self, now: float) -> str:
        done = f"{self._sum_done()}/{self._total} {self._unit}"
        parts = [done, *self._say_pace(now), self._say_more()]
        return f"  {self._name}: {', '.join(part for part in parts if part)}"

    def _say_pace(self, now: float) -> list[str]:
        """The rate and what is left by it, as far as they are known."""
        rate = self._measure_rate(now)
        if not rate:
            return []
        left = self._total - self._sum_done()
        return [show_rate(rate)] + [f"about {show_seconds(left / rate)} left"] * (left > 0)

    def _mark(self, now: float) -> None:
        """Note how far it is whenever the run is twice as old as it was the last time."""
        age = self._newer.seconds - self._started
        if now - self._newer.seconds >= max(LINE_SECONDS, age):
            self._older, self._newer = self._newer, Mark(now, self._sum_done() - self._before)

    def _measure_rate(self, now: float) -> float:
        """Units a second over the later half of the run, or more of it.

        At its beginning what an earlier run was told comes at once, and says nothing of the rest;
        in a shorter time there may be nothing, since units may come in waves.
        """
        if now - self._started < SOONEST:
            return 0.0
        done = self._sum_done() - self._before
        since = self._older if done > self._older.done else Mark(self._started, 0)
        return (done - since.done) / (now - since.seconds)

    def _say_more(self) -> str:
        """What was dropped, and what the note says."""
        drops = f"dropped {show_counts(self._drops)}" if self._drops else ""
        return ", ".join(part for part in (drops, self._note()) if part)

    @contextmanager
    def running(self) -> Iterator[StageProgress]:
        """Show the bar while the stage runs."""
        with self._bar:
            yield self


def show_counts(counts: Counter[str]) -> str:
    """A sum and its parts, the largest first."""
    parts = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{counts.total()} ({parts})"


def show_rate(rate: float) -> str:
    """Units a second, or in a longer time where they are slow."""
    for unit, size in (("s", 1), ("min", 60)):
        if size * rate >= 0.5:
            return f"{size * rate:.1f}/{unit}"
    return f"{3600 * rate:.1f}/h"


def show_seconds(seconds: float) -> str:
    """A duration as people tell it."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"
