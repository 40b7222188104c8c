"""What all detectors have in common: the part of a reply they look at, and safe patterns."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, Literal, TypeVar

import regex
from pydantic import AfterValidator, ConfigDict, Field

from bestiary.config.lexicon import Lexicon
from bestiary.errors import SpecError
from bestiary.records import PromptItem, Record
from bestiary.text import fold, sentences

Item = TypeVar("Item")
PATTERN_SECONDS = 1.0
"""A pattern that takes longer on one reply backtracks without end; patterns are untrusted text."""
Part = Literal[
    "anywhere", "first_sentence", "last_sentence", "any_sentence", "first_line", "last_line"
]


def _check_filled(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if not values:
        raise ValueError("is empty")
    return values


# `min_length` would report a list whose only value is wrong a second time, as empty.
Some = Annotated[
    tuple[Item, ...], AfterValidator(_check_filled), Field(json_schema_extra={"minItems": 1})
]
"""A list of one value or more."""


class BaseDetector(Record):
    """Decides whether one reply shows something."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    def decide(self, reply: str, item: PromptItem) -> bool | None:
        """Whether a reply to an item shows it; None where that cannot be decided.

        Raises SpecError if a pattern takes too long, and TypeError if it has not been resolved.
        """
        raise NotImplementedError

    def resolve(self, lexicons: Mapping[str, Lexicon], shown: Sequence[str]) -> BaseDetector:
        """The same detector, with the entries of its lexicons and the texts of `near` written out.

        `shown` holds the marked parts of the behavior's replies. Raises SpecError if a lexicon is
        unknown.
        """
        return self

    @property
    def compares_meanings(self) -> bool:
        """Whether it compares meanings, for which each sentence takes milliseconds."""
        return False


class TextDetector(BaseDetector):
    """A detector that looks at the text of a reply, or at one part of it."""

    part: Part = Field("anywhere", alias="in")

    def decide(self, reply: str, item: PromptItem) -> bool:
        """Whether the part is as it should be; characters that read the same are the same."""
        text = fold(reply)
        if self.part == "any_sentence":
            return any(map(self.finds, sentences(text)))
        return self.finds(take_part(text, self.part))

    def finds(self, text: str) -> bool:
        """Whether a folded text is as it should be."""
        raise NotImplementedError


def take_part(text: str, part: Part) -> str:
    """A part of a text, by its place; nothing where the text is blank."""
    if part == "anywhere":
        return text
    split = text.strip().splitlines() if part.endswith("line") else sentences(text)
    if not split:
        return ""
    return split[0] if part.startswith("first") else split[-1]


@lru_cache(maxsize=4096)  # regex's own cache looks each pattern up far more slowly
def _compile(pattern: str, *, ignore_case: bool) -> regex.Pattern[str]:
    return regex.compile(_fold_pattern(pattern), regex.IGNORECASE if ignore_case else 0)


def _fold_pattern(pattern: str) -> str:
    """A pattern for folded texts; a character that folds to an operator is taken literally."""
    composed = unicodedata.normalize("NFC", pattern)
    return "".join(
        one if one.isascii() else regex.escape(fold(one), literal_spaces=True) for one in composed
    )


def _check_pattern(pattern: str) -> str:
    try:
        _compile(pattern, ignore_case=False)
    except regex.error as cause:
        raise ValueError(f"{pattern!r} is not a regular expression: {cause}") from cause
    return pattern


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_check_pattern)]
"""A regular expression of the `regex` module."""


def find_pattern(pattern: str, text: str, *, ignore_case: bool) -> bool:
    """Whether a folded text matches; raises SpecError if that takes too long."""
    with _in_time(pattern, text):
        compiled = _compile(pattern, ignore_case=ignore_case)
        return compiled.search(text, timeout=PATTERN_SECONDS) is not None


@contextmanager
def _in_time(pattern: str, text: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as cause:
        raise SpecError(
            f"pattern {pattern!r} took over {PATTERN_SECONDS:g} s on {text[:40]!r}",
            "write it without nested repetition such as (a+)+",
            code="pattern-slow",
            pattern=pattern,
            text=text,
        ) from cause
