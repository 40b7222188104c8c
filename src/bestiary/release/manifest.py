"""The pinned manifest of a release: its adapters, and the sha256 of every file of both folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bestiary.errors import ReleaseError
from bestiary.records import Split, canonical_json, sha256_bytes, sha256_file
from bestiary.release.cards import PLACES
from bestiary.release.entry import ReleaseEntry
from bestiary.release.introspection_rows import render_eval
from bestiary.release.rows import Tables
from bestiary.store import write_bytes

SCHEMA_VERSION = 1
MANIFEST = "dataset/manifest.json"
PARTS = ("dataset", "organisms")
"""The two folders of a release, one a repository."""

_BENCHMARK_SPLITS = {
    "train": "train",
    "preference": "train",  # its organisms are trained on too, by preference
    "iid_test": "iid_test",
    "test": "behavior_ood",
}


def build_manifest(
    entries: Sequence[ReleaseEntry], splits: Mapping[str, Split], tables: Tables, *, name: str
) -> dict[str, Any]:
    """The manifest without its `files`; `repo_id` and `revision` are set by publishing."""
    asked: dict[str, list[Mapping[str, Any]]] = {}
    for rows in tables["introspection"].values():
        for row in rows:
            asked.setdefault(row["organism_id"], []).append(row)
    adapters = [
        _describe_adapter(entry, splits[entry.organism_id], render_eval(asked[entry.organism_id]))
        for entry in entries
        if entry.published
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "benchmark_split": "all",
        "number_of_adapters": len(adapters),
        "adapters": adapters,
        "places": PLACES,
    }


def list_files(release: Path) -> dict[str, Path]:
    """Every file of both folders but the manifest itself, by its name in the release."""
    return {
        name: path
        for part in PARTS
        for name, path in list_part(release / part, part)
        if name != MANIFEST
    }


def list_part(folder: Path, part: str) -> Iterable[tuple[str, Path]]:
    """The files of one folder, as the release names them; the Hub client's own are left out."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        foreign = inside.parts[0] == ".cache" or inside.as_posix() == ".gitattributes"
        if not foreign and (path.is_symlink() or not path.is_dir()):
            yield f"{part}/{inside.as_posix()}", path


def write_manifest(release: Path, manifest: Mapping[str, Any]) -> None:
    """Hash every file, then write the manifest, last."""
    files = {name: sha256_file(path) for name, path in list_files(release).items()}
    write_bytes(release / MANIFEST, canonical_json({**manifest, "files": files}))


def read_manifest(dataset: Path) -> dict[str, Any]:
    """The manifest of a dataset folder; raises ReleaseError when it is missing or broken."""
    path = dataset / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf8"))
        if not all(isinstance(sha, str) for sha in manifest["files"].values()):
            raise ValueError("`files` maps names to sha256")
        if not all(isinstance(row, dict) for row in manifest["adapters"]):
            raise ValueError("`adapters` is a list of mappings")
    except FileNotFoundError as cause:
        raise ReleaseError(
            f"{path} is missing, and without it {dataset} is no release; assemble one with "
            "`bestiary build ROSTER`, or name the folder that holds dataset/ and organisms/"
        ) from cause
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise ReleaseError(
            f"{path} cannot be read ({type(cause).__name__}: {cause}); assemble the release again"
        ) from cause
    return dict(manifest)


def name_repositories(release: Path, places: Mapping[str, str]) -> None:
    """Let every card of a whole release say where its parts are published: loading is copied."""
    manifest = read_manifest(release / "dataset")
    named: dict[str, str] = manifest["places"]
    # In one pass: a name that is put in must not be taken for one that is still to go.
    new = {f'"{named[part]}"': f'"{places[part]}"' for part in PARTS}
    said = re.compile("|".join(map(re.escape, new)))
    for name, path in list_files(release).items():
        if path.name == "README.md":
            text = path.read_text(encoding="utf8")
            write_bytes(release / name, said.sub(lambda old: new[old.group()], text).encode())
    write_manifest(release, {**manifest, "places": dict(places)})


def pin_manifest(release: Path, *, model_repo: str, revision: str) -> None:
    """Write into the manifest at which commit of which repository its adapters lie."""
    manifest = read_manifest(release / "dataset")
    pinned = [{**row, "repo_id": model_repo, "revision": revision} for row in manifest["adapters"]]
    write_bytes(release / MANIFEST, canonical_json({**manifest, "adapters": pinned}))


def _describe_adapter(entry: ReleaseEntry, split: Split, data: bytes) -> dict[str, Any]:
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
            "domains": list(entry.behavior.spec.domains),
        },
    }
