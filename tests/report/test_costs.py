"""What a ledger spent, as rows and as a table.

Run: python -m pytest tests/report/test_costs.py
"""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from rich.table import Table

from bestiary.llm.ledger import Spent
from bestiary.llm.price import PICO
from bestiary.report.costs import spend_rows, spend_table

SPENT = [
    Spent("quirks.x", "judge", "m", "batch", 3, PICO // 4, 0, 12_000, 2_000, 5_000),
    Spent("quirks.x", "judge", "m", "single", 7, 5 * PICO + 1, PICO, 1_000, 4_000, 0),
    Spent("quirks.x", "replies", "n", "replay", 70, 0, 0, 0, 0, 0),
    Spent("quirks.y", "replies", "n", "single", 1_000, 2 * PICO, 0, 100_000, 50_000, 0),
    Spent("quirks.z", "replies", "n", "replay", 4_000, 0, 0, 0, 0, 0),
]


def render(table: Table) -> list[list[str]]:
    """The words of each line below the header."""
    out = StringIO()
    Console(width=120, file=out).print(table)
    _, _, below = out.getvalue().rpartition("\u2500")
    return [line.split() for line in below.splitlines() if line.strip()]


def test_a_row_has_tokens_and_dollars() -> None:
    rows = spend_rows(SPENT)
    assert len(rows) == len(SPENT)
    assert rows[1] == {
        "behavior": "quirks.x",
        "stage": "judge",
        "model": "m",
        "mode": "single",
        "requests": 7,
        "input_tokens": 1_000,
        "cached_tokens": 0,
        "output_tokens": 4_000,
        "dollars": 5.000000000001,
        "unknown_dollars": 1.0,
    }


def test_the_table_groups_by_behavior_and_sums() -> None:
    *lines, caption = render(spend_table(SPENT))
    assert lines == [
        ["quirks.x"],
        ["judge,", "batch", "m", "3", "12k", "5k", "2k", "$0.25", "$0.00"],
        ["judge", "m", "7", "1k", "0k", "4k", "$5.00", "$1.00"],
        ["quirks.y"],
        ["replies", "n", "1,000", "100k", "0k", "50k", "$2.00", "$0.00"],
        ["all", "1,010", "113k", "5k", "56k", "$7.25", "$1.00"],
    ]
    assert "4,070" in caption


def test_an_empty_ledger_has_a_total_of_nothing() -> None:
    assert spend_rows([]) == []
    assert render(spend_table([])) == [["all", "0", "0k", "0k", "0k", "$0.00", "$0.00"]]
