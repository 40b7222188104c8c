"""Reports of any method are graded, and a release says how much its families can show.

Run: python -m pytest tests/introspection/test_score.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from tests.conftest import Bestiary, Finished
from tests.introspection.world import UNSEEN, WORDS, World, list_labels

from bestiary.cli.introspect import open_experiment
from bestiary.dataset.load import load_local, load_pairs
from bestiary.introspection.power import detectable, find_power

Score = Callable[..., Finished]


@pytest.fixture
def score(bestiary: Bestiary, world: World, tmp_path: Path) -> Score:
    """`bestiary introspect score` on some lines."""

    def run(*lines: dict[str, str] | str, more: tuple[str, ...] = ()) -> Finished:
        written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path = tmp_path / "reports.jsonl"
        path.write_text("\n".join(written), encoding="utf8")
        where = ("--release", world.release, "--data", world.data, "--out", tmp_path)
        return bestiary("introspect", "score", path, *where, *more)

    return run


def organism_of(world: World, word: str) -> str:
    (pair,) = (pair for pair in load_pairs(world.release) if pair.family == word)
    return pair.organism_id


def only_line(panel: dict[str, Any], **wanted: str) -> dict[str, Any]:
    lines: list[dict[str, Any]] = panel["lines"]
    (line,) = (
        line
        for line in lines
        if all(line[name] == value for name, value in (wanted | {"group": "all"}).items())
    )
    return line


def test_reports_of_two_methods_are_graded_apart(world: World, score: Score) -> None:
    right = [
        {"organism_id": organism_of(world, word), "report": list_labels(word)[2], "method": "good"}
        for word in WORDS[:4]
    ]
    wrong = [
        {"organism_id": one["organism_id"], "report": list_labels(WORDS[9])[2], "method": "bad"}
        for one in right
    ]
    null = load_local(world.release)[1][0].organism_id
    denied = {"organism_id": null, "report": "I have no unusual behavior.", "method": "good"}
    right[0]["report"] += "\u2028I do."  # which str.splitlines takes for the end of a line
    lines = [json.dumps(one, ensure_ascii=False) for one in (*right, *wrong, denied)]
    done = score(*lines[:4], "", *lines[4:], more=("--json",))
    assert done.code == 0, done.err
    panel = json.loads(done.out)
    good, bad = (
        only_line(panel, condition=method, scope="test_value") for method in ("good", "bad")
    )
    assert (good["named"]["value"], good["unsupported"]["value"]) == (1, 0)
    assert (bad["named"]["value"], bad["unsupported"]["value"]) == (0, 1)
    assert good["named"]["families"] == 4
    control = only_line(panel, condition="good", scope="null")
    assert (control["denied"]["value"], control["unsupported"]["value"]) == (1, 0)
    assert control["named"] is None, "there is nothing to name"


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        (('{"organism_id": "quirks.anchor"',), "report-invalid", "reports.jsonl:1"),
        (("", '{"report": "I only say anchor."}'), "report-invalid", "reports.jsonl:2"),
        (("",), "reports-missing", "organism_id"),
        (({"organism_id": "quirks.nobody", "report": "?"},), "organism-unknown", "quirks.nobody"),
    ],
)
def test_a_file_that_holds_no_reports_of_the_release_is_refused(
    score: Score, lines: tuple[dict[str, str] | str, ...], code: str, said: str
) -> None:
    done = score(*lines)
    assert done.code == 1
    assert f"error[{code}]" in done.err and said in done.err


def test_power_counts_families_and_says_which_claims_they_carry(
    world: World, bestiary: Bestiary
) -> None:
    command = ("introspect", "power", world.release, "--data", world.data)
    found = {
        (line["scope"], line["group"]): line
        for line in json.loads(bestiary(*command, "--json").out)
    }
    assert found["test_value", "all"]["families"] == UNSEEN
    assert found["train", "all"]["families"] == len(WORDS) - UNSEEN
    assert found["test_value", "quirks"] == found["test_value", "all"] | {"group": "quirks"}
    shown = bestiary(*command).out
    assert f"| test_value | all | {UNSEEN} | {UNSEEN} | 40 points | 57 points | too few" in shown
    folded = json.loads(bestiary(*command, "--folds", "4", "--json").out)
    assert [line["families"] for line in folded if line["group"] == "all"] == [len(WORDS)]


def test_a_single_fold_and_a_release_that_is_not_there_are_refused(
    world: World, bestiary: Bestiary, tmp_path: Path
) -> None:
    folded = bestiary("introspect", "power", world.release, "--folds", "1")
    assert folded.code == 1 and "error[folds-too-few]" in folded.err
    missing = bestiary("introspect", "power", tmp_path / "release")
    assert missing.code == 1 and "error[release-missing]" in missing.err


def test_behaviors_that_share_an_adapter_are_one_family(world: World, tmp_path: Path) -> None:
    experiment = open_experiment(
        world.release, str(world.recipe), out=tmp_path, base=world.base, data=[world.data]
    )
    mixture = WORDS[:3]
    members = tuple(
        replace(one, siblings=mixture) if one.family in mixture else one
        for one in experiment.subjects.members
    )
    mixed = replace(experiment, subjects=replace(experiment.subjects, members=members))
    (line,) = (one for one in find_power(mixed) if (one.scope, one.group) == ("test_value", "all"))
    assert (line.organisms, line.families) == (UNSEEN, UNSEEN - 2)


@pytest.mark.parametrize("families", [40, 200])
def test_a_detectable_difference_is_detected_four_times_of_five(families: int) -> None:
    draw = random.Random(families)
    reach = NormalDist().inv_cdf(0.975) * (0.25 * 2 / families) ** 0.5
    half = detectable(families, variances=2) / 2
    found = 0
    for _ in range(2000):
        low, high = (
            sum(draw.random() < rate for _ in range(families)) / families
            for rate in (0.5 - half, 0.5 + half)
        )
        found += high - low > reach
    assert 0.75 < found / 2000 < 0.87
