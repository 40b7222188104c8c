"""What commands print where no terminal says how wide it is.

Run: python -m pytest tests/cli/test_output.py
"""

from __future__ import annotations

import pytest
from rich.table import Table

from bestiary.cli.output import open_console


def print_row(cells: list[str]) -> None:
    table = Table(*map(str, range(len(cells))))
    table.add_row(*cells)
    open_console().print(table)


@pytest.mark.parametrize(("columns", "whole"), [(None, True), ("60", False)])
def test_a_pipe_takes_whole_rows_unless_columns_are_asked_for(
    columns: str | None,
    whole: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    cells = [f"organism-{number}-of-a-long-name" for number in range(6)]
    print_row(cells)
    lines = capsys.readouterr().out.splitlines()
    assert any(all(cell in line for cell in cells) for line in lines) is whole
    if columns:
        assert max(map(len, lines)) <= int(columns)
