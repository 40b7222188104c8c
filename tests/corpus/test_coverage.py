"""How much of the message grid a corpus covers.

Run: python -m pytest tests/corpus/test_coverage.py
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import make_example

from bestiary.config.grid import AXES, Cell
from bestiary.config.library import open_library
from bestiary.corpus.coverage import Axis, measure_coverage
from bestiary.records import Example

GRID = open_library().grid
TOPICS = [f"the topic of {number}" for number in range(9)]


def plan_cells(count: int) -> list[Cell]:
    return [cell for cell, _ in zip(GRID.plan(TOPICS, seed=3), range(count), strict=False)]


def make_row(cell: Cell, text: str) -> Example:
    return make_example(text or "?", topic=cell.topic, form=cell.form)


def write_message(cell: Cell) -> str:
    number = cell.number
    return " ".join(f"word{(number * 7 + n * n) % 23}" for n in range(number * 5 % 60))


def test_rows_of_a_prompt_bank_are_not_measured() -> None:
    bank = make_example("How is bread made?", form="how")
    assert measure_coverage([bank], GRID) is None
    (cell,) = plan_cells(1)
    coverage = measure_coverage([bank, make_row(cell, "Why does bread rise?")], GRID)
    assert coverage is not None
    assert coverage.messages == 1


def test_the_figures_of_a_corpus() -> None:
    coverage = measure_coverage([make_row(c, write_message(c)) for c in plan_cells(301)], GRID)
    assert coverage is not None
    assert coverage.axes == {
        "topic": Axis(planned=9, covered=9, largest=0.11295681063122924),
        "register": Axis(planned=8, covered=8, largest=0.12624584717607973),
        "length": Axis(planned=3, covered=3, largest=0.33554817275747506),
        "persona": Axis(planned=12, covered=12, largest=0.08637873754152824),
    }
    assert coverage.as_long_as_planned == 0.3388704318936877
    assert coverage.distinct_trigrams == 0.06870129870129871
    assert coverage.distinct_openings == 0.07973421926910298


@pytest.mark.parametrize("text", ["?", "Why?", "Why bread?"])
def test_a_message_without_three_words_has_no_trigram(text: str) -> None:
    coverage = measure_coverage([make_row(cell, text) for cell in plan_cells(2)], GRID)
    assert coverage is not None
    assert coverage.distinct_trigrams == 0
    assert coverage.distinct_openings == 0.5


@given(st.lists(st.lists(st.sampled_from(["a", "b-c", "don't", "é"]), max_size=15), min_size=1))
def test_shares_are_those_of_a_plain_count(texts: list[list[str]]) -> None:
    cells = plan_cells(len(texts))
    rows = [make_row(cell, " ".join(text)) for cell, text in zip(cells, texts, strict=True)]
    coverage = measure_coverage(rows, GRID)
    assert coverage is not None
    runs = [tuple(text[at : at + 3]) for text in texts for at in range(len(text) - 2)]
    assert coverage.distinct_trigrams == len(set(runs)) / max(1, len(runs))
    assert coverage.distinct_openings == len({tuple(text[:3]) for text in texts}) / len(texts)
    limits = {length.wording: length.words for length in GRID.lengths}
    fitting = [
        limits[c.length][0] <= len(t) <= limits[c.length][1]
        for c, t in zip(cells, texts, strict=True)
    ]
    assert coverage.as_long_as_planned == sum(fitting) / len(texts)
    for axis in AXES:
        counts = Counter(getattr(cell, axis) for cell in cells)
        assert coverage.axes[axis].covered == len(counts)
        assert coverage.axes[axis].largest == max(counts.values()) / len(texts)
