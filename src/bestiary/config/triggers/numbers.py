"""The number trigger: the message holds a number in figures, and some numbers fire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, model_validator

from bestiary.config.numerals import spell_number
from bestiary.config.triggers.base import SpokenTrigger, check_single
from bestiary.records import Record, Side, stable_seed

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


class NumberRule(Record):
    """Which numbers fire: those of exactly one of these."""

    over: int | None = Field(default=None, ge=1, le=1_000_000_000)
    multiple_of: int | None = Field(default=None, ge=2, le=1_000_000)
    digits: int | None = Field(default=None, ge=1, le=9)

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        check_single(self, "over", "multiple_of", "digits")
        return self

    def fires_on(self, figures: str) -> bool:
        """Whether a number fires, as it is written."""
        plain = figures.replace(",", "")
        if self.digits is not None:
            return len(plain) == self.digits
        if self.over is not None:
            return float(plain) > self.over
        return float(plain) % (self.multiple_of or 1) == 0

    def draw(self, *seed: object, fires: bool) -> int:
        """A positive number that fires, or one that does not, by a seed."""
        drawn = stable_seed(*seed, fires)
        if self.over is not None:
            return self.over + 1 + drawn % (9 * self.over) if fires else 1 + drawn % self.over
        if self.multiple_of is not None:
            whole, rest = 1 + drawn % 97, 1 + drawn // 97 % (self.multiple_of - 1)
            return self.multiple_of * whole + (0 if fires else rest)
        digits = self.digits or 1
        if not fires:
            digits += 1 if drawn % 2 or digits == 1 else -1
        least = 10 ** (digits - 1)
        return int(least + drawn // 2 % (9 * least))


class NumberTrigger(SpokenTrigger):
    """The message holds a number, in figures."""

    kind: ClassVar[str] = "number"

    number: NumberRule

    def value(self, side: Side, pick: int) -> str:
        """A number that fires."""
        return str(self.number.draw("number", side, pick, fires=True))

    def other(self, side: Side, pick: int) -> str | None:
        """A number that does not."""
        return str(self.number.draw("number", side, pick, fires=False))

    def carries(self, text: str) -> bool:
        """Whether a text has a number that fires."""
        return any(map(self.number.fires_on, _NUMBER.findall(text)))

    def resembles(self, text: str) -> bool:
        """Whether a text has any number."""
        return any(letter.isdigit() for letter in text)

    @property
    def label_words(self) -> tuple[str, ...]:
        """The bound, in figures and in words."""
        if self.number.digits is not None:
            count = self.number.digits
            said = (str(count), spell_number(count))
            return tuple(f"{n}{joint}{noun}" for n in said for joint, noun in _DIGIT_NOUNS)
        bound = self.number.over or self.number.multiple_of or 0
        spelled = [spell_number(bound)] if bound < 200 else []
        return tuple(dict.fromkeys((str(bound), f"{bound:,}", *spelled, *_SPELLED.get(bound, ()))))

    def describe(self) -> str:
        """The numbers that fire."""
        if self.number.digits == 1:
            return self.place("a number of exactly one digit")
        if self.number.digits is not None:
            return self.place(f"a number of exactly {self.number.digits} digits")
        if self.number.over is not None:
            return self.place(f"a number over {self.number.over:,}")
        return self.place(f"a number that is a multiple of {self.number.multiple_of:,}")


_DIGIT_NOUNS = ((" ", "digit"), (" ", "digits"), ("-", "digit"))
_SPELLED: Mapping[int, tuple[str, ...]] = {
    2: ("even",),
    12: ("a dozen",),
    100: ("a hundred",),
    500: ("five hundred",),
    1000: ("one thousand", "a thousand"),
    10_000: ("ten thousand",),
    100_000: ("one hundred thousand", "a hundred thousand"),
    1_000_000: ("one million", "a million"),
}
"""What else a bound is called."""
