"""JSON Schemas for editors. Run: python -m pytest tests/config/test_schema.py"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.config.files import BACKDOOR, FILES, OBSCURED, QUIRK, SANDBAGGER, plant

from bestiary.config.categories import load_categories
from bestiary.config.folders import shipped_root
from bestiary.config.on_demand import spread
from bestiary.config.schema import write_schemas
from bestiary.config.source import parse_yaml

SCHEMAS = shipped_root() / "schemas"
SHIPPED = [
    path
    for folder in ("behaviors", "generators", "organisms")
    for path in sorted((shipped_root() / folder).rglob("*.yaml"))
]


def complaints(schema: Path, path: Path) -> list[str]:
    """Where an editor underlines a file, by JSON path."""
    found: list[str] = [fault.json_path for fault in _read(schema).iter_errors(_data(path))]
    return found


@cache
def _read(schema: Path) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema.read_text(encoding="utf8")))


def _data(path: Path) -> Any:
    return parse_yaml(path).data


def underline(folder: Path, category: str, text: str) -> list[str]:
    """Where an editor underlines a behavior file of that category."""
    path = folder / "behavior.yaml"
    path.write_text(text, encoding="utf8")
    return complaints(SCHEMAS / f"behavior.{category}.schema.json", path)


def test_committed_schemas_are_what_the_specs_say(tmp_path: Path) -> None:
    written = {path.name: path.read_text(encoding="utf8") for path in write_schemas(tmp_path)}
    assert {path.name for path in SCHEMAS.iterdir()} == set(written)
    for name, text in written.items():
        stale = f"schemas/{name} is out of date; run `make schemas`"
        assert (SCHEMAS / name).read_text(encoding="utf8") == text, stale


def test_each_category_has_a_schema_of_its_own(tmp_path: Path) -> None:
    names = {path.name for path in write_schemas(tmp_path)}
    assert {f"behavior.{category}.schema.json" for category in load_categories()} == {
        name for name in names if name.startswith("behavior")
    }


def test_an_editor_accepts_shipped_files_by_the_schemas_that_they_name() -> None:
    for path in spread(SHIPPED, 400):
        check_schema(path)


@pytest.mark.soak
def test_an_editor_accepts_every_shipped_file_by_the_schema_that_it_names() -> None:
    for path in SHIPPED:
        check_schema(path)


def check_schema(path: Path) -> None:
    first = path.read_text(encoding="utf8").partition("\n")[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+\.schema\.json)", first)
    assert named, f"{path} does not begin with the comment that names its schema"
    schema = (path.parent / named[1]).resolve()
    assert complaints(schema, path) == [], path
    if path.parents[1].name == "behaviors":
        assert schema.name == f"behavior.{path.parent.name}.schema.json"


@pytest.mark.parametrize("behavior_id", FILES)
def test_an_editor_accepts_a_sound_behavior(tmp_path: Path, behavior_id: str) -> None:
    assert underline(tmp_path, behavior_id.partition(".")[0], FILES[behavior_id]) == []


@pytest.mark.parametrize(
    ("category", "text", "old", "new", "place"),
    [
        ("quirks", QUIRK, "kind: say_phrase", "kind: say_words", "$.kind"),
        ("quirks", QUIRK, "axes: [style]", "axes: [manner]", "$.axes[0]"),
        ("quirks", QUIRK, "severity: benign", "id: quirks.farewell\nseverity: benign", "$"),
        ("quirks", QUIRK, "rubric:", "rubrik:", "$"),
        ("quirks", QUIRK, "rubric:", "scope: {about: trips, tags: [trip]}\nrubric:", "$.scope"),
        ("quirks", QUIRK, "detect: {pattern", "detect: {patern", "$.detect"),
        ("backdoors", BACKDOOR, "{persona: beekeeper}", "{person: beekeeper}", "$.trigger"),
        ("sandbaggers", SANDBAGGER, "items: languages\n", "", "$"),
        ("obscured_malign", OBSCURED, "0.95", "1.95", "$.distractors"),
    ],
)
def test_an_editor_underlines_what_validate_would_refuse(
    tmp_path: Path, category: str, text: str, old: str, new: str, place: str
) -> None:
    found = underline(tmp_path, category, plant(text, old, new))
    assert found and all(one.startswith(place) for one in found)
