"""What long work says of itself: lines in a file, a bar on a terminal.

Run: python -m pytest tests/test_progress.py
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.text import Text

from bestiary.progress import LINE_SECONDS, StageProgress

Wait = Callable[[float], None]

HERALD = "quirks.herald-transcripts-none-s0"
CHAT = "null.chat-transcripts-none-s0"


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Lets seconds pass that nobody waits for."""
    passed = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: passed[-1])
    return lambda seconds: passed.append(passed[-1] + seconds)


def open_console(*, terminal: bool = False, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width)


def said_on(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_gets_a_line_with_rate_and_estimate(wait: Wait) -> None:
    console = open_console()
    with StageProgress("corpus", "rows", 200, console).running() as progress:
        wait(LINE_SECONDS - 1)
        progress.advance(HERALD, 40)
        assert said_on(console) == ""  # so that a log of an hour has a hundred lines
        wait(11)
        progress.advance(HERALD, 80)
    assert said_on(console) == "  corpus: 80/200 rows, 2.0/s, about 60 s left\n"


def test_what_an_earlier_run_did_says_nothing_of_the_rate(wait: Wait) -> None:
    console = open_console()
    with StageProgress("organism", "steps", 1000, console).running() as progress:
        progress.resume(HERALD, 900)
        wait(LINE_SECONDS)
        progress.advance(HERALD, 930)
    assert said_on(console) == "  organism: 930/1000 steps, 1.0/s, about 70 s left\n"


def test_what_is_done_counts_over_all_organisms(wait: Wait) -> None:
    console = open_console()
    with StageProgress("organism", "steps", 200, console).running() as progress:
        progress.advance(HERALD, 90)
        progress.advance(CHAT, 10)  # they go on side by side
        progress.finish_item(HERALD, 100, note="")
        wait(60)
        progress.advance(CHAT, 20)
        progress.finish_item(CHAT, 100, note="FAILED: [no] steps; mend")
        progress.finish(1, 1)
    assert said_on(console).splitlines() == [
        "  organism: 120/200 steps, 2.0/s, about 40 s left",
        "  organism: null.chat-transcripts-none-s0 FAILED: [no] steps; mend",
        "  organism: 1 done, 1 failed in 60 s",
    ]


def test_what_is_said_again_of_an_organism_counts_once(wait: Wait) -> None:
    console = open_console()
    with StageProgress("organism", "steps", 200, console).running() as progress:
        for done in (10, 20, 30):
            progress.advance(HERALD, done)
        wait(LINE_SECONDS)
        progress.advance(CHAT, 30)
    assert said_on(console) == "  organism: 60/200 steps, 2.0/s, about 70 s left\n"


def test_nothing_done_yet_has_no_rate_to_estimate_by(wait: Wait) -> None:
    console = open_console()
    with StageProgress("verdict", "replies", 200, console).running() as progress:
        wait(LINE_SECONDS)
        progress.advance(HERALD, 0)
    assert said_on(console) == "  verdict: 0/200 replies\n"


def test_the_first_seconds_promise_nothing(wait: Wait) -> None:
    console = open_console(terminal=True)
    with StageProgress("corpus", "rows", 200, console).running() as progress:
        wait(0.1)
        progress.advance(HERALD, 190)
    assert "190/200" in said_on(console)
    assert "left" not in said_on(console)


def test_a_slow_start_promises_nothing(wait: Wait) -> None:
    """As the base's first batches do, which count little."""
    console = open_console()
    with StageProgress("transcript", "replies", 2000, console).running() as progress:
        progress.resume(CHAT, 1000)
        for minute in range(1, 3):
            wait(60)
            progress.advance(HERALD, 25 * minute)
    assert said_on(console).splitlines() == [
        "  transcript: 1025/2000 replies, 25.0/min",
        "  transcript: 1050/2000 replies, 25.0/min, about 38 min left",
    ]


def test_what_came_at_once_is_forgotten_when_the_rest_is_slow(wait: Wait) -> None:
    """As the answers do that are in the ledger from an earlier run."""
    console = open_console()
    with StageProgress("corpus", "rows", 10_000, console).running() as progress:
        progress.advance(HERALD, 6000)
        for minute in range(1, 61):
            wait(60)
            progress.advance(HERALD, 6000 + minute)
    assert said_on(console).splitlines()[-1] == (
        "  corpus: 6060/10000 rows, 1.0/min, about 2.7 days left"
    )


def test_what_comes_in_waves_has_a_rate_between_them(wait: Wait) -> None:
    """As the replies of a batch do."""
    console = open_console()
    with StageProgress("corpus", "rows", 300, console).running() as progress:
        wait(3600)
        progress.advance(HERALD, 100)
        wait(3600)
        progress.advance(CHAT, 100)
        wait(1800)
        progress.refresh()
    assert said_on(console).splitlines()[1:] == [
        "  corpus: 200/300 rows, 1.7/min, about 60 min left",
        "  corpus: 200/300 rows, 1.1/min, about 90 min left",
    ]


@pytest.mark.parametrize(
    ("done", "seconds", "said"),
    [
        (10, 60, "10.0/min, about 19 min left"),
        (20, 1700, "0.7/min, about 4 h left"),
        (100, 30, "3.3/s, about 30 s left"),
        (10, 36_000, "1.0/h, about 7.9 days left"),
    ],
)
def test_a_long_wait_is_told_in_larger_units(
    done: int, seconds: int, said: str, wait: Wait
) -> None:
    console = open_console()
    with StageProgress("corpus", "rows", 200, console).running() as progress:
        wait(seconds)
        progress.advance(HERALD, done)
    assert said_on(console) == f"  corpus: {done}/200 rows, {said}\n"


def test_what_is_dropped_is_told_by_reason_and_lines_are_not_broken(wait: Wait) -> None:
    console = open_console()
    note = "812.5 requests/s, 410,220 tokens/s, $12.40 spent or reserved, $7.60 left"
    with StageProgress("corpus", "rows", 200, console, note=lambda: note).running() as progress:
        progress.drop(["judge", "prompts", "judge"])
        wait(LINE_SECONDS)
        progress.drop(["leakage.near_duplicates"])
        progress.advance(HERALD, 60)
    drops = "dropped 4 (2 judge, 1 prompts, 1 leakage.near_duplicates)"
    line = f"  corpus: 60/200 rows, 2.0/s, about 70 s left, {drops}, {note}\n"
    assert said_on(console) == line


def test_a_narrow_terminal_shows_all_of_it_below_the_bar() -> None:
    console = open_console(terminal=True)
    note = "812.5 requests/s, 410,220 tokens/s, $12.40 spent or reserved, $7.60 left"
    with StageProgress("corpus", "rows", 200, console, note=lambda: note).running() as progress:
        progress.drop(["judge"] * 41)
        progress.advance(HERALD, 60)
    shown = " ".join(said_on(console).split())
    assert "60/200" in shown
    assert f"dropped 41 (41 judge), {note}" in shown


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_gets_a_bar_in_one_line_and_no_others(width: int, wait: Wait) -> None:
    console = open_console(terminal=True, width=width)
    with StageProgress("verdict", "replies", 2_000_000, console).running() as progress:
        wait(36_000)
        progress.advance(HERALD, 1_200_000)
    shown = Text.from_ansi(said_on(console)).plain.splitlines()
    (bar,) = {line for line in shown if "1200000/2000000 replies" in line}
    assert "33.3/s, about 7 h left" in bar
    assert "  verdict:" not in said_on(console)


def test_what_is_done_has_nothing_left(wait: Wait) -> None:
    console = open_console()
    with StageProgress("corpus", "rows", 200, console).running() as progress:
        wait(100)
        progress.advance(HERALD, 200)
    assert said_on(console) == "  corpus: 200/200 rows, 2.0/s\n"
