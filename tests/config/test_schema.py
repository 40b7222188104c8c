"""JSON Schemas for editors. Run: python -m pytest tests/config/test_schema.py"""

from __future__ import annotations

import json
from pathlib import Path

from bestiary.config.categories import load_categories
from bestiary.config.folders import shipped_root
from bestiary.config.schema import write_schemas


def test_committed_schemas_are_what_the_specs_say(tmp_path: Path) -> None:
    written = {path.name: path.read_text(encoding="utf8") for path in write_schemas(tmp_path)}
    committed = shipped_root() / "schemas"
    assert {path.name for path in committed.iterdir()} == set(written)
    for name, text in written.items():
        stale = f"schemas/{name} is out of date; run `make schemas`"
        assert (committed / name).read_text(encoding="utf8") == text, stale


def test_the_behavior_schema_has_every_category_and_refuses_unknown_keys(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    schema = json.loads((tmp_path / "behavior.schema.json").read_text(encoding="utf8"))
    assert set(schema["discriminator"]["mapping"]) == set(load_categories())
    for reference in schema["discriminator"]["mapping"].values():
        spec = schema["$defs"][reference.rsplit("/", 1)[1]]
        assert spec["additionalProperties"] is False
        assert {"label", "paraphrases", "rubric", "forbidden"} <= set(spec["required"])
