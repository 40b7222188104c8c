"""Progress of long work: a bar with rate and estimate on a terminal, plain lines in a file."""

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
"""How often a line is printed when the output is not a terminal."""
WARMUP_SECONDS = 5.0
"""No rate is shown before this: the first few units would give a misleading estimate."""

FORETOLD = 0.05
"""No time left is shown before this share of the work: a stage may begin with its slowest."""


class Mark(NamedTuple):
    """How much of this run's work was done at some time."""

    seconds: float
    done: int


class Bar(Progress):
    """A progress bar with a note below it, where a narrow terminal can wrap the line."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the note."""
        yield from super().get_renderables()
        if self.note:
            yield Text(f"  {self.note}")


class StageProgress:
    """How far a stage is, in units of work summed over its items."""

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
        self._started = self._printed = time.monotonic()
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

    def resume(self, item_id: str, done: int) -> None:
        """Count units that an earlier run finished; they do not enter the rate."""
        self._before += done
        self.advance(item_id, done)

    def advance(self, item_id: str, done: int) -> None:
        """Set how many units of an item are done."""
        self._done[item_id] = done
        self.refresh()

    def drop(self, reasons: Iterable[str]) -> None:
        """Count dropped examples by reason."""
        self._drops.update(reasons)

    def refresh(self) -> None:
        """Redraw the bar; in a file, print a line if the last one is old enough."""
        now = time.monotonic()
        self._mark(now)
        self._bar.note = self._describe_more()
        pace = ", ".join(self._describe_pace(now))
        self._bar.update(self._task, completed=self._sum_done(), pace=pace)
        if not self._console.is_terminal and now - self._printed >= LINE_SECONDS:
            self._printed = now
            self.print(self._format_line(now))

    def finish_item(self, item_id: str, units: int, *, note: str) -> None:
        """Count an item as finished and print the note about it, if there is one."""
        self.advance(item_id, units)
        if note:
            self.print(f"  {self._name}: {item_id} {note}")

    def finish(self, done: int, failed: int) -> None:
        """Print how many items were made, and in what time."""
        parts = [f"{done} done", *([f"{failed} failed"] if failed else [])]
        spent = show_seconds(time.monotonic() - self._started)
        self.print(f"  {self._name}: {', '.join(parts)} in {spent}")

    def print(self, line: str) -> None:
        """Print a line above the bar, without wrapping it."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def running(self) -> Iterator[StageProgress]:
        """Show the bar while the stage runs."""
        with self._bar:
            yield self

    def _sum_done(self) -> int:
        return sum(self._done.values())

    def _format_line(self, now: float) -> str:
        done = f"{self._sum_done()}/{self._total} {self._unit}"
        parts = [done, *self._describe_pace(now), self._describe_more()]
        return f"  {self._name}: {', '.join(part for part in parts if part)}"

    def _describe_pace(self, now: float) -> list[str]:
        """The rate and the time left, as far as they are known."""
        rate = self._measure_rate(now)
        if not rate:
            return []
        pace, left = [show_rate(rate)], self._total - self._sum_done()
        if left and self._sum_done() - self._before >= FORETOLD * (self._total - self._before):
            pace.append(f"about {show_seconds(left / rate)} left")
        return pace

    def _mark(self, now: float) -> None:
        """Record a mark each time the run has doubled in age."""
        age = self._newer.seconds - self._started
        if now - self._newer.seconds >= max(LINE_SECONDS, age):
            self._older, self._newer = self._newer, Mark(now, self._sum_done() - self._before)

    def _measure_rate(self, now: float) -> float:
        """Units per second over at least the second half of the run.

        Answers found in a ledger all arrive at the start, so the first half may mislead; units
        may also arrive in waves, so a shorter window may be empty.
        """
        if now - self._started < WARMUP_SECONDS:
            return 0.0
        done = self._sum_done() - self._before
        since = self._older if done > self._older.done else Mark(self._started, 0)
        return (done - since.done) / (now - since.seconds)

    def _describe_more(self) -> str:
        """The drops and the stage's own note."""
        drops = f"dropped {show_counts(self._drops)}" if self._drops else ""
        return ", ".join(part for part in (drops, self._note()) if part)


def show_counts(counts: Counter[str]) -> str:
    """A sum and its parts, the largest first."""
    parts = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{counts.total()} ({parts})"


def show_rate(rate: float) -> str:
    """Units per second, or per minute or hour if they are slow."""
    for unit, size in (("s", 1), ("min", 60)):
        if size * rate >= 0.5:
            return f"{size * rate:.1f}/{unit}"
    return f"{3600 * rate:.1f}/h"


def show_seconds(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"
