"""New behavior files, empty and filled in.

Run: python -m pytest tests/config/test_scaffold.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.config.files import BY_CATEGORY, EVERY_FILE, find_violations, library_of, write_behavior
from tests.expect import expect_error

from bestiary.config.categories import load_categories
from bestiary.config.library import open_library
from bestiary.config.scaffold import scaffold_behavior
from bestiary.config.source import UNFILLED
from bestiary.errors import SpecError


def fill(node: Any, sound: Any) -> Any:
    """The scaffold's tree with each unfilled value taken from the same place of a sound file."""
    if isinstance(node, dict):
        for key, value in node.items():
            node[key] = fill(value, sound.get(key) if sound else None)
    elif isinstance(node, list) and any(UNFILLED in str(value) for value in node):
        if isinstance(node[0], str):
            return sound  # an author writes as many as there are
        for row, value in enumerate(node):
            node[row] = fill(value, sound[row])
    elif isinstance(node, str) and UNFILLED in node:
        return sound
    return node


def fill_in(path: Path, sound_text: str) -> str:
    """The text of a scaffold once its author has written every value."""
    tree, sound = yaml.safe_load(path.read_text(encoding="utf8")), yaml.safe_load(sound_text)
    tree = fill(tree, sound)
    offline = tree.get("offline")
    if offline is not None:
        offline["openings"], offline["closings"] = (
            sound["offline"].get(key, []) for key in ("openings", "closings")
        )
    return yaml.safe_dump(tree)


@pytest.mark.parametrize("category", load_categories())
def test_a_fresh_scaffold_reports_just_what_is_still_to_be_written(
    tmp_path: Path, category: str
) -> None:
    path = scaffold_behavior(open_library(), category, "new_one", data=tmp_path)
    found = find_violations(library_of(tmp_path / "behaviors"))
    assert path == tmp_path / "behaviors" / category / "new_one.yaml"
    lines = path.read_text(encoding="utf8").splitlines()
    marked = [line for line in lines[2:] for _ in range(line.count(UNFILLED))]
    assert {one.code for one in found} == {"value-unfilled"}
    assert len(found) == len(marked) > 10
    assert all(UNFILLED in lines[one.line - 1] for one in found)
    assert {"behavior", "label", "paraphrases.3", "rubric"} < {one.field for one in found}


@pytest.mark.parametrize("category", load_categories())
def test_a_scaffold_validates_once_it_is_filled_in(tmp_path: Path, category: str) -> None:
    for text in EVERY_FILE:
        if text != BY_CATEGORY[category] or category == "quirks":
            write_behavior(tmp_path / "behaviors", text)
    sound = BY_CATEGORY[category]
    name = next(line for line in sound.splitlines() if line.startswith("id: ")).split(".")[1]
    (tmp_path / "behaviors" / category / f"{name}.yaml").unlink(missing_ok=True)
    path = scaffold_behavior(open_library(), category, name, data=tmp_path)
    path.write_text(fill_in(path, sound), encoding="utf8")
    assert find_violations(library_of(tmp_path / "behaviors")) == []


def test_the_first_line_names_the_schema_for_editors(tmp_path: Path) -> None:
    path = scaffold_behavior(open_library(), "quirks", "new_one", data=tmp_path)
    first = path.read_text(encoding="utf8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).is_file()


def test_an_unknown_category_gets_its_nearest_match(tmp_path: Path) -> None:
    with expect_error(SpecError, "category-unknown", category="quirk"):
        scaffold_behavior(open_library(), "quirk", "new_one", data=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("../../etc/passwd", "etc_passwd"),
        ("Sailor Farewell", "sailor_farewell"),
        ("a.b", "a_b"),
        ("new\n", "new"),
        ("", "my_behavior"),
    ],
)
def test_an_unsafe_name_is_refused_with_a_better_one(
    tmp_path: Path, name: str, better: str
) -> None:
    with expect_error(SpecError, "name-unsafe", name=name, suggestion=better):
        scaffold_behavior(open_library(), "quirks", name, data=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = scaffold_behavior(open_library(), "quirks", "new_one", data=tmp_path)
    path.write_text("mine", encoding="utf8")
    with expect_error(SpecError, "file-exists", path=path):
        scaffold_behavior(open_library(), "quirks", "new_one", data=tmp_path)
    assert path.read_text(encoding="utf8") == "mine"
