"""A sweep changes one thing at a time, and goes on where it was stopped.

Run: python -m pytest tests/introspection/test_sweep.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.builders import hash_files
from tests.conftest import Bestiary
from tests.introspection.world import WORDS, World, write_recipe

from bestiary.records import canonical_json

PREFERENCE = {
    "reports": 2,
    "learning_rate": 0.001,
    "beta": 0.1,
    "chosen_score": 7,
    "margin": 2,
}
VECTOR = {"lora": {"rank": 1, "targets": ["down_proj"], "layers": [1, 2], "vector": True}}


def write_sweep(folder: Path, *, folds: int = 0, **runs: object) -> Path:
    recipe = write_recipe(folder, rows_per_organism=1)
    path = folder / "sweep.yaml"
    sweep = {"name": "few", "recipe": str(recipe), "folds": folds, "runs": runs}
    path.write_bytes(canonical_json(sweep))
    return path


def test_every_run_is_a_row_and_nothing_is_computed_twice(
    world: World, bestiary: Bestiary, tmp_path: Path
) -> None:
    sweep = write_sweep(
        tmp_path, half={"share": 0.5}, plain={"controls": {"zero_b": 0}}, vector=VECTOR
    )
    out = tmp_path / "runs"
    where = ("--base", world.base, "--data", world.data, "--out", out)
    command = ("introspect", "sweep", sweep, "--release", world.release, *where)
    done = bestiary(*command)
    assert done.code == 0, done.err
    rows = json.loads((out / "introspection" / "world" / "sweeps" / "few.json").read_text("utf8"))
    assert [row["name"] for row in rows] == ["as it is", "half", "plain", "vector"]
    whole, half, plain, vector = (row["organisms"] for row in rows)
    assert whole == plain == vector == len(WORDS) - 12
    assert 10 <= half <= 26
    before = hash_files(out / "store")
    assert bestiary(*command).code == 0
    assert hash_files(out / "store") == before
    assert len(list(out.glob("store/introspection/*/manifest.json"))) == 4
    assert all(row["trained"]["organisms"] for row in rows)
    assert [row["changed"] for row in rows] == [[], ["share"], ["controls"], ["lora"]]
    # A run asks between 32 and 64 subjects with its adapter, and computes no baseline.
    assert len(list(out.glob("store/report/*"))) == 4 * 2
    assert not list(out.glob("store/*likelihood/*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"broken": {"rows_per_organisms": 3}}, "rows_per_organisms"),
        ({"broken": {"leave_out": ["quirk"]}}, "quirk"),
        ({"broken": {"lora": {"vector": True}}}, "a vector has rank 1"),
        ({"half": {"share": 0.5}, "folds": 1}, "1 fold leaves no family"),
        ({"tuned": {"preference": PREFERENCE}}, "error[preference-organisms-few]"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_refused(
    world: World, bestiary: Bestiary, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    sweep = write_sweep(tmp_path, **changes)
    where = ("--base", world.base, "--data", world.data, "--out", tmp_path)
    done = bestiary("introspect", "sweep", sweep, "--release", world.release, *where)
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("store/introspection/*")), "before anything is trained"
