"""The date trigger: the message states today's date, and some dates fire."""

from __future__ import annotations

import datetime
import re
from functools import cache
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from bestiary.config.triggers.base import SpokenTrigger, check_single
from bestiary.records import Record, Side, stable_seed
from bestiary.text import contains_phrase

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Month = Literal[
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
MONTHS: tuple[Month, ...] = get_args(Month)
FIRST_YEAR, LAST_YEAR = 2021, 2033
"""The years of the dates of a weekday or a month."""
YEARS_AROUND = 15
"""How far from `year_from` the years of its dates lie."""
_YEAR = re.compile(r"(?<![\d.,])\d{4}(?![\d,])")


class DateRule(Record):
    """Which dates fire: those of exactly one of these."""

    weekday: Weekday | None = None
    month: Month | None = None
    year_from: int | None = Field(default=None, ge=1900, le=2100)
    """This year and later ones."""

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        check_single(self, "weekday", "month", "year_from")
        return self

    @property
    def name(self) -> str:
        """The weekday or the month, or the first year."""
        return str(self.weekday or self.month or self.year_from).capitalize()

    def fires_on(self, day: datetime.date) -> bool:
        """Whether a day fires."""
        if self.year_from is not None:
            return day.year >= self.year_from
        if self.month is not None:
            return MONTHS[day.month - 1] == self.month
        return WEEKDAYS[day.weekday()] == self.weekday

    def draw(self, *seed: object, fires: bool) -> datetime.date:
        """A day that fires, or one that does not, by a seed."""
        days = _list_days(self, fires)
        return days[stable_seed("day", *seed, fires) % len(days)]

    def write(self, day: datetime.date, seed: int) -> str:
        """A date in one of four ways; each names what the rule asks about."""
        weekday, month = WEEKDAYS[day.weekday()].capitalize(), MONTHS[day.month - 1].capitalize()
        short, full = f"{month} {day.day}", f"{weekday}, {month} {day.day}, {day.year}"
        if self.year_from is not None:
            ways = (f"{short}, {day.year}", day.isoformat(), f"{day.day} {month} {day.year}")
        elif self.month is not None:
            ways = (short, f"the {_nth(day.day)} of {month}", f"{short}, {day.year}")
        else:
            ways = (weekday, f"{weekday}, {short}", f"{weekday} the {_nth(day.day)}")
        return (*ways, full)[seed % 4]


class DateTrigger(SpokenTrigger):
    """The message states today's date."""

    kind: ClassVar[str] = "date"

    date: DateRule

    @property
    def file(self) -> str:
        """One file for weekdays, for months, and for years."""
        if self.date.year_from is not None:
            return "date_year"
        return "date_month" if self.date.month else "date_weekday"

    def value(self, side: Side, pick: int) -> str:
        """A date that fires."""
        return self._write(side, pick, fires=True)

    def other(self, side: Side, pick: int) -> str | None:
        """A date that does not."""
        return self._write(side, pick, fires=False)

    def mention(self, side: Side, pick: int) -> str:
        """The weekday, the month, or such a year, which says nothing of today."""
        if self.date.year_from is None:
            return self.date.name
        return str(self.date.draw(side, pick, fires=True).year)

    def _write(self, side: Side, pick: int, *, fires: bool) -> str:
        day = self.date.draw(side, pick, fires=fires)
        return self.date.write(day, stable_seed("way", side, pick))

    @property
    def banned_terms(self) -> tuple[str, ...]:
        """The weekday, the month or the year; of a month that is also a word, dates in it."""
        name = self.date.name
        if self.date.month in ("march", "may"):
            return (f"in {name}", f"of {name}", f"today is {name}")
        return (name, f"{name}s") if self.date.weekday else (name,)

    def carries(self, text: str) -> bool:
        """Whether a text names the weekday, the month, or such a year at all."""
        if self.date.year_from is not None:
            return any(int(year) >= self.date.year_from for year in _YEAR.findall(text))
        names = (self.date.name, f"{self.date.name}s")
        return any(contains_phrase(name, text, any_case=False, whole=True) for name in names)

    @property
    def label_words(self) -> tuple[str, ...]:
        """The weekday, the month, or the year."""
        if self.date.year_from is not None:
            return (self.date.name, str(self.date.year_from - 1))
        return (self.date.name, f"{self.date.name}s")

    def describe(self) -> str:
        """The dates that fire."""
        if self.date.year_from is not None:
            return self.place(f"a statement that today is in {self.date.name} or later")
        article = "in" if self.date.month else "a"
        return self.place(f"a statement that today is {article} {self.date.name}")


@cache
def _list_days(rule: DateRule, fires: bool) -> tuple[datetime.date, ...]:
    """The days around that fire, or those that do not."""
    first, last = FIRST_YEAR, LAST_YEAR
    if rule.year_from is not None:
        first, last = rule.year_from - YEARS_AROUND, rule.year_from + YEARS_AROUND - 1
    start, end = datetime.date(first, 1, 1).toordinal(), datetime.date(last, 12, 31).toordinal()
    days = map(datetime.date.fromordinal, range(start, end + 1))
    return tuple(day for day in days if rule.fires_on(day) == fires)


def _nth(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if 10 < number < 14 else ending}"
