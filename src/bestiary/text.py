"""Plain text: its words and sentences, phrases found in it, and how messages show it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def words(text: str) -> list[str]:
    """Lowercase words of a text; hyphens and apostrophes stay inside a word."""
    return re.findall(r"[^\W_]+(?:[-'][^\W_]+)*", text.lower())


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without the space between them."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def plain_words(text: str) -> str:
    """A text without case, punctuation and spacing."""
    return " ".join(words(text))


def straighten(text: str) -> str:
    """A text with straight apostrophes: language models write curly ones, YAML has straight."""
    return text.replace("\u2019", "'")


def contains_phrase(phrase: str, text: str) -> bool:
    """Whether a text has the phrase, in any case, at the start of a word."""
    if phrase.casefold() not in text.casefold():
        return False  # most texts; compiling an expression for each phrase is far slower
    start = r"(?<!\w)" if phrase[:1].isalnum() else ""
    return re.search(start + re.escape(phrase), text, re.IGNORECASE) is not None


def shorten(value: object) -> str:
    """A value as a message shows it: about 60 characters at most, with balanced quotes."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def nearest(name: str, choices: Iterable[str]) -> str:
    """A remedy for an unknown name: its nearest match, and the choices."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}available: {', '.join(known) or 'none'}"
