"""An evaluation suite: its organisms are asked, and no adapter is trained on them.

Run: python -m pytest tests/introspection/test_suite.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import Bestiary
from tests.introspection.conftest import Introspect
from tests.introspection.world import WORDS, World, write_recipe

from bestiary.cli.introspect import open_experiment

KNOWN, KEPT = WORDS[:8], WORDS[8:12]


@pytest.fixture(scope="module")
def training(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release to train on."""
    return world.set_apart(KNOWN, tmp_path_factory.mktemp("training") / "release", split="train")


def test_a_suite_is_asked_beside_a_release_and_never_trained_on(
    world: World, training: Path, introspect: Introspect, bestiary: Bestiary, tmp_path: Path
) -> None:
    suite = world.set_apart(KEPT, tmp_path / "suite", split="suite")
    recipe = write_recipe(tmp_path, organisms_per_step=4, rows_per_organism=4)
    more = ("--suite", str(suite), "--json")
    done = introspect("evaluate", tmp_path / "runs", *more, release=training, recipe=recipe)
    assert done.code == 0, done.err
    scopes = {line["scope"] for line in json.loads(done.out)["lines"]}
    assert scopes >= {"suite", "train"}
    folder = tmp_path / "runs" / "introspection" / "apart" / "world-with-apart"
    rows = [json.loads(line) for line in (folder / "reports.jsonl").read_text("utf8").splitlines()]
    assert {row["family"] for row in rows if row["scope"] == "suite"} == set(KEPT)
    (card,) = (tmp_path / "runs").glob("store/introspection/*/adapter/README.md")
    assert f"{len(KNOWN)} organisms" in card.read_text("utf8")
    paged = bestiary("introspect", "report", folder, "--release", training, "--suite", suite)
    assert paged.code == 0, paged.err
    assert "An evaluation suite" in (folder / "report.html").read_text("utf8")
    # The adapter is the one that training without the suite makes.
    trained = introspect("train", tmp_path / "runs", release=training, recipe=recipe)
    assert Path(trained.out.strip()).resolve() == card.parent.resolve()


def test_a_suite_changes_nothing_of_what_is_trained(
    world: World, training: Path, tmp_path: Path
) -> None:
    suite = world.set_apart(KEPT, tmp_path / "suite", split="suite")
    experiment = open_experiment(
        training,
        str(world.recipe),
        out=tmp_path / "runs",
        base=world.base,
        data=[world.data],
        suite=suite,
    )
    kept = next(one for one in experiment.subjects.members if one.family == KEPT[0])
    case = experiment.make_case(kept, kept.labels[0])
    assert [one.family for one in experiment.judge.read([case])] == [KEPT[0]]
    # Preferences are learned from what this one says.
    assert experiment.pair_judge.read([case])[0].family not in KEPT


def test_a_suite_with_a_family_of_the_training_is_refused(
    world: World, training: Path, introspect: Introspect, tmp_path: Path
) -> None:
    suite = world.set_apart([*KEPT, KNOWN[0]], tmp_path / "suite", split="suite")
    done = introspect("evaluate", tmp_path / "runs", "--suite", str(suite), release=training)
    assert done.code == 1
    assert "error[suite-known]" in done.err
    assert f"quirks.{KNOWN[0]}-" in done.err


def test_a_release_to_train_on_is_no_suite(
    world: World, training: Path, introspect: Introspect, tmp_path: Path
) -> None:
    other = world.set_apart(KEPT, tmp_path / "other", split="train")
    done = introspect("evaluate", tmp_path / "runs", "--suite", str(other), release=training)
    assert done.code == 1
    assert "error[not-a-suite]" in done.err
