"""Checks, before a build, that its adapters will fit on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from bestiary.config.recipe import LoraShape
from bestiary.errors import StoreError
from bestiary.model.lazy import LazyBase
from bestiary.organism.stage import OrganismStage
from bestiary.store import Store, existing_parent

MIB = 2**20


def check_space(base: LazyBase, shapes: Sequence[LoraShape], store: Store) -> None:
    """Raise StoreError if the disk has no room for the adapters that are still to be trained.

    `shapes` has one for each organism of the build. Corpora, transcripts, and checkpoints come on
    top, and whatever the store holds already is taken for a part of this build: what is refused
    here could not have ended well, and what is not may still fill the disk.
    """
    sizes = {shape: base.count_adapter_bytes(shape) for shape in dict.fromkeys(shapes)}
    missing = max(0, len(shapes) - len(store.names(OrganismStage.name)))
    needed = sum(sorted(sizes[shape] for shape in shapes)[:missing])
    free = shutil.disk_usage(existing_parent(store.root)).free
    if needed > free:
        raise StoreError(
            f"{store.root}: the adapters of {missing} organisms take {needed / MIB:,.1f} MiB, and "
            f"the disk has {free / MIB:,.1f} MiB free",
            "free some space, or choose another folder with --out",
            code="disk-too-small",
            root=store.root,
            needed_bytes=needed,
            free_bytes=free,
        )
