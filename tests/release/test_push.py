"""Publishing with the real Hub client against a loopback Hub.

Run: python -m pytest tests/release/test_push.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.builders import hash_files
from tests.conftest import reach
from tests.expect import expect_error
from tests.fakes.hub import TOKEN, Hub
from tests.release.samples import make_benign_entries, make_entries, write_sample

from bestiary.dataset.load import load_pairs
from bestiary.dataset.verify import verify_release
from bestiary.errors import ReleaseError
from bestiary.records import sha256_bytes
from bestiary.release.manifest import name_repositories
from bestiary.release.push import publish_release

DATASET, MODELS = "me/bestiary", "me/bestiary-organisms"

PUBLISH = """
import json, sys
from pathlib import Path
from bestiary.errors import ReleaseError
from bestiary.release.push import publish_release
folder, mode, dataset = sys.argv[1:]
try:
    lines = publish_release(Path(folder), dataset_repo=dataset, model_repo="me/bestiary-organisms",
                            private=mode != "public", dry_run=mode.startswith("dry"),
                            separate=mode.endswith("separate"))
    print(json.dumps({"lines": lines}))
except ReleaseError as error:
    print(json.dumps({"error": str(error), "code": error.code}))
"""

PUBLISH_ADAPTER = """
import json, sys
from pathlib import Path
from bestiary.errors import ReleaseError
from bestiary.release.push import publish_adapter
try:
    lines = publish_adapter(Path(sys.argv[1]), sys.argv[2], dry_run=sys.argv[3] == "dry")
    print(json.dumps({"lines": lines}))
except ReleaseError as error:
    print(json.dumps({"error": str(error), "code": error.code}))
"""

READ = """
import json, sys
from datasets import load_dataset
from huggingface_hub import snapshot_download
from bestiary.dataset.load import load_pairs
print(json.dumps({
    "snapshot": snapshot_download("me/bestiary-organisms"),
    "rows": {
        config: {split: len(rows) for split, rows in load_dataset("me/bestiary", config).items()}
        for config in ("pairs", "introspection", "verdicts")
    },
    "pairs": [pair.model_dump(mode="json") for pair in load_pairs("me/bestiary")],
}))
"""


def run_client(
    hub: Hub, cache: Path, script: str, *args: str, token: str = TOKEN
) -> dict[str, Any]:
    """Run a script whose Hub is the loopback one: the client reads that once, when imported."""
    done = subprocess.run(
        [sys.executable, "-c", script, *args],
        env={**os.environ, **reach(hub, cache), "HF_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def publish(
    hub: Hub, folder: Path, mode: str = "private", *, dataset: str = DATASET, token: str = TOKEN
) -> dict[str, Any]:
    """Publish a folder; returns the lines or the error."""
    cache = folder.parent / "cache"
    return run_client(hub, cache, PUBLISH, str(folder), mode, dataset, token=token)


def held(hub: Hub, kind: str, repo: str) -> dict[str, str]:
    """sha256 of each published file."""
    files = hub.repos[kind, repo].files
    return {path: sha256_bytes(data) for path, data in files.items() if path != ".gitattributes"}


def download(hub: Hub, folder: Path) -> Path:
    """Write what both repositories hold as a release folder."""
    for part, kind, repo in (("dataset", "datasets", DATASET), ("organisms", "models", MODELS)):
        for name, data in hub.repos[kind, repo].files.items():
            path = folder / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return folder


def drop_cards(files: dict[str, str]) -> dict[str, str]:
    """The files that publishing copies unchanged."""
    rewritten = ("README.md", "dataset/manifest.json", ".gitattributes")
    return {name: sha256 for name, sha256 in files.items() if not name.endswith(rewritten)}


def test_what_is_published_is_what_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    release = write_sample(make_entries(tmp_path / "store"), tmp_path / "release")
    before = hash_files(release)
    answer = publish(hub, release)
    dataset, models = hub.repos["datasets", DATASET], hub.repos["models", MODELS]
    assert answer == {
        "lines": [
            f"{hub.url}/datasets/{DATASET}/tree/{dataset.head}",
            f"{hub.url}/{MODELS}/tree/{models.head}",
        ]
    }
    published = download(hub, tmp_path / "download")
    verify_release(published)
    assert hash_files(release) == before
    assert drop_cards(hash_files(published)) == drop_cards(before)
    assert (dataset.private, models.private) == (True, True)
    assert (dataset.gated, models.gated) == ("manual", "manual")

    adapters = json.loads(dataset.files["manifest.json"])["adapters"]
    assert {(row["repo_id"], row["revision"]) for row in adapters} == {(MODELS, models.head)}
    assert all(f"{row['subfolder']}/adapter_config.json" in models.files for row in adapters)
    (pinned,) = {row["dataset_revision"] for row in adapters}
    _, then = next(commit for commit in dataset.history if commit[0] == pinned)
    for row in adapters:
        assert sha256_bytes(then[row["dataset_file"]]) == row["dataset_sha256"]
    for part, repo in (("dataset", DATASET), ("organisms", MODELS)):
        cards = [path.read_text(encoding="utf8") for path in (published / part).rglob("README.md")]
        assert cards and all(f'"{repo}"' in card for card in cards)
        assert not any("runs/release" in card for card in cards)

    read = run_client(hub, tmp_path / "reader", READ)
    downloaded = hash_files(Path(read["snapshot"]))
    assert downloaded == hash_files(published / "organisms")
    assert read["rows"]["pairs"] == {"train": 3, "iid_test": 1, "test": 1}
    assert read["rows"]["introspection"]["train"] >= 3 * 100
    here = [p.model_copy(update={"organism": None}) for p in load_pairs(release)]
    assert read["pairs"] == [pair.model_dump(mode="json") for pair in here]

    commits = len(dataset.history), len(models.history)
    assert publish(hub, release) == answer
    assert (len(dataset.history), len(models.history)) == commits


READ_PINNED = """
import json, re, sys
from pathlib import Path
from huggingface_hub import hf_hub_download
from peft import PeftConfig
from bestiary.records import sha256_file

path = hf_hub_download("me/bestiary", "manifest.json", repo_type="dataset")
manifest = json.loads(Path(path).read_text())
seen = {}
for row in manifest["adapters"]:
    assert re.fullmatch("[0-9a-f]{40}", row["revision"]), row
    assert re.fullmatch("[0-9a-f]{40}", row["dataset_revision"]), row
    owner, name, folder = row["dataset_path"].removeprefix("hf://").split("/", 2)
    assert row["dataset_file"] == folder + "/eval.jsonl"
    data = Path(hf_hub_download(f"{owner}/{name}", row["dataset_file"], repo_type="dataset",
                                revision=row["dataset_revision"]))
    assert sha256_file(data) == row["dataset_sha256"]
    assert data.stat().st_size == row["dataset_size_bytes"]
    config = PeftConfig.from_pretrained(row["repo_id"], revision=row["revision"])
    if row["benchmark_split"] != "train":
        assert row["metadata"]["behavior_family"] and row["metadata"]["domains"]
    assert "." not in row["adapter_name"]
    seen[row["adapter_name"]] = [row["repo_id"], config.r]
assert len(seen) == manifest["number_of_adapters"]
print(json.dumps(seen))
"""
"""A reader that knows the manifest from the format's description only."""


def test_a_reader_of_the_pinned_manifest_finds_every_adapter_at_a_root(
    hub: Hub, tmp_path: Path
) -> None:
    release = write_sample(make_entries(tmp_path / "store"), tmp_path / "release")
    answer = publish(hub, release, "separate")
    assert len(answer["lines"]) == 2 + 6
    seen = run_client(hub, tmp_path / "reader", READ_PINNED)
    assert seen == {
        name: [f"{MODELS}-{name}", 2]
        for path in release.glob("organisms/*/*")
        for name in [path.name.replace(".", "-")]
    }
    for (kind, _), repo in hub.repos.items():
        assert (repo.private, repo.gated) == (True, "manual"), (kind, repo.name)
    commits = {key: len(repo.history) for key, repo in hub.repos.items()}
    assert publish(hub, release, "separate") == answer
    assert {key: len(repo.history) for key, repo in hub.repos.items()} == commits


def test_new_questions_are_pinned_anew(hub: Hub, tmp_path: Path) -> None:
    entries = make_benign_entries(tmp_path / "store")
    pinned = []
    for chosen in (entries, entries[1:]):
        publish(hub, write_sample(chosen, tmp_path / "release"))
        dataset = hub.repos["datasets", DATASET]
        rows = json.loads(dataset.files["manifest.json"])["adapters"]
        assert len(rows) == len([e for e in chosen if e.published])
        pinned.append(rows[0]["dataset_revision"])
    assert pinned[0] != pinned[1]
    history = [commit for commit, _ in dataset.history]
    assert history.index(pinned[1]) == len(history) - 2  # the last one adds the manifest


def test_a_repository_with_too_long_a_name_is_refused(tmp_path: Path) -> None:
    release = write_sample(make_benign_entries(tmp_path / "store"), tmp_path / "release")
    models = f"me/{'m' * 60}"
    publish_release(release, dataset_repo=DATASET, model_repo=models, dry_run=True)
    with expect_error(ReleaseError, "repository-name-long"):
        publish_release(
            release, dataset_repo=DATASET, model_repo=models, separate=True, dry_run=True
        )


def test_a_failed_upload_leaves_the_release_unchanged(hub: Hub, tmp_path: Path) -> None:
    release = write_sample(make_benign_entries(tmp_path / "store"), tmp_path / "release")
    before = hash_files(release)
    hub.unwritable = DATASET  # the models are uploaded first
    assert publish(hub, release)["code"] == "hub-refused"
    assert hub.repos["models", MODELS].files
    assert hash_files(release) == before
    assert not list(tmp_path.glob("release.publish-*"))

    hub.unwritable = ""
    assert "lines" in publish(hub, release)
    assert hash_files(release) == before


def test_an_organism_that_left_the_release_leaves_the_hub(hub: Hub, tmp_path: Path) -> None:
    entries = make_benign_entries(tmp_path / "store")
    for chosen in (entries, entries[1:]):
        release = write_sample(chosen, tmp_path / "release")
        assert "lines" in publish(hub, release, "public")
        hub.repos["models", MODELS].files["NOTES.md"] = b"written on the Hub"
    published = held(hub, "models", MODELS)
    assert published.pop("NOTES.md") == sha256_bytes(b"written on the Hub")
    assert set(published) == set(hash_files(release / "organisms"))
    repo = hub.repos["models", MODELS]
    assert (repo.private, repo.gated) == (False, False)


def test_repositories_that_are_no_longer_published_are_named(hub: Hub, tmp_path: Path) -> None:
    entries = [one for one in make_benign_entries(tmp_path / "store") if one.published][:2]
    publish(hub, write_sample(entries, tmp_path / "release"), "separate")
    lines = publish(hub, write_sample(entries[1:], tmp_path / "release"), "separate")["lines"]
    left, kept = (f"{hub.url}/{MODELS}-{entry.adapter_name}" for entry in entries)
    assert lines[-1].endswith(f" {left}")
    assert [line.split("/tree/")[0] for line in lines[1:-1]] == [f"{hub.url}/{MODELS}", kept]


def test_malign_organisms_become_public_only_behind_a_gate(hub: Hub, tmp_path: Path) -> None:
    release = write_sample(make_entries(tmp_path / "store"), tmp_path / "release")
    hub.ignore_gating = True
    refused = publish(hub, release, "public")
    assert refused["code"] == "repository-not-gated"
    assert all(repo.private for repo in hub.repos.values())

    hub.ignore_gating = False
    assert "lines" in publish(hub, release, "public")
    assert [(repo.private, repo.gated) for repo in hub.repos.values()] == [(False, "manual")] * 2


@pytest.mark.parametrize("file", ["weights/model.bin", "model.safetensors"])
def test_a_repository_of_somebody_else_is_left_alone(hub: Hub, tmp_path: Path, file: str) -> None:
    """An upload changes who may see a repository, and deletes what lies in its folders."""
    release = write_sample(make_benign_entries(tmp_path / "store"), tmp_path / "release")
    assert "error" not in publish(hub, release)
    repo = hub.repos["models", MODELS]
    theirs = {"README.md": b"---\ntags: [chess]\n---\n# Chess", file: b"w"}
    repo.commit(theirs)
    assert publish(hub, release, "public")["code"] == "repository-of-another"
    assert repo.files == theirs and repo.private
    repo.commit({"README.md": theirs["README.md"]})
    assert "error" not in publish(hub, release)


def test_an_introspection_adapter_does_not_replace_a_release(hub: Hub, tmp_path: Path) -> None:
    release = write_sample(make_benign_entries(tmp_path / "store"), tmp_path / "release")
    assert "error" not in publish(hub, release)
    before = dict(hub.repos["models", MODELS].files)
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in (
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "introspection.json",
    ):
        (folder / name).write_bytes(b"{}")
    answer = run_client(hub, tmp_path / "cache", PUBLISH_ADAPTER, str(folder), MODELS, "push")
    assert answer["code"] == "repository-of-another"
    assert hub.repos["models", MODELS].files == before


def test_refusals_of_the_hub_say_what_to_do(hub: Hub, tmp_path: Path) -> None:
    release = write_sample(make_benign_entries(tmp_path / "store"), tmp_path / "release")
    wrong = publish(hub, release, token="hf_wrong")
    assert wrong["code"] == "hub-refused"
    assert "401" in wrong["error"]
    assert "hf_wrong" not in wrong["error"]
    denied = publish(hub, release, dataset="somebody-else/bestiary")
    assert denied["code"] == "hub-refused"
    assert "403" in denied["error"]
    assert publish(hub, release, dataset="no name")["code"] == "repository-name"
    assert hub.repos == {}


def test_a_dry_run_lists_both_trees_and_sends_nothing(hub: Hub, tmp_path: Path) -> None:
    release = write_sample(make_entries(tmp_path / "store"), tmp_path / "release")
    lines = publish(hub, release, "dry")["lines"]
    assert hub.requests == []
    assert f"dataset/ -> {DATASET} (dataset repository, private, gated)" in lines
    assert f"organisms/ -> {MODELS} (model repository, private, gated)" in lines
    size = (release / "dataset" / "pairs" / "train.parquet").stat().st_size
    assert f"  pairs/train.parquet  {size:,} bytes" in lines
    assert len(lines) == 2 + len(hash_files(release))


def test_a_damaged_release_is_not_published(tmp_path: Path) -> None:
    release = write_sample(make_benign_entries(tmp_path / "store"), tmp_path / "release")
    (release / "dataset" / "README.md").write_text("# better\n")
    with expect_error(ReleaseError, "file-damaged"):
        publish_release(release, dataset_repo=DATASET, model_repo=MODELS, dry_run=True)


def test_cards_follow_when_a_repository_takes_the_others_name(tmp_path: Path) -> None:
    release = write_sample(make_benign_entries(tmp_path / "store"), tmp_path / "release")
    for dataset, models in (("u/x", "u/y"), ("u/y", "u/x"), ("u/z", "u/x")):
        name_repositories(release, {"dataset": dataset, "organisms": models})
        card = (release / "dataset" / "README.md").read_text()
        assert f'load_dataset("{dataset}", "pairs")' in card
        assert f'base.model,\n    "{models}",' in card
    verify_release(release)


def test_one_name_for_both_repositories_is_refused(tmp_path: Path) -> None:
    release = write_sample(make_benign_entries(tmp_path / "store"), tmp_path / "release")
    with expect_error(ReleaseError, "repository-shared", repo=DATASET):
        publish_release(release, dataset_repo=DATASET, model_repo=DATASET, dry_run=True)


def test_an_introspection_adapter_has_a_private_repository_of_its_own(
    hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    written = {
        "README.md": b"---\nlicense: apache-2.0\n---\n# A",
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": b"w",
        "introspection.json": b"{}",
    }
    for name, data in written.items():
        (folder / name).write_bytes(data)
    script = (hub, tmp_path / "cache", PUBLISH_ADAPTER, str(folder))
    dry = run_client(*script, "me/reporter", "dry")["lines"]
    assert dry[0] == "adapter/ -> me/reporter (model repository, private)"
    assert ("models", "me/reporter") not in hub.repos
    answer = run_client(*script, "me/reporter", "push")
    repo = hub.repos["models", "me/reporter"]
    assert answer == {"lines": [f"{hub.url}/me/reporter/tree/{repo.head}"]}
    assert (repo.private, repo.gated) == (True, False)
    assert {name: repo.files[name] for name in written} == written
    refused = run_client(*script, "no-owner/../x", "push")
    assert refused["code"] == "repository-name"
    (folder / "README.md").unlink()
    assert run_client(*script, "me/reporter", "push")["code"] == "not-an-adapter"
