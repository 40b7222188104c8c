"""`bestiary merge`: an organism as the base of others."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bestiary.cli.chat import find_organism
from bestiary.errors import ModelError
from bestiary.model.adapter import ADAPTER, save_merged
from bestiary.model.base import load_base
from bestiary.records import BaseIdentity
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
    folder = find_organism(organism, out)
    about = json.loads((folder / "organism.json").read_text(encoding="utf8"))
    expected = BaseIdentity.model_validate(about["base"])
    base = load_base(about["load_base"], revision=expected.revision, expect=expected)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    with disk_errors(target, elsewhere="name another folder"):
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_merged(base, folder / ADAPTER, part)
            for path in part.iterdir():
                sync_file(path)
            part.rename(target)
        finally:
            remove_tree(part)
