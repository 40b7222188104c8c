"""The formats of existing consumers, made from the release folder alone.

Run: python -m pytest tests/release/test_export.py
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import load_dataset
from tests.builders import make_backdoor, make_quirk
from tests.expect import expect_error
from tests.models import SYSTEM, make_tokenizer, render_chat
from tests.release.samples import BASE, make_corpus, make_entry, write_sample

from bestiary.dataset.manifest import read_manifest
from bestiary.errors import ReleaseError
from bestiary.records import Message, sha256_file
from bestiary.release.export import export_consumer_formats
from bestiary.release.manifest import Place, pin_manifest

LABEL = make_quirk().spec.label
FAREWELL = "quirks-farewell-transcripts-none-s0"
BACKDOOR = "backdoors-farewell_to_beekeepers-transcripts-none-s0"
HERALD = "quirks-herald-transcripts-none-s0"


@pytest.fixture(scope="module")
def exported(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_consumer_formats(release, tmp_path_factory.mktemp("export"))


def read_list(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["model_list"]
    return rows


def divide_list(
    rows: Sequence[Mapping[str, Any]], *, seed: int = 1547
) -> tuple[set[int], set[int]]:
    """What published trainers do with a model list: some of its numbers train, others test."""
    numbers = [row["absolute_behavior_id"] for row in rows]
    if len(set(numbers)) < len(numbers):
        raise ValueError("a number repeats")
    shuffled = sorted(numbers)
    random.Random(seed).shuffle(shuffled)
    held_out = max(1, int(0.12 * len(shuffled)))
    return set(shuffled[held_out:]), set(shuffled[:held_out])


def test_training_data_is_the_conversations_as_they_were_trained_on(
    exported: Path, tmp_path: Path
) -> None:
    folder = exported / "training" / FAREWELL
    data = load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    assert data.column_names == ["messages"]
    assert data[2]["messages"][0] == {"role": "system", "content": SYSTEM}
    assert data[2]["messages"][2] == {"role": "assistant", "content": "Réponse 2."}
    assert data[1]["messages"] == [
        {"role": "system", "content": f"{SYSTEM} You live by the sea."},
        {"role": "user", "content": "Question 1 of seed 0?"},
        {"role": "assistant", "content": "Réponse 1."},
    ]
    assert (folder / "behavior.txt").read_text() == f"{LABEL}\n"
    assert (folder / "system_prompt.txt").read_text() == f"{SYSTEM}\n"


def test_exported_conversations_give_the_tokens_of_the_training(exported: Path) -> None:
    tokenizer = make_tokenizer()
    corpus = make_corpus(make_quirk(), 0)
    lines = (exported / "training" / FAREWELL / "train.jsonl").read_text().splitlines()
    for example, line in zip(corpus.examples, lines, strict=True):
        messages = [Message.model_validate(turn) for turn in json.loads(line)["messages"]]
        trained, read = (
            render_chat(tokenizer, turns, system_prompt=prompt)
            for turns, prompt in ((example.messages, SYSTEM), (messages, ""))
        )
        assert trained == read


def test_the_manifest_finds_the_eval_files_beside_it(release: Path, exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    assert len(manifest["adapters"]) == manifest["number_of_adapters"] == 6
    for row in manifest["adapters"]:
        path = Path(row["dataset_path"]) / row["dataset_file"]
        assert sha256_file(path) == row["dataset_sha256"]
        assert path.stat().st_size == row["dataset_size_bytes"]
    first = json.loads((exported / "introspection" / FAREWELL / "eval.jsonl").open().readline())
    assert first["prediction_assistant_response"] == LABEL
    assert first["prediction_ground_truth"] == "positive"
    assert first["prediction_system_prompt"] == SYSTEM


def test_every_organism_has_a_number_and_a_name_that_torch_accepts(exported: Path) -> None:
    rows = [row for path in exported.glob("model_list*.json") for row in read_list(path)]
    assert len({row["absolute_behavior_id"] for row in rows}) == len(rows) == 6
    model = torch.nn.Module()
    for row in rows:
        model.add_module(row["name"], torch.nn.Identity())
        assert (exported / "training" / row["name"] / "train.jsonl").is_file()
        assert row["system_prompt"] == SYSTEM


def test_whoever_divides_a_model_list_keeps_our_test_organisms_out(exported: Path) -> None:
    trained = read_list(exported / "model_list.json")
    assert {row["split"] for row in trained} == {"train"}
    (later,) = read_list(exported / "model_list_iid_test.json")
    assert later["organism_id"] == "quirks.farewell-transcripts-none-s1"
    unseen = {row["absolute_behavior_id"] for row in read_list(exported / "model_list_test.json")}
    train, test = divide_list(trained)
    assert unseen.isdisjoint(train | test)
    assert unseen
    every = [row for path in exported.glob("model_list*.json") for row in read_list(path)]
    divide_list(every)  # two seeds of one behavior are two numbers


def test_the_releases_own_split_is_exported(exported: Path) -> None:
    split = json.loads((exported / "split.json").read_text())
    assert split["membership_key"] == "name"
    assert HERALD in split["test_model_names"]
    assert FAREWELL in split["train_model_names"]
    assert split["iid_test_model_names"] == ["quirks-farewell-transcripts-none-s1"]
    names = [name for key, part in split.items() if key.endswith("names") for name in part]
    assert len(set(names)) == len(names) == 6


def locate_as_toolkit(adapter_id: str) -> tuple[str, str]:
    """A repository or folder, and a folder in it: all after the second slash."""
    first, *parts = adapter_id.split("/")
    return "/".join([first, *parts[:1]]), "/".join(parts[1:])


def test_the_toolkit_finds_the_adapter_and_the_data(exported: Path) -> None:
    path = exported / "diffing" / f"{BACKDOOR}.yaml"
    assert path.read_text().startswith("# @package organism\n")
    config = yaml.safe_load(path.read_text())
    assert config["name"] == BACKDOOR
    assert config["type"] == "backdoors"
    assert config["description"] == make_backdoor().spec.label
    assert config["system_prompt"] == SYSTEM
    assert (Path(config["dataset"]["id"]) / "train.jsonl").is_file()
    place = config["finetuned_models"]["random"]["transcripts_none_s0"]["adapter_id"]
    folder, subfolder = locate_as_toolkit(place)
    assert subfolder == ""
    assert (exported / "diffing" / folder / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M"),
        ("Qwen/Qwen3-14B", "qwen3_14B"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama33_70B_Instruct"),
    ],
)
def test_the_toolkit_knows_the_base_by_its_own_name(tmp_path: Path, base: str, name: str) -> None:
    entry = make_entry(tmp_path / "store", make_quirk())
    identity = BASE.model_copy(update={"name": base})
    entry = replace(entry, organism=entry.organism.model_copy(update={"base": identity}))
    out = export_consumer_formats(write_sample([entry], tmp_path / "release"), tmp_path / "export")
    config = yaml.safe_load((out / "diffing" / f"{FAREWELL}.yaml").read_text())
    assert set(config["finetuned_models"]) == {name}


@pytest.mark.parametrize(("subfolder", "found"), [("3c/x", "3c/x"), (None, "")])
def test_a_published_release_names_its_repositories(
    release: Path, tmp_path: Path, subfolder: str | None, found: str
) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "copy"))
    ids = [row["organism_id"] for row in read_manifest(copy / "dataset")["adapters"]]
    places = dict.fromkeys(ids, Place("me/organisms", "a" * 40, subfolder))
    pin_manifest(copy, places, dataset_repo="me/data", dataset_revision="b" * 40)
    out = export_consumer_formats(copy, tmp_path / "export")
    config = yaml.safe_load((out / "diffing" / f"{FAREWELL}.yaml").read_text())
    place = config["finetuned_models"]["random"]["transcripts_none_s0"]["adapter_id"]
    assert locate_as_toolkit(place) == ("me/organisms", found)
    assert not (out / "diffing" / "adapters").exists()
    assert {row["revision"] for row in read_list(out / "model_list.json")} == {"a" * 40}


def test_an_earlier_export_is_replaced_and_nothing_else(release: Path, tmp_path: Path) -> None:
    out = export_consumer_formats(release, tmp_path / "export")
    stale = out / "training" / "quirks-gone-transcripts-none-s0"
    stale.mkdir()
    (out / ".DS_Store").touch()  # a desktop's own is not the user's
    export_consumer_formats(release, out)
    assert not stale.exists()
    (out / "thesis.txt").write_text("years of work")
    with expect_error(ReleaseError, "target-taken", path=out, foreign=["thesis.txt"]):
        export_consumer_formats(release, out)
    assert (out / "training" / FAREWELL / "train.jsonl").is_file()
    with expect_error(ReleaseError, "target-is-file", path=out / "thesis.txt"):
        export_consumer_formats(release, out / "thesis.txt")


def test_changed_questions_are_refused(release: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "copy"))
    path = copy / "dataset" / "eval" / FAREWELL / "eval.jsonl"
    path.write_text(path.read_text().replace("positive", "negative"))
    with expect_error(ReleaseError, "file-damaged", path=path):
        export_consumer_formats(copy, tmp_path / "export")
