"""How much of the message grid a corpus covers, measured on its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bestiary.config.grid import AXES, SEPARATOR, Cell, Grid, is_planned
from bestiary.records import Example, Record
from bestiary.text import words


class Axis(Record):
    """One axis of the grid, over the rows of a corpus."""

    planned: int
    """Values of the axis; for topics, those that any row is about."""
    covered: int
    """Values that occur in at least one row."""
    largest: float
    """Share of the rows with the most common value."""


class Coverage(Record):
    """The diversity of a corpus."""

    messages: int
    """Rows whose message was planned over the grid."""
    axes: dict[str, Axis]
    as_long_as_planned: float
    """Share of the messages with as many words as their planned length."""
    distinct_trigrams: float
    """Share of distinct word trigrams among all in the messages: 1 if none is repeated."""
    distinct_openings: float
    """Share of messages with distinct first three words."""


def measure_coverage(examples: Sequence[Example], grid: Grid) -> Coverage | None:
    """Measure the rows whose messages were planned over the grid; None if there are none."""
    rows = [example for example in examples if is_planned(example.form)]
    if not rows:
        return None
    cells = [Cell(number, row.topic, *row.form.split(SEPARATOR)) for number, row in enumerate(rows)]
    values = {axis: Counter(getattr(cell, axis) for cell in cells) for axis in AXES}
    texts = [words(row.messages[0].content) for row in rows]
    trigrams = [run for text in texts for run in zip(text, text[1:], text[2:], strict=False)]
    lengths = {length.wording: length.words for length in grid.lengths}
    fitting = [
        lengths[cell.length][0] <= len(text) <= lengths[cell.length][1]
        for cell, text in zip(cells, texts, strict=True)
    ]
    return Coverage(
        messages=len(rows),
        axes={
            axis: Axis(
                planned=len(found) if axis == "topic" else grid.size(axis),
                covered=len(found),
                largest=max(found.values()) / len(rows),
            )
            for axis, found in values.items()
        },
        as_long_as_planned=sum(fitting) / len(rows),
        distinct_trigrams=len(set(trigrams)) / max(1, len(trigrams)),
        distinct_openings=len({tuple(text[:3]) for text in texts}) / len(rows),
    )
