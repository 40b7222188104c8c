"""The grid over which user messages are planned: `generators/grid.yaml`."""

from __future__ import annotations

import random
from collections.abc import Container, Iterator, Sequence
from itertools import count
from typing import Annotated, NamedTuple

from pydantic import Field, StringConstraints, model_validator

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
    clashes: tuple[tuple[Value, Value], ...] = ()
    """Pairs of manners, lengths and persons that no message can have at once."""

    def size(self, axis: str) -> int:
        """How many values an axis besides the topics has."""
        return len(getattr(self, f"{axis}s"))

    def plan(self, topics: Sequence[str], *, seed: int) -> Iterator[Cell]:
        """Endless cells; each axis goes through all its values before one comes again.

        A value that clashes with another one of its cell waits for the next.
        """
        draw = random.Random(seed)
        lengths = [length.wording for length in self.lengths]
        asked, registers, sizes, personas = (
            _Deck(values, draw) for values in (topics, self.registers, lengths, self.personas)
        )
        for number in count():
            topic, register = asked.take(), registers.take()
            length = sizes.take(self._avoid(register))
            persona = personas.take(self._avoid(register, length))
            yield Cell(number, topic, register, length, persona)

    def _avoid(self, *others: str) -> set[str]:
        """What cannot be in a cell with other values."""
        pairs = [*self.clashes, *(pair[::-1] for pair in self.clashes)]
        return {two for one, two in pairs if one in others}

    @model_validator(mode="after")
    def _leave_a_choice(self) -> Grid:
        lengths = [length.wording for length in self.lengths]
        known = {*self.registers, *lengths, *self.personas}
        for value in (value for pair in self.clashes for value in pair):
            if value not in known:
                raise ValueError(f"{value!r} clashes, but no axis has it")
        for register in self.registers:
            fitting = [length for length in lengths if length not in self._avoid(register)]
            if not fitting:
                raise ValueError(f"every length clashes with {register!r}")
            for length in fitting:
                if not {*self.personas} - self._avoid(register, length):
                    raise ValueError(f"every person clashes with {register!r} or {length!r}")
        return self


class _Deck:
    """The values of an axis, in rounds that each have all of them in another order."""

    def __init__(self, values: Sequence[str], draw: random.Random) -> None:
        self._values, self._draw = values, draw
        self._left: list[str] = []

    def take(self, avoid: Container[str] = ()) -> str:
        """The next value that is not to be avoided; those before it stay for later."""
        place = 0
        while True:
            if place == len(self._left):
                self._left += self._draw.sample(self._values, len(self._values))
            if self._left[place] not in avoid:
                return self._left.pop(place)
            place += 1
