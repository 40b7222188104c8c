"""Builds the manifest that pins a release's adapters, and rewrites it for publishing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bestiary.dataset.manifest import MANIFEST, PARTS, list_files, read_manifest, write_manifest
from bestiary.records import Split, canonical_json, sha256_bytes
from bestiary.release.cards import PLACES
from bestiary.release.entry import ReleaseEntry
from bestiary.store import write_bytes

SCHEMA_VERSION = 1
"""Of the format, which is not ours: its readers know no other."""
EVAL_FILE = "eval.jsonl"

_BENCHMARK_SPLITS = {
    "train": "train",
    "preference": "train",  # its organisms are trained on too, by preference
    "iid_test": "iid_test",
    "adapter_ood": "adapter_ood",
    "test": "behavior_ood",
    "suite": "behavior_ood",
}


def build_manifest(adapters: Sequence[Mapping[str, Any]], *, name: str) -> dict[str, Any]:
    """The manifest without its `files`; publishing sets what names repositories and commits."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "benchmark_split": "all",
        "number_of_adapters": len(adapters),
        "adapters": adapters,
        "places": PLACES,
    }


def locate_eval(adapter_name: str) -> str:
    """An organism's questions in the dataset's folder, with the answers that are true of it."""
    return f"eval/{adapter_name}/{EVAL_FILE}"


def describe_adapter(entry: ReleaseEntry, split: Split, data: bytes) -> dict[str, Any]:
    """A published organism's row of the manifest; `data` is its `eval.jsonl`."""
    return {
        "adapter_name": entry.adapter_name,
        "organism_id": entry.organism_id,
        "repo_id": None,
        "revision": None,
        "subfolder": entry.organism_path,
        "dataset_path": str(PurePosixPath(locate_eval(entry.adapter_name)).parent),
        "dataset_revision": None,
        "dataset_file": locate_eval(entry.adapter_name),
        "dataset_sha256": sha256_bytes(data),
        "dataset_size_bytes": len(data),
        "use_hf_dataset": False,
        "enabled": True,
        "benchmark_split": _BENCHMARK_SPLITS[split],
        "metadata": {
            # Consumers refuse an evaluation family seen in training, and null organisms of
            # different splits share nothing but their label.
            "behavior_family": entry.split_key,
            "domains": list(entry.behavior.axes),
            "system_prompt": entry.organism.system_prompt,
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


@dataclass(frozen=True)
class Place:
    """Where an adapter is published: a commit of a repository, and the folder in it."""

    repo: str
    revision: str
    subfolder: str | None = None
    """None where the adapter is at the root."""


def pin_manifest(
    release: Path, places: Mapping[str, Place], *, dataset_repo: str, dataset_revision: str
) -> None:
    """Record which commits hold the adapters, by organism id, and the questions to them."""
    manifest = read_manifest(release / "dataset")
    pinned = [
        {
            **row,
            "repo_id": (place := places[row["organism_id"]]).repo,
            "revision": place.revision,
            "subfolder": place.subfolder,
            "dataset_path": f"hf://{dataset_repo}/{PurePosixPath(row['dataset_file']).parent}",
            "dataset_revision": dataset_revision,
        }
        for row in manifest["adapters"]
    ]
    write_bytes(release / MANIFEST, canonical_json({**manifest, "adapters": pinned}))
