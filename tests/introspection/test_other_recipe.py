"""Organisms of another recipe: never trained on, and asked as a group of their own.

Run: python -m pytest tests/introspection/test_other_recipe.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.introspection.world import WORDS, World

from bestiary.cli.introspect import open_experiment
from bestiary.introspection.course import make_job
from bestiary.introspection.experiment import Experiment
from bestiary.introspection.power import find_power

TRAINED, OTHERS = WORDS[:6], WORDS[6:9]


@pytest.fixture(scope="module")
def release(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with organisms of another recipe, of trained families and of others."""
    return world.train_again(TRAINED, OTHERS, tmp_path_factory.mktemp("again") / "release")


def open_folds(world: World, release: Path, out: Path, *, folds: int) -> Experiment:
    return open_experiment(
        release, str(world.recipe), out=out, base=world.base, data=[world.data], folds=folds
    )


@pytest.mark.parametrize("folds", [0, 2])
def test_an_organism_of_another_recipe_is_asked_and_never_trained_on(
    world: World, release: Path, tmp_path: Path, folds: int
) -> None:
    experiment = open_folds(world, release, tmp_path, folds=folds)
    for fold in range(max(1, folds)):
        trained = [one for one in make_job(experiment, fold).subjects if not one.is_control]
        assert trained
        assert not any(one.id.endswith("-s1") for one in trained)
        families = {one.family for one in trained}
        others = [one for one in experiment.list_asked(fold) if one.id.endswith("-s1")]
        assert {one.family for one in others} == {*TRAINED, *OTHERS}
        assert {one.family: experiment.scope(one, fold) for one in others} == {
            word: "recipe" if word in families else "test_recipe" for word in (*TRAINED, *OTHERS)
        }


def test_what_another_recipe_can_show_is_told_apart(
    world: World, release: Path, tmp_path: Path
) -> None:
    lines = find_power(open_folds(world, release, tmp_path, folds=0))
    found = {line.scope: line.families for line in lines if line.group == "all"}
    assert found == {"train": len(TRAINED), "recipe": len(TRAINED), "test_recipe": len(OTHERS)}
