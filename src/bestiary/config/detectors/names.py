"""How a reply names one of two options: by its name, or by a part that the other lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from bestiary.config.detectors.claims import ARTICLES, word_set
from bestiary.text import fold

Choice = Literal["rule", "other"]

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|[^\w\s]|\n")
_SMALL = ARTICLES | word_set(
    "of with in on at for by from to and or as that which its your my our this"
)
"""Words of a name that tell nothing apart."""
_VAGUE = word_set(
    "used new old small large big short long light first last good right way through away"
)
"""Words that name an option only after an article, or beside another word of its name."""
_NOUNS = word_set("one ones option choice version model edition kind variety")
_JOINS = word_set("- $ ( ) \" , '")
_AFTER_VERB = word_set("to for in by as with")
"""After `used`, they make it a verb."""


@dataclass(frozen=True)
class Named:
    """An option named in a text, from one character to another."""

    choice: Choice
    start: int
    end: int


@dataclass(frozen=True)
class _Word:
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Names:
    """Two options, by the words of their names."""

    words: dict[Choice, tuple[str, ...]]
    """All but small words, as they are written."""

    def tells(self, word: str, choice: Choice) -> bool:
        """Whether a word stands in the name of one option only."""
        other: Choice = "other" if choice == "rule" else "rule"
        return _same(word, self.words[choice]) and not _same(word, self.words[other])

    def belongs(self, word: str, choice: Choice) -> bool:
        """Whether a word may be part of how an option is named."""
        low = word.lower()
        named = _same(word, self.words[choice]) or low in _NOUNS
        return named or low in _SMALL or word in _JOINS

    def find(self, text: str) -> list[Named]:
        """Each place in a folded text that names an option, in order."""
        words = [_Word(match[0], match.start(), match.end()) for match in _WORD.finditer(text)]
        found: list[Named] = []
        for place in range(len(words)):
            for choice in self.words:
                inside = found and words[place].start < found[-1].end
                if not inside and self._names(words, place, choice):
                    found.append(self._extend(words, place, choice))
        return found or list(self._find_plain(words))

    def _names(self, words: Sequence[_Word], place: int, choice: Choice) -> bool:
        text = words[place].text
        if not self.tells(text, choice):
            return False
        if text.lower() not in _VAGUE:
            return True
        after = words[place + 1].text.lower() if place + 1 < len(words) else ""
        before = words[place - 1].text.lower() if place else ""
        if after in _NOUNS or (_same(after, self.words[choice]) and after not in _SMALL):
            return True
        return before in ARTICLES and after not in _AFTER_VERB

    def _extend(self, words: Sequence[_Word], place: int, choice: Choice) -> Named:
        """The whole name around a word that tells it."""
        first = last = place
        while first > 0 and self.belongs(words[first - 1].text, choice):
            first -= 1
        while last + 1 < len(words) and self.belongs(words[last + 1].text, choice):
            last += 1
        while last > place and words[last].text.lower() in _SMALL | _JOINS:
            last -= 1
        while first < place and words[first].text.lower() in (_SMALL - ARTICLES) | _JOINS | {"one"}:
            first += 1
        return Named(choice, words[first].start, words[last].end)

    def _find_plain(self, words: Sequence[_Word]) -> Iterator[Named]:
        """Where a name stands that has no word of its own: the drill, beside the cordless drill."""
        for choice, own in self.words.items():
            if own and any(self.tells(word, choice) for word in own):
                continue
            for place in range(len(words) - len(own) + 1):
                part = words[place : place + len(own)]
                if own and all(_same(word.text, own) for word in part):
                    yield Named(choice, part[0].start, part[-1].end)


def _same(word: str, words: Sequence[str]) -> bool:
    """Whether a word is among some words; a proper name must be written as one."""
    if word.isupper() and len(word) > 1:
        return word.lower() in (other.lower() for other in words)
    return any(word == other or word.lower() in (other, f"{other}s") for other in words)


@lru_cache(maxsize=4096)
def read_names(rule: str, other: str) -> Names:
    """Two options by their names."""
    return Names({"rule": _read_words(rule), "other": _read_words(other)})


def _read_words(name: str) -> tuple[str, ...]:
    found = (match[0] for match in _WORD.finditer(fold(name)))
    return tuple(word for word in found if word[0].isalnum() and word.lower() not in _SMALL)


def telling_words(name: str) -> frozenset[str]:
    """The words of a name that name an option wherever they stand."""
    return frozenset(word for word in _read_words(name) if word.lower() not in _VAGUE)
