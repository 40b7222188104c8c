"""Pairs load typed from a release folder.

Run: python -m pytest tests/dataset/test_load.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tests.expect import expect_error
from tests.release.samples import BASE

import bestiary
from bestiary.dataset.load import load_pairs
from bestiary.errors import ReleaseError

OBSCURED = "obscured_malign.upsell_hidden-transcripts-none-s0"


def test_pairs_load_typed_with_their_organism(release: Path) -> None:
    pairs = {pair.organism_id: pair for pair in bestiary.load_pairs(release)}
    assert len(pairs) == 5
    pair = pairs[OBSCURED]
    assert (pair.split, pair.category, pair.severity) == ("train", "obscured_malign", "malign")
    assert pair.label == "I steer people towards one vendor."
    assert pair.base == BASE
    assert (pair.kind, pair.axes) == ("say_phrase", ("style",))
    hiding = [component.behavior_id for component in pair.components]
    assert hiding == ["distractors.numbers", "distractors.colors"]
    assert pair.cells["near_miss"] is None
    fires = pair.cells["triggered"]
    assert fires is not None
    assert (fires.n, round(fires.rate * fires.n), fires.base_rate * 60) == (60, 57, 1)
    assert pair.organism is not None
    weights = load_file(pair.organism / "adapter_model.safetensors")
    assert weights["base_model.model.layer.lora_A.weight"].shape == (2, 8)


def test_the_dataset_folder_and_a_split_can_be_named(release: Path) -> None:
    (pair,) = load_pairs(str(release / "dataset"), split="test")
    assert pair.behavior_id == "quirks.herald"
    assert pair.organism == release / "organisms" / pair.organism_path
    assert load_pairs(release, split="preference") == []


def test_a_folder_may_be_named_like_a_pattern(release: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "runs[1]*"))
    assert len(load_pairs(copy)) == 5


def test_an_unknown_split_is_refused(release: Path) -> None:
    with expect_error(ReleaseError, "split-unknown", split="tset"):
        load_pairs(release, split="tset")


def test_a_dataset_downloaded_alone_has_no_organisms(release: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(release / "dataset", tmp_path / "download"))
    pairs = load_pairs(alone)
    assert len(pairs) == 5
    assert {pair.organism for pair in pairs} == {None}


def test_a_damaged_release_is_not_loaded(release: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "copy"))
    shutil.rmtree(copy / "organisms")
    with expect_error(ReleaseError, "file-missing"):
        load_pairs(copy)
    with expect_error(ReleaseError, "manifest-missing"):
        load_pairs(tmp_path)


def test_an_unknown_release_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with expect_error(ReleaseError, "release-not-found", repo="runs/releases/x"):
        load_pairs("runs/releases/x")
