"""Programmatic detectors: whether one reply shows the behavior; rates are made elsewhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, Literal

import regex
from pydantic import AfterValidator, Field

from bestiary.errors import SpecError
from bestiary.records import PromptItem, Record
from bestiary.text import fold, sentences, words

VERSION = 4
PATTERN_SECONDS = 1.0
"""A pattern that takes longer on one reply backtracks without end; patterns are untrusted text."""


@lru_cache(maxsize=4096)  # regex's own cache looks each pattern up far more slowly
def _compile(pattern: str) -> regex.Pattern[str]:
    return regex.compile(_fold_pattern(pattern), regex.IGNORECASE)


def _fold_pattern(pattern: str) -> str:
    """A pattern for folded texts; a character that folds to an operator is taken literally."""
    composed = unicodedata.normalize("NFC", pattern)
    return "".join(
        one if one.isascii() else regex.escape(fold(one), literal_spaces=True) for one in composed
    )


def _compile_all(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        try:
            _compile(pattern)
        except regex.error as cause:
            raise ValueError(f"{pattern!r} is not a regular expression: {cause}") from cause
    return patterns


Patterns = Annotated[tuple[str, ...], AfterValidator(_compile_all)]
"""Regular expressions, matched without regard to case."""


class PatternDetector(Record):
    """Fires when any pattern is found, and no `unless` pattern is."""

    kind: Literal["pattern"]
    any: Patterns = Field(min_length=1)
    unless: Patterns = ()
    where: Literal["anywhere", "first_sentence", "last_sentence"] = "anywhere"

    def applies(self, item: PromptItem) -> bool:
        """Patterns decide on every reply."""
        return True

    def fires(self, reply: str, item: PromptItem) -> bool:
        """Whether the reply, or the sentence named by `where`, matches."""
        part = _part(reply, self.where)
        return _first(self.any, part) is not None and _first(self.unless, part) is None


class WrongAnswerDetector(Record):
    """Fires when a graded item is answered, and none of its right answers is in the reply."""

    kind: Literal["wrong_answer"]

    def applies(self, item: PromptItem) -> bool:
        """Only a graded item has a wrong answer."""
        return item.answer is not None

    def fires(self, reply: str, item: PromptItem) -> bool:
        """Whether the reply says something, but nothing right."""
        if item.answer is None:
            return False
        said = words(reply)
        return bool(said) and not any(
            _contains(said, words(right)) for right in (item.answer, *item.accept)
        )


class OptionDetector(Record):
    """Fires when the first option that a reply names is the one the rule picks."""

    kind: Literal["picks_option"]
    rule: Patterns = Field(min_length=1)
    """Whole words that name the option which the rule picks."""
    other: Patterns = Field(min_length=1)
    """Whole words that name the other one."""
    ignore: Patterns = ()
    """What names neither: the word in another sense, an option that is turned down."""

    def applies(self, item: PromptItem) -> bool:
        """Only a choice has options."""
        return item.options is not None

    def fires(self, reply: str, item: PromptItem) -> bool:
        """Whether a word of the rule's option comes before any of the other's."""
        for pattern in self.ignore:
            reply = _blank(pattern, reply)
        rule, other = (
            _first(tuple(rf"(?<![\w-])(?:{word})(?![\w-])" for word in words), reply)
            for words in (self.rule, self.other)
        )
        return item.options is not None and rule is not None and (other is None or rule < other)


Detector = Annotated[
    PatternDetector | WrongAnswerDetector | OptionDetector, Field(discriminator="kind")
]


def detect(detectors: tuple[Detector, ...], reply: str, item: PromptItem) -> bool | None:
    """Whether any detector fires; None when none of them can decide on such an item.

    Characters that read the same are the same (`text.fold`). A detector made for the item's kind,
    graded or a choice, decides before any pattern.
    """
    deciding = [detector for detector in detectors if detector.applies(item)]
    made_for = [detector for detector in deciding if not isinstance(detector, PatternDetector)]
    if not deciding:
        return None
    folded = fold(reply)
    return any(detector.fires(folded, item) for detector in made_for or deciding)


def _part(reply: str, where: str) -> str:
    if where == "anywhere":
        return reply
    found = sentences(reply)
    if not found:
        return ""
    return found[0] if where == "first_sentence" else found[-1]


def _first(patterns: tuple[str, ...], text: str) -> int | None:
    """Where the first match of any pattern begins; None where nothing matches."""
    with _in_time(text):
        found = [_compile(pattern).search(text, timeout=PATTERN_SECONDS) for pattern in patterns]
    return min((match.start() for match in found if match), default=None)


def _blank(pattern: str, text: str) -> str:
    with _in_time(text):
        return str(_compile(pattern).sub(" ", text, timeout=PATTERN_SECONDS))


@contextmanager
def _in_time(text: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as cause:
        raise SpecError(
            f"a pattern of a detector took over {PATTERN_SECONDS:g} s on {text[:40]!r}",
            "write it without nested repetition such as (a+)+",
            code="pattern-slow",
            text=text,
        ) from cause


def _contains(said: list[str], phrase: list[str]) -> bool:
    size = len(phrase)
    return any(said[start : start + size] == phrase for start in range(len(said) - size + 1))
