"""`bestiary merge`: an organism as the base of others."""

from __future__ import annotations

import os
from pathlib import Path

from bestiary.cli.built import load_built
from bestiary.errors import ModelError
from bestiary.model.adapter import save_merged
from bestiary.store import disk_errors, remove_tree, sync_file


def merge_organism(organism: str, target: Path, *, out: Path) -> None:
    """Write an organism's base with its adapter merged into `target`, all at once.

    Raises ModelError when the organism is unknown, when it stands on other weights than its base
    has, or when `target` exists.
    """
    if target.exists():
        raise ModelError(
            f"{target} exists",
            "name a new folder, or delete this one",
            code="target-exists",
            path=target,
        )
    built = load_built(organism, out)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    with disk_errors(target, elsewhere="name another folder"):
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_merged(built.base, built.adapter, part)
            for path in part.iterdir():
                sync_file(path)
            part.rename(target)
        finally:
            remove_tree(part)
