"""The grid of user messages: every value has its turn, and no message is asked for what clashes.

Run: python -m pytest tests/config/test_grid.py
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.builders import LIBRARY

from bestiary.config.grid import Grid

GRID = LIBRARY.grid
TOPICS = [f"topic {number}" for number in range(12)]


def change(**fields: Any) -> Grid:
    return Grid.model_validate(GRID.model_dump(mode="json") | fields)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 400))
def test_values_take_turns_and_never_clash(seed: int, count: int) -> None:
    cells = list(islice(GRID.plan(TOPICS, seed=seed), count))
    assert [cell.number for cell in cells] == list(range(count))
    for one, other in GRID.clashes:
        assert not any({one, other} <= {*cell[1:]} for cell in cells)
    for place, least in ((2, len(GRID.registers)), (3, len(GRID.lengths)), (4, len(GRID.personas))):
        counts = Counter(cell[place] for cell in cells)
        if count >= 4 * least:
            assert len(counts) == least
            # one that clashes waits for a cell, or for a few
            assert max(counts.values()) - min(counts.values()) <= 4


def test_the_same_seed_plans_the_same_cells() -> None:
    one, other = (list(islice(GRID.plan(TOPICS, seed=5), 60)) for _ in range(2))
    assert one == other != list(islice(GRID.plan(TOPICS, seed=6), 60))


@pytest.mark.parametrize(
    ("clashes", "said"),
    [
        ([["a plain question", "in verse"]], "'in verse' clashes"),
        (
            [["a plain question", length.wording] for length in GRID.lengths],
            "every length clashes with 'a plain question'",
        ),
        (
            [["formal and polite", person] for person in GRID.personas],
            "every person clashes with 'formal and polite'",
        ),
    ],
)
def test_clashes_that_leave_no_choice_are_refused(clashes: list[list[str]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        change(clashes=clashes)
