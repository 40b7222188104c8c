"""Lexicons: lists of words and phrases that share a subject or a manner, and how they are found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from bestiary.config.fields import Sentence
from bestiary.config.source import Source, Violation, load_model
from bestiary.records import Record
from bestiary.text import fold

GAP = "..."
"""Stands in an entry for a few words that may be any."""
MAX_GAP = 4
"""The most words that a gap spans."""
MAX_GAPS = 2
"""The most gaps of an entry: each multiplies the places that are tried."""
MIN_STEM = 3
"""The fewest letters before a `*`, which stands for any ending."""
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.!?;:\n]")
_STEP = re.compile(r"\.\.\.|[^\W_]+(?:'[^\W_]+)*\*?|[!?]")
_KNOWN = re.compile(r"(?:[\w\s'*!?,-]|\.\.\.)+")
_WORDS = re.compile(r"[A-Za-z0-9]+(?:[ '-][A-Za-z0-9]+)*")
_MARKS = frozenset(".!?;:\n")


@lru_cache(maxsize=16384)  # every lexicon is tried on the same answers
def _tokenize(text: str) -> tuple[str, ...]:
    """The lowercase words of a text, and the marks that end its clauses."""
    return tuple(_TOKEN.findall(fold(text).lower()))


def _read_steps(entry: str) -> tuple[str, ...]:
    """What an entry asks for, word by word."""
    return tuple(_STEP.findall(fold(entry).lower()))


def _check_entry(entry: str) -> str:
    if _WORDS.fullmatch(entry):
        return entry  # nearly every one
    text, steps = fold(entry), _read_steps(entry)
    if not any(step[0].isalnum() for step in steps):
        raise ValueError("has no word")
    if not _KNOWN.fullmatch(text):
        raise ValueError("holds more than words, `*`, `...`, commas, and the marks ! and ?")
    if GAP in (steps[0], steps[-1]):
        raise ValueError("begins or ends with `...`, which stands for the words between two")
    if steps.count(GAP) > MAX_GAPS:
        raise ValueError(f"has more than {MAX_GAPS} gaps (`...`)")
    if re.search(r"(?<!\w)\*|\*\w", text):
        raise ValueError("has a `*` that is not the end of a word")
    if any(step.endswith("*") and len(step) <= MIN_STEM for step in steps):
        raise ValueError(f"has fewer than {MIN_STEM} letters before a `*`")
    return entry


Entry = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_entry)]
"""A word or a phrase, found as whole words whatever their case.

`*` at the end of a word stands for any ending, `...` for up to four words; commas make no
difference, and `!` or `?` asks for that mark. No entry reaches past the end of a sentence.
"""


class Lexicon(Record):
    """Words and phrases that share a subject or a manner."""

    about: Sentence
    entries: tuple[Entry, ...] = Field(min_length=1)


class Lexicons(Mapping[str, Lexicon]):
    """Lexicons by name, each read when it is first asked for: there are hundreds."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        self._read: dict[str, Lexicon] = {}

    def __getitem__(self, name: str) -> Lexicon:
        if name not in self._read:
            self._read[name] = read_lexicon(self.files[name])
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


class Phrases:
    """Entries, ready to be found in texts."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._by_word: dict[str, list[tuple[str, ...]]] = {}
        self._by_stem: dict[str, list[tuple[str, ...]]] = {}
        for entry in entries:
            steps = _read_steps(entry)
            stem = steps[0].endswith("*")
            index, key = (self._by_stem, steps[0][:MIN_STEM]) if stem else (self._by_word, steps[0])
            index.setdefault(key, []).append(steps)

    def find(self, text: str) -> str | None:
        """The words of the first entry found in a text; None if there is none."""
        words = _tokenize(text)
        for start, word in enumerate(words):
            by_stem = self._by_stem.get(word[:MIN_STEM], ())
            for steps in (*self._by_word.get(word, ()), *by_stem):
                end = _match(steps, words, start)
                if end is not None:
                    return " ".join(words[start:end])
        return None


@lru_cache(maxsize=1024)
def index_phrases(entries: tuple[str, ...]) -> Phrases:
    """Entries, ready to be found in texts."""
    return Phrases(entries)


def _match(steps: Sequence[str], words: Sequence[str], at: int) -> int | None:
    """Where the steps end in the words if they begin at a place; None if they do not fit."""
    for place, step in enumerate(steps):
        if step == GAP:
            return _match_after_gap(steps[place + 1 :], words, at)
        if at >= len(words) or not _fits(step, words[at]):
            return None
        at += 1
    return at


def _match_after_gap(steps: Sequence[str], words: Sequence[str], at: int) -> int | None:
    for skipped in range(MAX_GAP + 1):
        end = _match(steps, words, at + skipped)
        if end is not None:
            return end
        if at + skipped >= len(words) or words[at + skipped] in _MARKS:
            return None
    return None


def _fits(step: str, word: str) -> bool:
    return word.startswith(step[:-1]) if step.endswith("*") else word == step


def read_lexicon(path: Path) -> Lexicon:
    """Read a lexicon; raises Violations for everything that is wrong with it."""
    return load_model(path, Lexicon, _find_repeats)


def _find_repeats(source: Source, lexicon: Lexicon) -> Iterator[Violation]:
    first: dict[tuple[str, ...], int] = {}
    for row, entry in enumerate(lexicon.entries):
        earlier = first.setdefault(_read_steps(entry), row)
        if earlier != row:
            problem = f"{entry!r} finds the same as {lexicon.entries[earlier]!r}"
            remedy = "keep one of the two"
            yield source.violation(("entries", row), problem, remedy, code="entry-repeated")
