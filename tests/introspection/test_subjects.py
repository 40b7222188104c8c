"""What a release must be for introspection to read it.

Run: python -m pytest tests/introspection/test_subjects.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.introspection.conftest import Introspect
from tests.introspection.world import NULLS, UNSEEN, WORDS, World

from bestiary.introspection.subjects import load_subjects


def test_organisms_and_nulls_are_read_with_their_splits(world: World) -> None:
    subjects = load_subjects(world.release)
    assert len(subjects.members) == len(WORDS) + NULLS
    unseen = {one.family for one in subjects.members if one.split == "test" and not one.is_control}
    assert unseen == set(WORDS[:UNSEEN])
    assert {one.kind for one in subjects.members} == {"organism", "null"}
    nulls = [one for one in subjects.members if one.is_control]
    assert {one.split for one in nulls} == {"train", "test"}


def test_a_damaged_organism_is_named(world: World, introspect: Introspect, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(world.release, release)
    weights = next((release / "organisms").glob("*/*/adapter_model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    done = introspect("train", tmp_path / "runs", release=release)
    assert done.code == 1
    assert "error[file-damaged]" in done.err
    assert weights.parent.name in done.err


def test_a_release_without_its_organisms_is_refused(
    world: World, introspect: Introspect, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    shutil.copytree(world.release / "dataset", release / "dataset")
    done = introspect("train", tmp_path / "runs", release=release)
    assert done.code == 1
    assert "error[file-missing]" in done.err
    assert "organisms" in done.err


def test_a_release_without_training_organisms_is_refused(
    world: World, introspect: Introspect, tmp_path: Path
) -> None:
    release = world.split_again(tmp_path / "release", train=0, preference=0)
    done = introspect("train", tmp_path / "runs", release=release)
    assert done.code == 1
    assert "error[no-training-organisms]" in done.err


@pytest.mark.parametrize("field", ["controls", "organisms_per_step"])
def test_a_recipe_without_a_field_is_refused(
    world: World, introspect: Introspect, tmp_path: Path, field: str
) -> None:
    import json

    recipe = json.loads(world.recipe.read_text("utf8"))
    del recipe[field]
    broken = tmp_path / "broken.yaml"
    broken.write_text(json.dumps(recipe), "utf8")
    done = introspect("train", tmp_path / "runs", recipe=broken)
    assert done.code == 1
    assert field in done.err
