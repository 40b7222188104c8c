"""The grid over which user messages are planned: `generators/grid.yaml`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Annotated, NamedTuple

from pydantic import Field, StringConstraints

from bestiary.records import Record

AXES = ("topic", "register", "length", "persona")
SEPARATOR = "; "
"""Between the values of a question form; none of them may hold it."""
Value = Annotated[str, StringConstraints(min_length=3, pattern=r"^[^;|]+$")]


class Cell(NamedTuple):
    """What one user message is to be."""

    number: int
    topic: str
    register: str
    length: str
    persona: str

    @property
    def form(self) -> str:
        """The question form of its message: all but the topic."""
        return SEPARATOR.join((self.register, self.length, self.persona))


def is_planned(form: str) -> bool:
    """Whether a question form is one of the grid's; those of prompt banks are a word."""
    return form.count(SEPARATOR) == len(AXES) - 2


class Length(Record):
    """A planned length of a message."""

    words: tuple[int, int]
    """The fewest and the most words, as counted afterwards."""
    wording: Value
    """The length as the prompt states it."""


class Grid(Record):
    """The axes besides the topics, which a model names within the areas."""

    version: int = Field(ge=1)
    areas: tuple[Value, ...] = Field(min_length=4)
    """Of everyday conversation, for messages outside any scope."""
    registers: tuple[Value, ...] = Field(min_length=2)
    lengths: tuple[Length, ...] = Field(min_length=2)
    personas: tuple[Value, ...] = Field(min_length=2)

    def size(self, axis: str) -> int:
        """How many values an axis besides the topics has."""
        return len(getattr(self, f"{axis}s"))

    def plan(self, topics: Sequence[str], *, seed: int) -> Iterator[Cell]:
        """Endless cells; each axis goes through all its values before one comes again."""
        draw = random.Random(seed)
        lengths = [length.wording for length in self.lengths]
        axes = (topics, self.registers, lengths, self.personas)
        return map(Cell, count(), *(_deal(values, draw) for values in axes))


def _deal(values: Sequence[str], draw: random.Random) -> Iterator[str]:
    while True:
        yield from draw.sample(values, len(values))
