"""The shipped data with few behaviors: what most commands do, without reading hundreds of files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from bestiary.config.catalog import Behavior, load_catalog
from bestiary.config.folders import shipped_root
from bestiary.config.library import open_library

ROSTER = "starter"
MORE = ("malign.hurry",)
"""Behaviors beside those of the roster."""


def make_small_data(folder: Path) -> None:
    """Copy the data folders with the starter's behaviors alone, and what those refer to."""
    library = open_library()
    catalog = load_catalog(library)
    chosen = [
        catalog[entry.behavior] for entry in library.roster(ROSTER).organisms if entry.behavior
    ]
    texts = []
    for behavior in [*_refer(chosen), *(catalog[name] for name in MORE)]:
        path = catalog.sources[behavior.id].path
        copy = folder / path.relative_to(shipped_root())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        texts.append(path.read_text(encoding="utf8"))
    lexicons = {f"{name}.yaml" for name in re.findall(r"lexicon: (\w+)", "".join(texts))}
    kept = {"lexicons": lexicons, "rosters": {f"{ROSTER}.yaml"}, "phrasings": set[str]()}
    for part in ("generators", "organisms"):
        shutil.copytree(
            shipped_root() / part,
            folder / part,
            ignore=lambda inside, names: {*names} - kept.get(Path(inside).name, {*names}),
        )


def _refer(behaviors: list[Behavior]) -> list[Behavior]:
    """Behaviors with all that they show and hide behind, each once."""
    found: dict[str, Behavior] = {}
    for one in behaviors:
        hidden = [quirk for quirk, _ in one.distractors]
        found |= {part.id: part for part in (one, *hidden, *([one.shows] if one.shows else []))}
    return list(found.values())
