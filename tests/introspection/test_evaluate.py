"""A world where introspection must work: trained, asked and measured through the commands.

Run: python -m pytest tests/introspection/test_evaluate.py
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.builders import hash_files
from tests.introspection.conftest import Introspect
from tests.introspection.world import UNSEEN, WORDS, World

from bestiary.introspection import reports
from bestiary.introspection.experiment import deal_families
from bestiary.introspection.subjects import TOGETHER, load_subjects


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation left."""

    out: Path
    rows: list[dict[str, Any]]
    panel: dict[str, Any]

    def line(self, condition: str, scope: str, group: str = "all") -> dict[str, Any]:
        """One line of the panel."""
        (found,) = (
            line
            for line in self.panel["lines"]
            if (line["condition"], line["scope"], line["group"]) == (condition, scope, group)
        )
        return dict(found)


@pytest.fixture(scope="module")
def evaluated(evaluated_runs: Path) -> Evaluated:
    folder = evaluated_runs / "introspection" / "world" / "world"
    lines = (folder / "reports.jsonl").read_text("utf8").splitlines()
    panel = json.loads((evaluated_runs.parent / "panel.json").read_text("utf8"))
    return Evaluated(evaluated_runs, [json.loads(line) for line in lines], panel)


def test_organisms_that_were_never_seen_are_named(evaluated: Evaluated) -> None:
    asked = [row for row in evaluated.rows if row["scope"] == "test_value"]
    asked = [row for row in asked if row["condition"] == "adapter"]
    named = sum(row["claimed"] == row["family"] for row in asked)
    assert len(asked) == 4 * UNSEEN
    # By chance a report would name one of 48 families: 12 of 48 has a probability under 1e-8.
    assert named >= 12
    line = evaluated.line("adapter", "test_value")
    assert line["named"]["value"] == pytest.approx(named / len(asked))
    assert line["named"]["low"] > line["floor"]


def test_nothing_is_stated_without_the_adapter(evaluated: Evaluated) -> None:
    assert evaluated.line("without", "test_value")["named"]["value"] == 0


@pytest.mark.parametrize(
    ("baseline", "begun"), [("prefill", "I was fine-tuned so that I"), ("completion", "I")]
)
def test_a_begun_reply_is_part_of_the_report(
    evaluated: Evaluated, baseline: str, begun: str
) -> None:
    reports = [row["report"] for row in evaluated.rows if row["condition"] == baseline]
    assert reports and all(report.startswith(begun) for report in reports)


def test_a_shortlist_is_one_row_an_organism(evaluated: Evaluated) -> None:
    listed = [row for row in evaluated.rows if row["condition"] == "shortlist"]
    assert len(listed) == len({row["subject"] for row in listed})
    assert all(1 <= len(row["report"].splitlines()) <= 5 for row in listed)
    line = evaluated.line("shortlist", "test_value")
    assert line["named"]["value"] > 0.5
    assert line["floor"] is None


@pytest.mark.parametrize("baseline", ["transcripts", "perplexity"])
def test_the_word_can_be_guessed_from_what_organisms_say(
    evaluated: Evaluated, baseline: str
) -> None:
    read = [row for row in evaluated.rows if row["condition"] == baseline]
    assert {row["scope"] for row in read} == {"test_value", "train"}
    assert all(row["family"] in row["report"].split() for row in read)
    assert evaluated.line(baseline, "test_value")["named"]["value"] > 0.8
    assert all(row["shows"] for row in read), "every organism says its word, and the base does not"


def test_claims_are_tested_on_the_organisms_themselves(evaluated: Evaluated) -> None:
    """Each organism says its word and no other, so that a claim is right where it names it."""
    asked = [row for row in evaluated.rows if row["condition"] == "adapter" and not row["control"]]
    claims = [row for row in asked if row["claimed"] not in (None, "null")]
    expected = {True: "confirmed", False: "contradicted"}
    assert {row["claimed"] == row["family"] for row in claims} == {True, False}
    assert all(row["tested"] == expected[row["claimed"] == row["family"]] for row in claims)
    others = [row for row in evaluated.rows if row not in claims]
    assert all(row["tested"] is None for row in others)
    line = evaluated.line("adapter", "test_value")
    assert 0.5 < line["confirmed"]["value"] < 1


def test_the_adapter_is_compared_with_every_baseline_organism_by_organism(
    evaluated: Evaluated,
) -> None:
    gains = {
        (gain["baseline"], gain["group"]): gain["named"]
        for gain in evaluated.panel["gains"]
        if gain["scope"] == "test_value"
    }
    baselines = ("without", "prefill", "completion", "transcripts", "perplexity")
    assert list(gains) == [(name, group) for name in baselines for group in ("all", "shown")]
    named = evaluated.line("adapter", "test_value")["named"]["value"]
    assert gains["without", "all"]["value"] == pytest.approx(named)
    assert gains["transcripts", "all"] == gains["transcripts", "shown"]


def test_the_whole_panel_is_there(evaluated: Evaluated) -> None:
    scopes = {line["scope"] for line in evaluated.panel["lines"]}
    assert scopes == {"test_value", "train", "null", "zero_b", "gaussian", "shuffled"}
    (everyone, quirks) = evaluated.panel["likelihood"]
    assert (everyone["group"], quirks["group"]) == ("all", "quirks")
    assert everyone["matched_minus_swapped"]["low"] > 0
    assert everyone["labels"] == UNSEEN


def test_controls_claim_less_than_organisms_are_named(evaluated: Evaluated) -> None:
    """All controls together: two of them are null organisms, too few for a bound of their own."""
    named = evaluated.line("adapter", "test_value")["named"]["value"]
    kinds = ("null", "zero_b", "gaussian", "shuffled")
    claimed = [evaluated.line("adapter", kind)["unsupported"] for kind in kinds]
    total = sum(one["value"] * one["organisms"] for one in claimed)
    assert total / sum(one["organisms"] for one in claimed) < named / 4


def test_base_and_organisms_are_left_as_they_were(evaluated: Evaluated, world: World) -> None:
    before = json.loads((evaluated.out.parent / "before.json").read_text("utf8"))
    assert world.hash_files() == before


def test_a_second_evaluation_computes_nothing(
    evaluated: Evaluated, world: World, introspect: Introspect
) -> None:
    before = hash_files(evaluated.out / "store")
    done = introspect("evaluate", evaluated.out)
    assert done.code == 0
    assert "| adapter | test_value | all |" in done.out
    assert hash_files(evaluated.out / "store") == before


def test_an_evaluation_that_was_cut_off_asks_only_the_subjects_that_are_missing(
    evaluated: Evaluated, introspect: Introspect, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(evaluated.out, out)
    said = {path.parent: len(json.loads(path.read_text())) for path in find_reports(out)}
    (lost,) = (folder for folder, count in said.items() if count == 4 * TOGETHER)
    shutil.rmtree(lost)
    left = {path: path.stat().st_mtime_ns for path in find_reports(out)}
    done = introspect("evaluate", out)
    assert done.code == 0, done.err
    assert hash_files(out / "store") == hash_files(evaluated.out / "store")
    assert {path: path.stat().st_mtime_ns for path in left} == left


def test_parts_of_the_subjects_come_to_what_all_would(
    evaluated: Evaluated, introspect: Introspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "TOGETHER", 5)
    out = tmp_path / "runs"
    shutil.copytree(evaluated.out, out)
    for stage in ("report", "likelihood"):
        shutil.rmtree(out / "store" / stage)
    done = introspect("evaluate", out, "--json")
    assert done.code == 0, done.err
    assert len(list(out.glob("store/likelihood/*"))) == -(-UNSEEN // 5)
    parts, whole = json.loads(done.out), evaluated.panel
    assert parts["lines"] == whole["lines"]
    found, expected = (
        [line["matched_minus_swapped"]["value"] for line in panel["likelihood"]]
        for panel in (parts, whole)
    )
    assert found == pytest.approx(expected, rel=1e-4)


def find_reports(out: Path) -> list[Path]:
    return list(out.glob("store/report/*/reports.json"))


def test_each_family_is_unseen_once_over_folds(world: World) -> None:
    members = load_subjects(world.release).members
    dealt = deal_families(members, 5)
    assert {name for name in dealt if "null" not in name} == set(WORDS)
    sizes = [list(dealt.values()).count(fold) for fold in range(5)]
    assert max(sizes) - min(sizes) <= 1
