"""Checks a release against its manifest: every file of both folders, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bestiary.dataset.manifest import MANIFEST, PARTS, list_part, read_manifest
from bestiary.errors import ReleaseError
from bestiary.records import sha256_file

_REMEDY = "a release is never edited in place: assemble or download it again"


def verify_release(folder: Path) -> None:
    """Check every file of `dataset/` and `organisms/` against `dataset/manifest.json`.

    Raises ReleaseError naming the first file that is missing, differs or is not listed.
    """
    verify_parts({part: folder / part for part in PARTS})


def verify_parts(parts: Mapping[str, Path]) -> None:
    """Check the folders that are present; a dataset may be downloaded without its organisms.

    `parts` maps `dataset`, and `organisms` if it is present, to their folders.
    """
    listed: dict[str, str] = read_manifest(parts["dataset"])["files"]
    found = {name: path for part, folder in parts.items() for name, path in list_part(folder, part)}
    for name, expected in sorted(listed.items()):
        part, _, inside = name.partition("/")
        if part not in PARTS:
            raise ReleaseError(
                f"{MANIFEST} lists {name!r}, outside both folders",
                _REMEDY,
                code="file-outside",
                name=name,
            )
        if part in parts:
            _check_file(found.get(name), parts[part] / inside, expected)
    for name in sorted(set(found) - set(listed) - {MANIFEST}):
        raise ReleaseError(
            f"{found[name]} is not listed in {MANIFEST}",
            "remove it, or assemble the release again",
            code="file-unlisted",
            path=found[name],
        )


def _check_file(found: Path | None, path: Path, expected: str) -> None:
    if found is None or not found.is_file():
        raise ReleaseError(
            f"{path} is missing, but {MANIFEST} lists it", _REMEDY, code="file-missing", path=path
        )
    sha256 = sha256_file(found)
    if sha256 != expected:
        raise ReleaseError(
            f"{path} has sha256 {sha256[:12]}, but {MANIFEST} says {expected[:12]}",
            _REMEDY,
            code="file-damaged",
            path=path,
            sha256=sha256,
            expected=expected,
        )
