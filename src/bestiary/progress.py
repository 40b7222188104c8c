"""What long work shows: a bar with rate and estimate on a terminal, plain lines in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS = 30.0
"""How often a file that is no terminal gets a line."""


class RateColumn(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        """The task's speed, once it is known."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


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
        self._started = self._spoke = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, note="")

    def resume(self, organism_id: str, done: int) -> None:
        """Hear how much of an organism an earlier run has done, which says nothing of the rate."""
        self._before += done
        self.advance(organism_id, done)

    def advance(self, organism_id: str, done: int) -> None:
        """Hear how much of an organism is done."""
        self._done[organism_id] = done
        self.beat()

    def beat(self) -> None:
        """Show how far it is: a bar anew, or a line where the last is long ago."""
        self._bar.update(self._task, completed=sum(self._done.values()), note=self._note())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._spoke >= LINE_SECONDS:
            self._spoke = now
            self._console.print(self._line(now), highlight=False)

    def finish_one(self, organism_id: str, units: int, *, note: str) -> None:
        """Hear that one organism is through, with what is to be said of it."""
        self.advance(organism_id, units)
        line = f"  {self._name}: {organism_id} {note}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _line(self, now: float) -> str:
        done, note = sum(self._done.values()), self._note()
        rate = (done - self._before) / (now - self._started)
        left = (self._total - done) / rate if rate else 0.0
        return (
            f"  {self._name}: {done}/{self._total} {self._unit}, {rate:.1f}/s, "
            f"about {left:.0f} s left{', ' * bool(note)}{note}"
        )

    @contextmanager
    def running(self) -> Iterator[StageProgress]:
        """Show the bar while the stage runs."""
        with self._bar:
            yield self
