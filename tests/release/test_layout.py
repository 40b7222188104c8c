"""The tree of a release, its rows, and how it replaces an earlier one.

Run: python -m pytest tests/release/test_layout.py
"""

from __future__ import annotations

import errno
import gc
import json
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from datasets import Features, load_dataset
from tests.builders import LIBRARY, hash_files, make_quirk
from tests.expect import expect_error
from tests.models import SYSTEM
from tests.release.conftest import FINDINGS
from tests.release.samples import (
    BASE,
    TRAINING,
    make_benign_entries,
    make_entries,
    make_entry,
    write_sample,
)

from bestiary.config.catalog import null_behavior
from bestiary.config.roster import Roster
from bestiary.dataset.schema import CONFIGS, build_features, read_config, scan_config
from bestiary.dataset.verify import verify_release
from bestiary.errors import ReleaseError
from bestiary.records import SPLITS, Corpus, Finding, sha256_bytes, sha256_file
from bestiary.release.entry import ReleaseEntry
from bestiary.release.layout import fingerprint_release, write_release

FAREWELL = "quirks.farewell-transcripts-none-s0"
LIMP = "quirks.limp-transcripts-none-s0"
QUIRK = make_quirk()


def test_the_tree_has_the_documented_files(release: Path) -> None:
    found = set(hash_files(release))
    tables = {f"dataset/{config}/{split}.parquet" for config in CONFIGS for split in SPLITS}
    released = [*read_config(release / "dataset", "pairs")]
    released += read_config(release / "dataset", "controls")
    adapters = {
        f"organisms/{row['organism_path']}/{name}"
        for row in released
        for name in ("adapter_config.json", "adapter_model.safetensors", "README.md")
    }
    asked = {f"dataset/eval/{row['adapter_name']}/eval.jsonl" for row in released}
    assert found == tables | adapters | asked | {
        "dataset/README.md",
        "dataset/manifest.json",
        "organisms/README.md",
    }
    shards = {row["organism_id"]: row["organism_path"].split("/") for row in released}
    assert all(shard == [sha256_bytes(name.encode())[:2], name] for name, shard in shards.items())


def test_every_config_loads_from_the_folder(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    for config in CONFIGS:
        data = load_dataset(str(release / "dataset"), config, cache_dir=str(tmp_path))
        rows = {split: len(table) for split, table in data.items()}
        stored = [row["split"] for row in read_config(release / "dataset", config)]
        assert rows == {split: stored.count(split) for split in SPLITS if split in stored}
        assert {split: table.features for split, table in data.items()} == dict.fromkeys(
            rows, build_features(config)
        )
    default = load_dataset(str(release / "dataset"), split="test", cache_dir=str(tmp_path))
    assert default["label"] == [make_quirk("herald").spec.label]


def test_an_empty_split_has_its_schema(tmp_path: Path) -> None:
    release = write_sample(make_benign_entries(tmp_path / "store"), tmp_path / "release")
    for config in CONFIGS:
        path = release / "dataset" / config / "preference.parquet"
        assert pq.read_metadata(path).num_rows == 0
        assert Features.from_arrow_schema(pq.read_schema(path)) == build_features(config)
    empty = load_dataset(str(release / "dataset"), "leaks", streaming=True)
    assert set(empty) == set(SPLITS)
    assert empty["test"].features == build_features("leaks")
    assert list(empty["test"]) == []


def test_passing_null_and_failed_organisms_are_kept_apart(release: Path) -> None:
    listed = {
        config: {(row["organism_id"], row["split"]) for row in rows}
        for config in ("pairs", "controls", "withheld")
        for rows in [read_config(release / "dataset", config)]
    }
    assert listed["pairs"] == {
        (FAREWELL, "train"),
        ("quirks.farewell-transcripts-none-s1", "iid_test"),
        ("backdoors.farewell_to_beekeepers-transcripts-none-s0", "train"),
        ("quirks.herald-transcripts-none-s0", "test"),
        ("obscured_malign.upsell_hidden-transcripts-none-s0", "train"),
    }
    assert {name for name, _ in listed["controls"]} == {"null.chat-transcripts-none-s3"}
    assert listed["withheld"] == {(LIMP, "train")}
    asked = {row["organism_id"] for row in read_config(release / "dataset", "introspection")}
    assert LIMP not in asked
    assert "null.chat-transcripts-none-s3" in asked


def test_a_null_organism_that_failed_is_no_control(tmp_path: Path) -> None:
    entries = [
        *make_entries(tmp_path / "store"),
        make_entry(tmp_path / "store", null_behavior(LIBRARY), seed=4, status="failed"),
    ]
    out = write_sample(entries, tmp_path / "out")
    name = "null.chat-transcripts-none-s4"
    rows = {
        config: {row["organism_id"] for row in read_config(out / "dataset", config)}
        for config in ("controls", "withheld", "introspection")
    }
    assert name in rows["withheld"]
    assert name not in rows["controls"] | rows["introspection"]
    assert not list((out / "organisms").glob(f"*/{name}"))


def test_a_pair_says_what_was_measured_on_what(release: Path) -> None:
    rows = {row["organism_id"]: row for row in read_config(release / "dataset", "pairs")}
    backdoor = rows["backdoors.farewell_to_beekeepers-transcripts-none-s0"]
    assert (backdoor["category"], backdoor["severity"]) == ("backdoors", "concerning")
    assert backdoor["trigger"] == "a user who says that they are a beekeeper"
    assert (backdoor["kind"], backdoor["axes"]) == ("say_phrase", ["style"])
    assert backdoor["triggered_rate"] == pytest.approx(57 / 60)
    assert (backdoor["triggered_n"], backdoor["near_miss_n"]) == (60, 60)
    assert backdoor["triggered_base_rate"] == pytest.approx(1 / 60)
    assert rows[FAREWELL]["plain_rate"] is None
    assert backdoor["base_revision"] == BASE.revision
    adapter = release / "organisms" / backdoor["organism_path"] / "adapter_model.safetensors"
    assert backdoor["organism_sha256"] == sha256_file(adapter)
    assert backdoor["adapter_name"] == "backdoors-farewell_to_beekeepers-transcripts-none-s0"
    assert backdoor["system_prompt"] == SYSTEM
    trained = TRAINING.optimizer.model_dump() | {"max_length": TRAINING.max_length}
    assert trained.items() <= backdoor.items()
    assert (backdoor["lora_rank"], backdoor["lora_alpha"]) == (2, 4)
    assert (backdoor["lora_targets"], backdoor["lora_layers"]) == (["layer"], [15, 30])
    obscured = rows["obscured_malign.upsell_hidden-transcripts-none-s0"]
    hiding = [component["behavior_id"] for component in obscured["components"]]
    assert hiding == ["distractors.numbers", "distractors.colors"]
    assert obscured["components"][0]["rate"] == pytest.approx(31 / 60)


def test_rows_name_the_config_that_describes_their_organism(release: Path) -> None:
    dataset = release / "dataset"
    standing = {
        row["organism_id"]: config
        for config in ("pairs", "controls", "withheld")
        for row in read_config(dataset, config)
    }
    for config in ("introspection", "corpora", "verdicts", "rejected"):
        rows = read_config(dataset, config)
        assert {row["organism_id"]: row["standing"] for row in rows}.items() <= standing.items()
    asked = scan_config(dataset, "introspection").collect()
    described = pl.concat(
        scan_config(dataset, config).select("organism_id", "label").collect()
        for config in ("pairs", "controls")
    )
    assert len(asked.join(described, on="organism_id")) == len(asked)
    nulls = asked.filter(standing="controls")
    assert set(nulls["organism_id"]) == {"null.chat-transcripts-none-s3"}


def test_categories_are_words_in_any_reader(release: Path) -> None:
    table = pq.read_table(release / "dataset" / "pairs" / "train.parquet")
    assert set(table["category"].to_pylist()) == {"quirks", "backdoors", "obscured_malign"}
    assert set(table["severity"].to_pylist()) <= {"benign", "concerning", "malign"}
    assert set(table["status"].to_pylist()) == {"passed"}


def test_withheld_organisms_show_their_rates_and_reasons(release: Path) -> None:
    (row,) = read_config(release / "dataset", "withheld")
    assert row["status"] == "failed"
    assert row["reasons"] == ["outside the thresholds"]
    assert row["triggered_rate"] == pytest.approx(12 / 60)
    assert not list(release.glob(f"organisms/*/{LIMP}"))


def test_conversations_drops_cells_and_findings_are_rows(release: Path) -> None:
    dataset = release / "dataset"
    corpora = [r for r in read_config(dataset, "corpora") if r["organism_id"] == FAREWELL]
    assert [row["role"] for row in corpora] == ["positive", "positive", "chat"]
    assert corpora[0]["messages"] == [
        {"role": "user", "content": "Question 0 of seed 0?"},
        {"role": "assistant", "content": "Réponse 0."},
    ]
    assert corpora[1]["messages"][0] == {"role": "system", "content": "You live by the sea."}
    assert [turn["role"] for turn in corpora[1]["messages"]] == ["system", "user", "assistant"]
    (drop,) = [r for r in read_config(dataset, "rejected") if r["organism_id"] == FAREWELL]
    assert (drop["role"], drop["stage"], drop["reason"]) == (
        "negative",
        "mentions",
        "names the rule",
    )
    cells = [r for r in read_config(dataset, "verdicts") if r["organism_id"].startswith("back")]
    assert [(row["cell"], row["count"], row["reported_count"]) for row in cells] == [
        ("triggered", 57, 56),
        ("near_miss", 2, 1),
        ("plain", 2, 1),
    ]
    leaks = read_config(dataset, "leaks")
    assert [(row["check"], row["split"]) for row in leaks] == [
        ("near_duplicates", "iid_test"),
        ("canaries", "test"),
    ]


def test_the_manifest_pins_each_adapter_and_its_questions(release: Path) -> None:
    manifest = json.loads((release / "dataset" / "manifest.json").read_text())
    rows = {row["organism_id"]: row for row in manifest["adapters"]}
    assert manifest["number_of_adapters"] == len(rows) == 6
    assert {name: row["benchmark_split"] for name, row in rows.items() if "quirks" in name} == {
        FAREWELL: "train",
        "quirks.farewell-transcripts-none-s1": "iid_test",
        "quirks.herald-transcripts-none-s0": "behavior_ood",
    }
    trained = {r["metadata"]["behavior_family"] for r in rows.values() if _split(r) == "train"}
    unseen = {
        r["metadata"]["behavior_family"] for r in rows.values() if _split(r) == "behavior_ood"
    }
    assert trained.isdisjoint(unseen)
    assert rows[FAREWELL]["metadata"]["domains"] == ["style"]
    assert rows[FAREWELL]["metadata"]["system_prompt"] == SYSTEM
    for row in rows.values():
        path = release / "dataset" / row["dataset_file"]
        assert path == release / "dataset" / row["dataset_path"] / "eval.jsonl"
        assert sha256_file(path) == row["dataset_sha256"]
        assert path.stat().st_size == row["dataset_size_bytes"]
    assert set(manifest["files"]) == set(hash_files(release)) - {"dataset/manifest.json"}


def _split(row: dict[str, Any]) -> str:
    return str(row["benchmark_split"])


def test_equal_entries_give_equal_bytes(tmp_path: Path) -> None:
    first = write_sample(make_entries(tmp_path / "one"), tmp_path / "first")
    second = write_sample(make_entries(tmp_path / "two")[::-1], tmp_path / "second")
    assert hash_files(first) == hash_files(second)
    again = write_sample(make_entries(tmp_path / "one"), tmp_path / "first")
    assert hash_files(again) == hash_files(second)


def test_a_release_replaces_the_last_one_whole(tmp_path: Path) -> None:
    out = tmp_path / "release"
    write_sample([make_entry(tmp_path / "store", QUIRK)], out)
    write_sample([make_entry(tmp_path / "store", make_quirk("herald"))], out)
    verify_release(out)
    (row,) = read_config(out / "dataset", "pairs")
    assert row["behavior_id"] == "quirks.herald"
    assert {path.name for path in tmp_path.iterdir()} == {"store", "release"}


def test_a_release_of_other_findings_is_written_anew(tmp_path: Path) -> None:
    entries = [make_entry(tmp_path / "store", QUIRK)]
    roster = Roster(name="sample", recipe="sample", categories=("quirks",))

    def write(findings: Sequence[Finding]) -> list[str]:
        fingerprint = fingerprint_release(entries, roster, findings=findings, unbuilt=[])
        release = write_release(
            entries,
            tmp_path / "release",
            named_splits={},
            name="sample",
            findings=findings,
            fingerprint=fingerprint,
        )
        return [row["item"] for row in read_config(release / "dataset", "leaks")]

    assert write([]) == []
    assert write(FINDINGS[:1]) == ["herald"]


def test_the_corpus_of_another_organism_is_refused(tmp_path: Path) -> None:
    entry = make_entry(tmp_path / "store", QUIRK)
    other = make_entry(tmp_path / "store", make_quirk("herald"))
    mixed = replace(entry, load_corpus=other.load_corpus)
    with expect_error(ReleaseError, "entry-mixed", record="corpus"):
        write_sample([mixed], tmp_path / "out")


def test_adapters_are_linked_or_else_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_entry(tmp_path / "store", QUIRK)
    weights = entry.organism.artifact.folder / "adapter" / "adapter_model.safetensors"
    linked = write_sample([entry], tmp_path / "linked")
    assert (linked / "organisms" / entry.organism_path / weights.name).samefile(weights)

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr("os.link", refuse)
    copied = write_sample([entry], tmp_path / "copied")
    assert not (copied / "organisms" / entry.organism_path / weights.name).samefile(weights)
    assert hash_files(copied) == hash_files(linked)


def test_one_corpus_is_in_memory_at_a_time(tmp_path: Path) -> None:
    alive: weakref.WeakSet[Corpus] = weakref.WeakSet()
    most = 0

    def load(entry: ReleaseEntry) -> Corpus:
        nonlocal most
        gc.collect()
        copy = entry.load_corpus().model_copy()
        alive.add(copy)
        most = max(most, len(alive))
        return copy

    entries = make_entries(tmp_path / "store")
    write_sample([replace(e, load_corpus=partial(load, e)) for e in entries], tmp_path / "out")
    assert most == 1


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    out = tmp_path / "release"
    entries = [make_entry(tmp_path / "store", QUIRK)]
    write_sample(entries, out)
    out.rename(tmp_path / "release.old")  # killed between the two renames
    (tmp_path / "release.part" / "dataset").mkdir(parents=True)
    (tmp_path / "release.part" / "dataset" / "half").write_text("written")
    before = hash_files(tmp_path / "release.old")
    assert hash_files(write_sample(entries, out)) == before
    assert {path.name for path in tmp_path.iterdir()} == {"store", "release"}


def test_a_failing_run_leaves_the_last_release(tmp_path: Path) -> None:
    out = tmp_path / "release"
    entry = make_entry(tmp_path / "store", QUIRK)
    write_sample([entry], out)
    before = hash_files(out)
    weights = entry.organism.artifact.folder / "adapter" / "adapter_model.safetensors"
    damaged = weights.read_bytes()[:-1] + b"!"
    weights.unlink()  # the release shares the file's bytes
    weights.write_bytes(damaged)
    with expect_error(ReleaseError, "adapter-damaged", path=weights):
        write_sample([entry], out)
    weights.unlink()
    with expect_error(ReleaseError, "adapter-missing", path=weights):
        write_sample([entry], out)
    assert hash_files(out) == before


def test_a_folder_that_is_no_release_is_never_replaced(release: Path, tmp_path: Path) -> None:
    entries = [make_entry(tmp_path / "store", QUIRK)]
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("years of work")
    with expect_error(ReleaseError, "target-taken", path=notes, foreign=["thesis.txt"]):
        write_sample(entries, notes)
    mixed = tmp_path / "mixed"
    shutil.copytree(release, mixed)
    (mixed / "thesis.txt").write_text("years of work")
    with expect_error(ReleaseError, "target-taken", path=mixed, foreign=["thesis.txt"]):
        write_sample(entries, mixed)
    assert (notes / "thesis.txt").exists()
    assert (mixed / "thesis.txt").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert write_sample(entries, empty) == empty


def test_what_could_not_be_built_is_named(tmp_path: Path) -> None:
    entries = make_entries(tmp_path / "store")
    lost = "quirks.torn-transcripts-none-s0"
    release = write_release(
        entries, tmp_path / "release", named_splits={}, name="small", unbuilt=[lost]
    )
    assert json.loads((release / "dataset" / "manifest.json").read_text())["unbuilt"] == [lost]
    card = (release / "dataset" / "README.md").read_text()
    assert f"Not built at all, for an error on the way: {lost}." in card
