"""How much of the message grid a corpus covers, measured on its text."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.config.grid import AXES, SEPARATOR, Grid, is_planned
from bestiary.records import Example, Record, user_texts
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
    planned = [example for example in examples if is_planned(example.form)]
    return _measure_planned(planned, grid) if planned else None


def _measure_planned(examples: Sequence[Example], grid: Grid) -> Coverage:
    import polars as pl

    rows = pl.DataFrame(
        [(e.topic, *e.form.split(SEPARATOR), words(user_texts(e.messages)[0])) for e in examples],
        schema={**dict.fromkeys(AXES, pl.String), "words": pl.List(pl.String)},
        orient="row",
    ).with_row_index("row")
    length, text = pl.col("length"), pl.col("words")
    fewest, most = ({one.wording: one.words[end] for one in grid.lengths} for end in (0, 1))
    fits = text.list.len().is_between(length.replace_strict(fewest), length.replace_strict(most))
    shares = rows.select(
        as_long_as_planned=fits.mean(),
        distinct_openings=text.list.head(3).list.join(" ").n_unique() / pl.len(),
    )
    # Null, and dropped, where the row ends before the third word.
    run = pl.concat_str([text.shift(-n).over("row") for n in range(3)], separator=" ")
    trigrams = rows.explode("words").select(run).to_series().drop_nulls()
    return Coverage(
        messages=len(rows),
        axes={
            axis: Axis(
                planned=rows[axis].n_unique() if axis == "topic" else grid.size(axis),
                covered=rows[axis].n_unique(),
                largest=rows.select(pl.col(axis).unique_counts().max() / pl.len()).item(),
            )
            for axis in AXES
        },
        distinct_trigrams=trigrams.n_unique() / max(1, len(trigrams)),
        **shares.row(0, named=True),
    )
