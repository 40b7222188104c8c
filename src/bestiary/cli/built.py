"""Organisms that were built, by name, with the base that each stands on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bestiary.errors import ModelError
from bestiary.model.adapter import ADAPTER
from bestiary.model.base import Base, load_base
from bestiary.records import BaseIdentity, shorten_id
from bestiary.store import MANIFEST, read_artifact
from bestiary.text import nearest

NAMES = ("organism_id", "adapter_id")
"""The names of an organism in a build's summary: its own, and that of a mixture."""


@dataclass(frozen=True)
class Built:
    """An organism that was built."""

    base: Base
    adapter: Path
    """A peft directory."""
    system_prompt: str
    """What it was trained under."""


def load_built(organism: str, out: Path) -> Built:
    """Load an organism's base, and find its adapter.

    Raises ModelError when the organism is unknown, or stands on other weights than its base has.
    """
    folder = _find_organism(organism, out)
    about = json.loads((folder / "organism.json").read_text(encoding="utf8"))
    expected = BaseIdentity.model_validate(about["base"])
    base = load_base(about["load_base"], revision=expected.revision, expect=expected)
    return Built(base, folder / ADAPTER, about["system_prompt"])


def _find_organism(organism: str, out: Path) -> Path:
    """The artifact of an organism that was built, checked against its manifest.

    The last build's where it has one, else the newest in the store: a build that stopped early,
    or was of another roster, hides nothing.
    """
    folders = _list_organisms(out)
    if not folders:
        raise ModelError(
            f"{out} holds no organism",
            "build a roster first: bestiary build starter",
            code="build-missing",
            path=out,
        )
    short = {shorten_id(name): folder for name, folder in folders.items()}
    folder = folders.get(organism) or short.get(organism)
    if folder is None:
        raise ModelError(
            f"unknown organism {organism!r}",
            nearest(organism, short),
            code="organism-unknown",
            name=organism,
        )
    return read_artifact(folder).folder


def _list_organisms(out: Path) -> dict[str, Path]:
    manifests = out.glob(f"store/organism/*/{MANIFEST}")
    folders: dict[str, Path] = {}
    for folder in sorted(
        (path.parent for path in manifests), key=lambda path: path.stat().st_mtime
    ):
        about = json.loads((folder / "organism.json").read_text(encoding="utf8"))
        folders[about["organism_id"]] = folder
    summary = out / "summary.json"
    if summary.is_file():
        rows = json.loads(summary.read_text(encoding="utf8"))
        built = [row for row in rows if row["folder"]]
        folders |= {row[n]: out / row["folder"] for row in built for n in NAMES if n in row}
    return folders
