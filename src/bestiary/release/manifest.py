"""Builds the manifest that pins a release's adapters, and rewrites it for publishing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bestiary.dataset.manifest import MANIFEST, PARTS, list_files, read_manifest, write_manifest
from bestiary.records import Split, canonical_json, sha256_bytes
from bestiary.release.cards import PLACES
from bestiary.release.entry import ReleaseEntry
from bestiary.store import write_bytes

SCHEMA_VERSION = 1

_BENCHMARK_SPLITS = {
    "train": "train",
    "preference": "train",  # its organisms are trained on too, by preference
    "iid_test": "iid_test",
    "test": "behavior_ood",
}


def build_manifest(adapters: Sequence[Mapping[str, Any]], *, name: str) -> dict[str, Any]:
    """The manifest without its `files`; `repo_id` and `revision` are set by publishing."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "benchmark_split": "all",
        "number_of_adapters": len(adapters),
        "adapters": adapters,
        "places": PLACES,
    }


def describe_adapter(entry: ReleaseEntry, split: Split, data: bytes) -> dict[str, Any]:
    """A published organism's row of the manifest; `data` is its `eval.jsonl`."""
    return {
        "adapter_name": entry.organism_id,
        "repo_id": None,
        "revision": None,
        "subfolder": entry.organism_path,
        "dataset_path": f"introspection/{entry.organism_id}",
        "dataset_revision": None,
        "dataset_file": "eval.jsonl",
        "dataset_sha256": sha256_bytes(data),
        "dataset_size_bytes": len(data),
        "use_hf_dataset": False,
        "enabled": True,
        "benchmark_split": _BENCHMARK_SPLITS[split],
        "metadata": {
            # Consumers refuse an evaluation family seen in training, and null organisms of
            # different splits share nothing but their label.
            "behavior_family": entry.behavior.spec.split_key(
                entry.organism_id, entry.behavior.family
            ),
            "domains": list(entry.behavior.axes),
        },
    }


def name_repositories(release: Path, places: Mapping[str, str]) -> None:
    """Rewrite every card of a release to load its parts from these repositories."""
    manifest = read_manifest(release / "dataset")
    current: dict[str, str] = manifest["places"]
    # One pass, because a repository may take the name that the other one had.
    new = {f'"{current[part]}"': f'"{places[part]}"' for part in PARTS}
    names = re.compile("|".join(map(re.escape, new)))
    known: dict[str, str] = dict(manifest["files"])
    for name, path in list_files(release).items():
        if path.name == "README.md":
            text = path.read_text(encoding="utf8")
            card = names.sub(lambda found: new[found.group()], text).encode()
            write_bytes(path, card)
            known[name] = sha256_bytes(card)
    write_manifest(release, {**manifest, "places": dict(places)}, known=known)


def pin_manifest(release: Path, *, model_repo: str, revision: str) -> None:
    """Record in the manifest which commit of which repository holds the adapters."""
    manifest = read_manifest(release / "dataset")
    pinned = [{**row, "repo_id": model_repo, "revision": revision} for row in manifest["adapters"]]
    write_bytes(release / MANIFEST, canonical_json({**manifest, "adapters": pinned}))
