"""A pilot writes a few conversations of each category, and says what the whole roster takes.

Run: python -m pytest tests/test_pilot.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Bestiary
from tests.fakes.loopback import Loopback, open_loopback
from tests.tiny import BACKDOOR, QUIRK, tiny_roster

from bestiary.pilot import EXAMPLES

CATEGORIES = 3


@pytest.fixture
def roster(tmp_path: Path, tiny_data: Path, tiny_base: Path) -> Path:
    """A quirk, a backdoor, and a null."""
    return tiny_roster(tmp_path / "roster", tiny_base, [QUIRK, BACKDOOR])


@pytest.fixture
def loopback(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Loopback]:
    with open_loopback(tmp_path, "openai") as opened:
        for name, value in opened.environment.items():
            monkeypatch.setenv(name, value)
        yield opened


def check_page(page: Path) -> None:
    """Twenty conversations of one organism of each category."""
    _, *sections = page.read_text("utf8").split("\n## ")
    assert [section.count("\n- **") for section in sections] == [EXAMPLES] * CATEGORIES


def test_the_offline_author_costs_nothing(bestiary: Bestiary, roster: Path, tmp_path: Path) -> None:
    done = bestiary("pilot", roster, "--out", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    check_page(Path(told["page"]))
    assert (told["organisms"], told["dollars"]) == (CATEGORIES, 0)


def test_a_roster_is_priced_by_the_answers_of_its_pilot(
    bestiary: Bestiary, roster: Path, tmp_path: Path, loopback: Loopback
) -> None:
    planned = json.loads(bestiary("plan", roster, *loopback.options(), "--json").out)[-1]
    options = (*loopback.options(), "--out", str(tmp_path / "runs"), "--budget", "5")
    command = ("pilot", str(roster), *options)
    done = bestiary(*command, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    check_page(Path(told["page"]))
    assert told["requests"] == planned["requests"]
    assert 0 < told["dollars"] != round(planned["dollars"]["single + caching"], 4)
    assert told["hours"] > 0
    bill = loopback.server.bill
    again = bestiary(*command)
    assert f"dollars: {told['dollars']}\n" in again.out and "hours: unknown\n" in again.out
    assert loopback.server.bill == bill


def test_a_pilot_keeps_to_its_budget(
    bestiary: Bestiary, roster: Path, tmp_path: Path, loopback: Loopback
) -> None:
    options = (*loopback.options(), "--out", str(tmp_path / "runs"), "--budget", "0.001")
    done = bestiary("pilot", roster, *options)
    assert done.code == 1 and done.err.startswith("error[budget-exhausted]: ")
