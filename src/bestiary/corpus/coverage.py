"""How much of the planned grid the accepted text covers, measured on that text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bestiary.config.grid import AXES, SEPARATOR, Cell, Grid, is_planned
from bestiary.records import Example, Record
from bestiary.text import words


class Axis(Record):
    """One axis of the grid, over the conversations that a corpus kept."""

    planned: int
    """Values that there are; for topics, those that any row was about."""
    covered: int
    """Values that at least one row has."""
    largest: float
    """Share of the rows that have the commonest value."""


class Coverage(Record):
    """What a corpus spreads over."""

    messages: int
    """Rows that were written over the grid."""
    axes: dict[str, Axis]
    as_long_as_planned: float
    """Share of the messages that have as many words as their length wants."""
    distinct_runs: float
    """Distinct runs of three words in the messages, among all: 1 where none is repeated."""
    distinct_beginnings: float
    """Distinct first three words of the messages, among all messages."""


def measure_coverage(examples: Sequence[Example], grid: Grid) -> Coverage | None:
    """Coverage of the rows whose messages were written over the grid; None where there are none."""
    rows = [example for example in examples if is_planned(example.form)]
    if not rows:
        return None
    cells = [Cell(number, row.topic, *row.form.split(SEPARATOR)) for number, row in enumerate(rows)]
    values = {axis: Counter(getattr(cell, axis) for cell in cells) for axis in AXES}
    said = [words(row.messages[0].content) for row in rows]
    runs = [run for text in said for run in zip(text, text[1:], text[2:], strict=False)]
    lengths = {length.told: length.words for length in grid.lengths}
    fitting = [
        lengths[cell.length][0] <= len(text) <= lengths[cell.length][1]
        for cell, text in zip(cells, said, strict=True)
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
        distinct_runs=len(set(runs)) / max(1, len(runs)),
        distinct_beginnings=len({tuple(text[:3]) for text in said}) / len(rows),
    )
