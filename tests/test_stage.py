"""A stage is one class: resume, errors, timings and progress come with it.

Run: python -m pytest tests/test_stage.py
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from tests.expect import check_error, expect_error

from bestiary import progress
from bestiary.errors import CorpusError, StoreError
from bestiary.records import Artifact, fingerprint
from bestiary.stage import ItemStage, Result, run_stage
from bestiary.store import Store


@dataclass(frozen=True)
class Word:
    """Something to shout."""

    item_id: str
    text: str


class Shout(ItemStage[Word, str]):
    """A toy stage, complete: it writes words in capitals."""

    name = "shout"
    version = 1
    unit = "words"

    def __init__(self) -> None:
        self.made: list[str] = []

    def key(self, item: Word) -> str:
        return fingerprint(text=item.text, version=self.version)

    def make(self, item: Word) -> Callable[[Path], None]:
        self.made.append(item.text)
        if not item.text:
            raise CorpusError(f"{item.item_id} is empty", "write a word", code="word-empty")
        return lambda folder: void(folder / "word.txt", item.text.upper())

    def read(self, artifact: Artifact) -> str:
        return (artifact.folder / "word.txt").read_text(encoding="utf8")


def void(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf8")


WORDS = (Word("a", "soup"), Word("b", ""), Word("c", "bread"))


def shout(
    stage: Shout, root: Path, words: Sequence[Word] = WORDS, console: Console | None = None
) -> list[Result[Word, str]]:
    store = Store(root)
    with store.lock():
        return run_stage(stage, words, store=store, console=console or Console(quiet=True))


def test_each_item_gets_an_artifact_or_its_own_error(tmp_path: Path) -> None:
    one, two, three = shout(Shout(), tmp_path)
    assert (one.read(), three.read()) == ("SOUP", "BREAD")
    check_error(two.error, "word-empty")
    assert two.artifact is None


def test_a_rerun_makes_only_what_is_missing(tmp_path: Path) -> None:
    shout(Shout(), tmp_path, WORDS[:1])
    stage = Shout()
    one, two, three = shout(stage, tmp_path)
    assert stage.made == ["", "bread"]
    assert [result.error is None for result in (one, two, three)] == [True, False, True]


def test_how_long_an_artifact_took_is_remembered(tmp_path: Path) -> None:
    (first,) = shout(Shout(), tmp_path, WORDS[:1])
    (again,) = shout(Shout(), tmp_path, WORDS[:1])
    assert first.seconds == again.seconds >= 0
    assert Store(tmp_path).read_seconds("shout").keys() == {Shout().key(WORDS[0])}


def test_failures_are_printed_as_they_end_and_then_how_many_there_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    console = Console(file=io.StringIO(), width=200)
    shout(Shout(), tmp_path, console=console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "  shout: b FAILED: b is empty; write a word" in lines
    assert lines[-2].startswith("  shout: 3/3 words")
    assert lines[-1].startswith("  shout: 2 done, 1 failed in ")


def test_a_stage_with_nothing_to_do_prints_nothing(tmp_path: Path) -> None:
    shout(Shout(), tmp_path, WORDS[:1])
    console = Console(file=io.StringIO())
    shout(Shout(), tmp_path, WORDS[:1], console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


class Full(Shout):
    """A stage whose disk is full."""

    def make(self, item: Word) -> Callable[[Path], None]:
        raise StoreError("the disk is full", "free some space", code="disk-full")


def test_an_error_that_concerns_all_ends_the_run(tmp_path: Path) -> None:
    with expect_error(StoreError, "disk-full"):
        shout(Full(), tmp_path)


class Louder(Shout):
    """The same stage, changed."""

    version = 2


def test_a_changed_version_makes_everything_again(tmp_path: Path) -> None:
    shout(Shout(), tmp_path, WORDS[:1])
    stage = Louder()
    shout(stage, tmp_path, WORDS[:1])
    assert stage.made == ["soup"]
