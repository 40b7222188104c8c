"""Folders that a release or an export may be written to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from bestiary.errors import ReleaseError
from bestiary.files import list_paths


def check_replaceable(out: Path, kind: str, *, parts: Collection[str], marker: str) -> None:
    """Raise ReleaseError if `out` holds anything but an earlier release or export.

    `kind` is what it is to become, `parts` are the names that such a folder may hold, and `marker`
    is a file that each has.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ReleaseError(
            f"{out} is a file, and the {kind} is to be a folder",
            "choose another name",
            code="target-is-file",
            path=out,
        )
    found = {path.name for path in list_paths(out, "*")}
    foreign = sorted(found - set(parts))
    if foreign or (found and not (out / marker).is_file()):
        raise ReleaseError(
            f"{out} holds {foreign[0] if foreign else 'no ' + marker}, so it is no earlier {kind}, "
            "and only that is replaced",
            "choose an empty folder or move its files away",
            code="target-taken",
            path=out,
            foreign=foreign,
        )
