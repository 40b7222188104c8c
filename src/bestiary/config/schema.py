"""JSON Schemas of the files that people edit, for their editors; generated, never edited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bestiary.config.behavior import FROM_PATH, Spec
from bestiary.config.categories import load_categories
from bestiary.config.elicitation import Elicitation
from bestiary.config.generator import Generator
from bestiary.config.gpus import GpuFile
from bestiary.config.grid import Grid
from bestiary.config.introspection import IntrospectionRecipe, Sweep
from bestiary.config.lexicon import Lexicon
from bestiary.config.messages import MessageFile
from bestiary.config.phrasings import Phrasings
from bestiary.config.recipe import Recipe
from bestiary.config.roster import Roster
from bestiary.config.tables import ItemTable, OptionTable
from bestiary.config.thresholds import Thresholds
from bestiary.config.triggers import Wordings
from bestiary.config.vague_reports import VagueReports
from bestiary.llm.models import ModelFile
from bestiary.records import canonical_json
from bestiary.store import write_bytes

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FILES: dict[str, tuple[str, TypeAdapter[Any]]] = {
    "elicitation": ("Questions to organisms about themselves", TypeAdapter(Elicitation)),
    "generator": ("Generator", TypeAdapter(Generator)),
    "gpus": ("GPUs", TypeAdapter(GpuFile)),
    "grid": ("Grid of user messages", TypeAdapter(Grid)),
    "introspection": ("Introspection recipe", TypeAdapter(IntrospectionRecipe)),
    "items": ("Item table", TypeAdapter(ItemTable)),
    "lexicon": ("Lexicon", TypeAdapter(Lexicon)),
    "messages": ("Messages", TypeAdapter(MessageFile)),
    "models": ("Language models", TypeAdapter(ModelFile)),
    "options": ("Option table", TypeAdapter(OptionTable)),
    "phrasings": ("Phrasings", TypeAdapter(Phrasings)),
    "recipe": ("Recipe", TypeAdapter(Recipe)),
    "roster": ("Roster", TypeAdapter(Roster)),
    "sweep": ("Sweep of an introspection recipe", TypeAdapter(Sweep)),
    "thresholds": ("Thresholds", TypeAdapter(Thresholds)),
    "vague_reports": ("Vague reports", TypeAdapter(VagueReports)),
    "triggers": ("Wordings of a trigger", TypeAdapter(Wordings)),
}


def write_schemas(folder: Path) -> list[Path]:
    """Write `<kind>.schema.json` for each kind of file; equal specs give equal bytes.

    Behavior files have one for each category, `behavior.<category>.schema.json`. Raises StoreError
    when the folder cannot be written.
    """
    schemas = {kind: (title, adapter.json_schema()) for kind, (title, adapter) in _FILES.items()}
    schemas |= {
        f"behavior.{category}": (f"Behavior of {category}", _describe_behavior(kind))
        for category, kind in load_categories().items()
    }
    written = []
    for kind, (title, schema) in sorted(schemas.items()):
        path = folder / f"{kind}.schema.json"
        write_bytes(path, canonical_json({**schema, "$schema": DIALECT, "title": title}))
        written.append(path)
    return written


def _describe_behavior(kind: type[Spec]) -> dict[str, Any]:
    """The schema of a category without what the path of a file says."""
    schema = kind.model_json_schema()
    for name in FROM_PATH:
        del schema["properties"][name]
        schema["required"].remove(name)
    return schema
