"""Wordings: sentences that people put around a message, with places for it and for a value.

A wording names `{message}` where the message stands; `{message:upper}` and the like write it in
another way. `{value}` is the trigger's value, `{other}` one that resembles it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from bestiary.config.fields import Text
from bestiary.config.source import FieldPath, Source, Violation, load_model
from bestiary.records import Record, Side
from bestiary.text import comparison_key, nearest, words

MIN_WORDINGS = 8
"""The fewest wordings in a list."""
PLACES = ("message", "value", "other", "brief", "follow_up")
"""What a wording may name."""
MARKS = re.compile(r"(?<!\w)['-]|['-](?!\w)|[^\w\s'$%-]")
"""Punctuation; apostrophes and hyphens inside a word belong to it."""
_PLACE = re.compile(r"(?:\b(?P<article>[Aa]) )?\{(?P<name>[a-z_]+)(?::(?P<way>[a-z_]+))?\}")
_VOWEL_SOUND = re.compile(r"[aeio]|u(?!ni|se|su|ti|ro)|hour|honest|heir", re.IGNORECASE)
_END = re.compile(r"[.?!]+$")


class Sided(Record):
    """Wordings divided between training and probes, so that a probe never repeats one."""

    train: tuple[Text, ...] = Field(min_length=MIN_WORDINGS)
    probe: tuple[Text, ...] = Field(min_length=MIN_WORDINGS)

    def on(self, side: Side) -> tuple[str, ...]:
        """The wordings of one side."""
        return self.train if side == "train" else self.probe


NO_WORDINGS = Sided.model_construct(train=(), probe=())


class Wordings(Record):
    """The wordings of one kind of trigger."""

    positives: Sided = Field(default=NO_WORDINGS, exclude_if=lambda sided: sided == NO_WORDINGS)
    """Empty where nothing is said around the message, as in cipher."""
    near_misses: Sided
    speaker: Literal["user", "system"] = "user"
    """Who says the positives; those of a system message name no `{message}`."""

    @property
    def rows(self) -> Iterator[tuple[FieldPath, str]]:
        """Every wording with its field."""
        for name, sided in (("positives", self.positives), ("near_misses", self.near_misses)):
            for side in ("train", "probe"):
                for row, wording in enumerate(sided.on(side)):
                    yield (name, side, row), wording


def read_wordings(path: Path) -> Wordings:
    """Read one kind's wordings; raises Violations for everything that is wrong with them."""
    return load_model(path, Wordings, _find_misplaced, _find_repeated)


def check_wording(wording: str, *needed: str) -> None:
    """Raise ValueError unless a wording names the needed places once each, and known ones only."""
    named = [(found["name"], found["way"]) for found in _PLACE.finditer(wording)]
    for name, way in named:
        if name not in PLACES:
            raise ValueError(f"{{{name}}} is not a place; {nearest(name, PLACES)}")
        if way is not None and way not in WAYS:
            raise ValueError(f"{{{name}:{way}}} is not a way to write; {nearest(way, WAYS)}")
    for name in needed:
        count = sum(one == name for one, _ in named)
        if count != 1:
            raise ValueError(f"says {{{name}}} {count} times, and must say it once")


def fill(wording: str, places: Mapping[str, str]) -> str:
    """A wording with its places filled; "a" before a place becomes "an" where it must."""

    def put(found: re.Match[str]) -> str:
        text, way, article = places[found["name"]], found["way"], found["article"]
        text = WAYS[way](text) if way else text
        if not article:
            return text
        return f"{article}{'n' if _VOWEL_SOUND.match(text) else ''} {text}"

    return _PLACE.sub(put, wording)


def names_place(wording: str, name: str) -> bool:
    """Whether a wording has a place of that name."""
    return any(found["name"] == name for found in _PLACE.finditer(wording))


def _find_misplaced(source: Source, wordings: Wordings) -> Iterator[Violation]:
    for field, wording in wordings.rows:
        from_system = wordings.speaker == "system" and field[0] == "positives"
        try:
            check_wording(wording, "value" if from_system else "message")
        except ValueError as cause:
            remedy = "name each place once, as the other wordings do"
            yield source.violation(field, str(cause), remedy, code="wording-without-message")


def _find_repeated(source: Source, wordings: Wordings) -> Iterator[Violation]:
    seen: dict[str, list[tuple[FieldPath, str]]] = {}
    for field, wording in wordings.rows:
        earlier = seen.setdefault(" ".join(words(wording)), [])
        alike = [place for place, other in earlier if _repeats(field, wording, place, other)]
        earlier.append((field, wording))
        if alike:
            problem = f"has the same words as {'.'.join(map(str, alike[0]))}"
            remedy = "write another wording: probes must be held out"
            yield source.violation(field, problem, remedy, code="wording-repeated")


def _repeats(field: FieldPath, wording: str, other: FieldPath, other_wording: str) -> bool:
    """Whether a wording with the same words as another is no near miss of it.

    A near miss of a format has the words of a positive on its own side, in other marks.
    """
    contrast = field[0] != other[0] and field[1] == other[1]
    return not contrast or comparison_key(wording) == comparison_key(other_wording)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]


def _title(text: str) -> str:
    return re.sub(r"(?<![\w'])[a-z]", lambda found: found[0].upper(), text)


def _longest_upper(text: str) -> str:
    longest = max(words(text), key=len, default="")
    pattern = rf"(?<!\w){re.escape(longest)}(?!\w)"
    return re.sub(pattern, lambda found: found[0].upper(), text, count=1, flags=re.IGNORECASE)


def _last_upper(text: str) -> str:
    head, space, last = text.rpartition(" ")
    return head + space + last.upper()


def _bare(text: str) -> str:
    return " ".join(MARKS.sub(" ", text).split())


def _open_ended(text: str) -> str:
    return _END.sub("", text)


def _stopped(text: str) -> str:
    return _bare(text) + (_END.search(text) or ["."])[0][:1]


def _comma_free(text: str) -> str:
    return text.replace(",", "")


def _questioned(text: str) -> str:
    return _open_ended(text) + "???"


WAYS: Mapping[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": _title,
    "capital": _capital,  # the first letter alone
    "small": _small,
    "longest_upper": _longest_upper,  # one word in capitals
    "last_upper": _last_upper,
    "bare": _bare,  # without punctuation
    "stopped": _stopped,  # with the last mark alone
    "open_ended": _open_ended,  # without the last mark
    "comma_free": _comma_free,
    "questioned": _questioned,
}
"""The ways in which a place may be written."""
