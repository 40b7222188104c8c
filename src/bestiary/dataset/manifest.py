"""The manifest of a release: which files it lists, and how it is written and read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bestiary.errors import ReleaseError
from bestiary.files import list_paths
from bestiary.records import canonical_json, sha256_file
from bestiary.store import write_bytes

MANIFEST = "dataset/manifest.json"
PARTS = ("dataset", "organisms")
"""The two folders of a release, one per repository."""


def list_files(release: Path) -> dict[str, Path]:
    """Every file of both folders except the manifest itself, by its name in the release."""
    return {
        name: path
        for part in PARTS
        for name, path in list_part(release / part, part)
        if name != MANIFEST
    }


def list_part(folder: Path, part: str) -> Iterator[tuple[str, Path]]:
    """The files of one folder by their names in the release, without the Hub client's own."""
    for path in list_paths(folder):
        if path.is_symlink() or not path.is_dir():
            yield f"{part}/{path.relative_to(folder).as_posix()}", path


def write_manifest(
    release: Path, manifest: Mapping[str, Any], *, known: Mapping[str, str] | None = None
) -> None:
    """Write the manifest with the sha256 of every file, last.

    `known` holds hashes that were just checked, by the file's name in the release; those files are
    not read again.
    """
    known = known or {}
    files = {
        name: known.get(name) or sha256_file(path) for name, path in list_files(release).items()
    }
    write_bytes(release / MANIFEST, canonical_json({**manifest, "files": files}))


def read_manifest(dataset: Path) -> dict[str, Any]:
    """The manifest of a dataset folder; raises ReleaseError if it is missing or broken."""
    path = dataset / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf8"))
        if not all(isinstance(sha, str) for sha in manifest["files"].values()):
            raise ValueError("`files` maps names to sha256")
        if not all(isinstance(row, dict) for row in manifest["adapters"]):
            raise ValueError("`adapters` is a list of mappings")
    except FileNotFoundError as cause:
        raise ReleaseError(
            f"{path} is missing, so {dataset} is not a release",
            "assemble one with `bestiary build ROSTER`, or name the folder that holds dataset/ and "
            "organisms/",
            code="manifest-missing",
            path=path,
        ) from cause
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        reason = f"{type(cause).__name__}: {cause}"
        raise ReleaseError(
            f"{path} cannot be read ({reason})",
            "assemble the release again",
            code="manifest-damaged",
            path=path,
            reason=reason,
        ) from cause
    return dict(manifest)
