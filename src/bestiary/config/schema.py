"""JSON Schemas of the files that people edit, for their editors; generated, never edited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bestiary.config.categories import spec_adapter
from bestiary.config.generator import Generator
from bestiary.config.grid import Grid
from bestiary.config.message_bank import MessageBank
from bestiary.config.messages import MessageFile
from bestiary.config.recipe import Recipe
from bestiary.config.roster import Roster
from bestiary.config.thresholds import Thresholds
from bestiary.llm.models import ModelFile
from bestiary.records import canonical_json
from bestiary.store import write_bytes

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FILES: dict[str, tuple[str, TypeAdapter[Any]]] = {
    "bank": ("Prompt bank", TypeAdapter(MessageBank)),
    "behavior": ("Behavior", spec_adapter()),
    "generator": ("Generator", TypeAdapter(Generator)),
    "grid": ("Grid of user messages", TypeAdapter(Grid)),
    "messages": ("Messages", TypeAdapter(MessageFile)),
    "models": ("Language models", TypeAdapter(ModelFile)),
    "recipe": ("Recipe", TypeAdapter(Recipe)),
    "roster": ("Roster", TypeAdapter(Roster)),
    "thresholds": ("Thresholds", TypeAdapter(Thresholds)),
}


def write_schemas(folder: Path) -> list[Path]:
    """Write `<kind>.schema.json` for each kind of file; equal specs give equal bytes.

    Raises StoreError when the folder cannot be written.
    """
    written = []
    for kind, (title, adapter) in _FILES.items():
        schema = {**adapter.json_schema(), "$schema": DIALECT, "title": title}
        path = folder / f"{kind}.schema.json"
        write_bytes(path, canonical_json(schema))
        written.append(path)
    return written
