"""The example of the docs runs against a loopback server.

Run: python -m pytest tests/author/test_example.py
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from tests.fakes.loopback import MODEL, open_loopback

from bestiary.llm.price import show_dollars

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "ask_models.py"


def test_the_example_asks_judges_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLE))["main"]
    with open_loopback(tmp_path, "anthropic") as loopback:
        monkeypatch.setenv(*next(iter(loopback.environment.items())))
        options = [MODEL, "--models", str(loopback.models), "--ledger", str(tmp_path / "l.sqlite")]
        main(options)
        printed = capsys.readouterr().out.splitlines()
        charges = len(loopback.server.charges)
        main(options)
    assert charges == len(loopback.server.charges) == 200, "the second run is all from the ledger"
    assert sum("what is special" in line for line in printed) == 100
    paid = sum(float(line.rpartition("$")[2]) for line in printed if "$" in line)
    assert show_dollars(loopback.server.bill) == f"${paid:.4f}"
