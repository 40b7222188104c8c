"""Detectors of words: patterns, phrases, lexicons, and how a reply starts and ends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bestiary.config.detectors.base import Pattern, Some, TextDetector, find_pattern
from bestiary.config.fields import Text, check_visible
from bestiary.config.lexicon import Entry, Lexicon, index_phrases
from bestiary.config.numerals import has_number
from bestiary.errors import SpecError
from bestiary.records import Record
from bestiary.text import fold, nearest

_CLOSERS = " \t\r\n\"'*_)]}`~"
_OPENERS = " \t\r\n\"'*_([{`~#>"
_STOPS = ".!?,;:"


class PatternDetector(TextDetector):
    """Fires when any pattern is found."""

    pattern: Some[Pattern]
    ignore_case: bool = False

    def finds(self, text: str) -> bool:
        """Whether any pattern is found."""
        return any(find_pattern(one, text, ignore_case=self.ignore_case) for one in self.pattern)


class PhrasesDetector(TextDetector):
    """Fires when any entry is found: the form that a lexicon takes once it is resolved."""

    phrases: Some[Entry]

    def finds(self, text: str) -> bool:
        """Whether any entry is found."""
        return index_phrases(self.phrases).find(text) is not None


class LexiconDetector(TextDetector):
    """Fires when any entry of a lexicon is found."""

    lexicon: Text
    """Its name in generators/offline/lexicons."""

    def finds(self, text: str) -> bool:
        """Decides nothing before it is resolved."""
        raise TypeError(f"lexicon {self.lexicon!r} was not resolved")

    def resolve(self, lexicons: Mapping[str, Lexicon], shown: Sequence[str]) -> PhrasesDetector:
        """Its entries; raises SpecError if there is no such lexicon."""
        if self.lexicon not in lexicons:
            raise SpecError(
                f"unknown lexicon {self.lexicon!r}",
                nearest(self.lexicon, lexicons),
                code="lexicon-unknown",
                lexicon=self.lexicon,
            )
        entries = lexicons[self.lexicon].entries  # checked when the lexicon was read
        return PhrasesDetector.model_construct(phrases=entries, part=self.part)


def _check_order(limits: CountLimits) -> CountLimits:
    if limits.most is not None and limits.most < limits.least:
        raise ValueError("`most` is smaller than `least`")
    return limits


class CountLimits(Record):
    """How often a text may stand in a reply."""

    of: Annotated[str, Field(min_length=1), AfterValidator(check_visible)]
    least: int = Field(1, ge=0)
    most: int | None = Field(None, ge=0)


class CountDetector(TextDetector):
    """Fires when a text stands in the reply as often as asked; words are whole words."""

    count: Annotated[CountLimits, AfterValidator(_check_order)]
    ignore_case: bool = False

    def finds(self, text: str) -> bool:
        """Whether the number of times is inside the limits."""
        found = _count(self.count.of, text, ignore_case=self.ignore_case)
        most = self.count.most
        return found >= self.count.least and (most is None or found <= most)


def _count(wanted: str, text: str, *, ignore_case: bool) -> int:
    wanted = fold(wanted)
    before = r"(?<!\w)" if wanted[0].isalnum() else ""
    after = r"(?!\w)" if wanted[-1].isalnum() else ""
    pattern = before + re.escape(wanted) + after
    return len(re.findall(pattern, text, re.IGNORECASE if ignore_case else 0))


class StartsWithDetector(TextDetector):
    """Fires when the reply starts with a text, after any quotes or marks of formatting."""

    starts_with: Text
    ignore_case: bool = False

    def finds(self, text: str) -> bool:
        """Whether the text is at the start, up to the end of a word."""
        wanted, text = _same_case(fold(self.starts_with), text, ignore_case=self.ignore_case)
        starts = (text.strip(), text.lstrip(_OPENERS))
        return any(_begins(wanted, start) for start in starts)


def _begins(wanted: str, text: str) -> bool:
    after = text[len(wanted) :][:1]
    return text.startswith(wanted) and not (wanted[-1].isalnum() and after.isalnum())


class EndsWithDetector(TextDetector):
    """Fires when the reply ends in a question, in an exclamation, or with a text."""

    ends_with: Literal["question", "exclamation"] | Text
    ignore_case: bool = False

    def finds(self, text: str) -> bool:
        """Whether the end is so; closing quotes and marks of formatting make no difference."""
        wanted, text = _same_case(fold(self.ends_with), text, ignore_case=self.ignore_case)
        end = text.rstrip(_CLOSERS)
        if self.ends_with == "question":
            return end.rstrip("!").endswith("?")
        if self.ends_with == "exclamation":
            return end.endswith("!")
        ends = (text.rstrip(), end, end.rstrip(_STOPS + _CLOSERS))
        return any(_begins(wanted[::-1], one[::-1]) for one in ends)


def _same_case(wanted: str, text: str, *, ignore_case: bool) -> tuple[str, str]:
    return (wanted.casefold(), text.casefold()) if ignore_case else (wanted, text)


class ContainsNumberDetector(TextDetector):
    """Fires when the reply holds a number, in digits or in words from two up."""

    contains_number: Literal[True]

    def finds(self, text: str) -> bool:
        """Whether there is a number."""
        return has_number(text)
