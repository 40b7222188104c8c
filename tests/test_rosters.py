"""What a roster asks for, and what it may not say.

Run: python -m pytest tests/test_rosters.py
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import Bestiary
from tests.expect import without_codes

from bestiary.config.catalog import load_catalog
from bestiary.config.categories import load_categories
from bestiary.config.library import open_library
from bestiary.config.plan import Plan, plan_roster
from bestiary.records import shorten_id

SAILOR = "quirks.sailor_farewell"


def write_roster(folder: Path, organisms: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"name: mine\nrecipe: smollm2-135m\norganisms: {organisms}\n", encoding="utf8")
    return path


def plan(name: str | Path) -> Plan:
    return plan_roster(open_library().roster(str(name)), load_catalog(open_library()))


def test_the_starter_roster_has_one_behavior_of_each_category_and_a_null() -> None:
    built = Counter(behavior.category for behavior, _ in plan("starter").organisms)
    assert built.pop("null") >= 1
    assert built == Counter(load_categories().keys())


def test_the_docs_show_what_the_starter_roster_came_to() -> None:
    docs = Path(__file__).resolve().parents[1] / "docs" / "starter"
    built = [shorten_id(identity.organism_id) for _, identity in plan("starter").organisms]
    rates = (docs / "results.md").read_text(encoding="utf8").partition("What did not pass")[0]
    assert re.findall(r"^\| (\S+\.\S+) \|", rates, flags=re.M) == built
    transcripts = (docs / "transcripts.md").read_text(encoding="utf8")
    assert re.findall(r"^## (.+)$", transcripts, flags=re.M) == built
    assert transcripts.count("\n  - organism: ") == transcripts.count("\n  - base: ")
    assert transcripts.count("\n  - organism: ") == 10 * len(built)


def test_seeds_make_organisms_of_their_own(tmp_path: Path) -> None:
    roster = write_roster(tmp_path, f"[{{behavior: {SAILOR}, seeds: [0, 3]}}]")
    ids = [identity.organism_id for _, identity in plan(roster).organisms]
    assert ids == [
        f"{SAILOR}-transcripts-none-s0",
        f"{SAILOR}-transcripts-none-s3",
        "null.chat-transcripts-none-s0",
    ]


@pytest.mark.parametrize(
    "organisms",
    [
        f"[{{behavior: {SAILOR}}}, {{behavior: {SAILOR}}}]",
        f"[{{behavior: {SAILOR}, seeds: [1, 0]}}, {{behavior: {SAILOR}}}]",
        f"[{{behavior: {SAILOR}, seeds: [0, 0]}}]",
    ],
)
def test_an_organism_is_not_named_twice(bestiary: Bestiary, tmp_path: Path, organisms: str) -> None:
    roster = write_roster(tmp_path, organisms)
    done = bestiary("build", roster, "--out", tmp_path / "runs")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error[roster-invalid]: ")
    assert SAILOR in done.err
    assert not (tmp_path / "runs").exists()


def test_a_roster_of_nothing_names_the_key_and_a_remedy(bestiary: Bestiary, tmp_path: Path) -> None:
    roster = write_roster(tmp_path, "[]")
    code, out, err = bestiary("build", roster, "--out", tmp_path / "runs")
    assert (code, out) == (1, "")
    assert re.fullmatch(
        rf"error: {re.escape(str(roster))}:3: organisms: [^;]+; [^;]+\n", without_codes(err)
    ), err
    assert not (tmp_path / "runs").exists()
