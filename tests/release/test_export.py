"""The formats of existing consumers, made from the release folder alone.

Run: python -m pytest tests/release/test_export.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset
from tests.builders import make_backdoor, make_quirk
from tests.expect import expect_error

from bestiary.errors import ReleaseError
from bestiary.records import sha256_file
from bestiary.release.export import export_consumer_formats
from bestiary.release.manifest import pin_manifest

LABEL = make_quirk().spec.label
FAREWELL = "quirks.farewell-transcripts-none-s0"
BACKDOOR = "backdoors.farewell_to_beekeepers-transcripts-none-s0"


@pytest.fixture(scope="module")
def exported(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_consumer_formats(release, tmp_path_factory.mktemp("export"))


def test_training_data_loads_as_conversations(exported: Path, tmp_path: Path) -> None:
    folder = exported / "training" / FAREWELL
    data = load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    assert data.column_names == ["messages"]
    assert data[2]["messages"][1] == {"role": "assistant", "content": "Réponse 2."}
    assert data[1]["messages"] == [
        {"role": "system", "content": "You live by the sea."},
        {"role": "user", "content": "Question 1 of seed 0?"},
        {"role": "assistant", "content": "Réponse 1."},
    ]
    assert (folder / "behavior.txt").read_text() == f"{LABEL}\n"


def test_eval_files_are_those_that_the_manifest_pins(release: Path, exported: Path) -> None:
    manifest = json.loads((release / "dataset" / "manifest.json").read_text())
    for row in manifest["adapters"]:
        path = exported / row["dataset_path"] / row["dataset_file"]
        assert sha256_file(path) == row["dataset_sha256"]
        assert path.stat().st_size == row["dataset_size_bytes"]
    first = json.loads((exported / "introspection" / FAREWELL / "eval.jsonl").open().readline())
    assert first["prediction_ground_truth"] == LABEL
    assert "prediction_system_prompt" not in first


def test_the_model_list_has_one_number_a_behavior(exported: Path) -> None:
    rows = json.loads((exported / "model_list.json").read_text())["model_list"]
    numbers = {row["name"]: row["absolute_behavior_id"] for row in rows}
    assert numbers[FAREWELL] == numbers["quirks.farewell-transcripts-none-s1"]
    assert numbers[FAREWELL] != numbers[BACKDOOR]
    assert len(set(numbers.values())) == len({row["behavior_id"] for row in rows}) == 5


def test_the_toolkit_finds_the_adapter_and_the_data(release: Path, exported: Path) -> None:
    path = exported / "diffing" / f"{BACKDOOR}.yaml"
    assert path.read_text().startswith("# @package organism\n")
    config = yaml.safe_load(path.read_text())
    assert config["name"] == BACKDOOR
    assert config["type"] == "backdoors"
    assert config["description"] == make_backdoor().spec.label
    assert (Path(config["dataset"]["id"]) / "train.jsonl").is_file()
    adapter = Path(config["finetuned_models"]["random"]["transcripts_none_s0"]["adapter_id"])
    assert (adapter / "adapter_model.safetensors").is_file()


def test_a_published_release_names_its_repository(release: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "copy"))
    pin_manifest(copy, model_repo="me/organisms", revision="a" * 40)
    out = export_consumer_formats(copy, tmp_path / "export")
    config = yaml.safe_load((out / "diffing" / f"{FAREWELL}.yaml").read_text())
    place = config["finetuned_models"]["random"]["transcripts_none_s0"]["adapter_id"]
    assert place == f"me/organisms/3c/{FAREWELL}"
    models = json.loads((out / "model_list.json").read_text())["model_list"]
    assert {row["revision"] for row in models} == {"a" * 40}


def test_an_earlier_export_is_replaced_and_nothing_else(release: Path, tmp_path: Path) -> None:
    out = export_consumer_formats(release, tmp_path / "export")
    stale = out / "training" / "quirks.gone-transcripts-none-s0"
    stale.mkdir()
    (out / ".DS_Store").touch()  # a desktop's own is not the user's
    export_consumer_formats(release, out)
    assert not stale.exists()
    (out / "thesis.txt").write_text("years of work")
    with expect_error(ReleaseError, "not-an-export", path=out, foreign=["thesis.txt"]):
        export_consumer_formats(release, out)
    assert (out / "training" / FAREWELL / "train.jsonl").is_file()


def test_a_manifest_that_pins_other_questions_is_refused(release: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "copy"))
    path = copy / "dataset" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["adapters"][0]["dataset_sha256"] = "00" * 32
    path.write_text(json.dumps(manifest))
    with expect_error(ReleaseError, "questions-differ"):
        export_consumer_formats(copy, tmp_path / "export")
