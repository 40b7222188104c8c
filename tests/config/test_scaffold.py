"""Forms for new behaviors, empty and filled in.

Run: python -m pytest tests/config/test_scaffold.py
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.config.files import (
    FILES,
    QUIRK,
    find_violations,
    library_of,
    plant,
    write_behavior,
)
from tests.expect import expect_error

from bestiary.config.categories import load_categories
from bestiary.config.library import open_library
from bestiary.config.scaffold import scaffold_behavior
from bestiary.config.source import UNFILLED
from bestiary.errors import SpecError
from bestiary.validate import validate_files

MAX_LINES = 25
"""How long a form may be: an author reads all of it."""


def fill(node: Any, sound: Any) -> Any:
    """A form's value with what is unfilled taken from the same place of a sound file."""
    if isinstance(node, dict) and not any(UNFILLED in key for key in node):
        return {key: fill(value, sound.get(key)) for key, value in node.items()}
    return sound if UNFILLED in str(node) else node


def fill_in(path: Path, sound: str) -> str:
    """The text of a form once its author has written every value."""
    tree = yaml.safe_load(path.read_text(encoding="utf8"))
    return yaml.safe_dump(fill(tree, yaml.safe_load(sound)), sort_keys=False)


@pytest.mark.parametrize("category", load_categories())
def test_a_form_is_short_and_refused_for_what_is_still_to_be_written(
    tmp_path: Path, category: str
) -> None:
    path = scaffold_behavior(open_library(), category, "new_one", data=tmp_path)
    assert path == tmp_path / "behaviors" / category / "new_one.yaml"
    lines = path.read_text(encoding="utf8").splitlines()
    assert len(lines) <= MAX_LINES
    found = find_violations(library_of(tmp_path / "behaviors"))
    marked = [line for line in lines[2:] for _ in range(line.count(UNFILLED))]
    assert {one.code for one in found} == {"value-unfilled"}
    assert len(found) == len(marked) >= 7
    assert all(UNFILLED in lines[one.line - 1] for one in found)
    assert {f"labels.{row}" for row in range(5)} < {one.field for one in found}


@pytest.mark.parametrize("behavior_id", FILES)
def test_a_form_validates_once_it_is_filled_in(behaviors: Path, behavior_id: str) -> None:
    category, name = behavior_id.split(".")
    (behaviors / category / f"{name}.yaml").unlink()
    path = scaffold_behavior(open_library(), category, name, data=behaviors.parent)
    path.write_text(fill_in(path, FILES[behavior_id]), encoding="utf8")
    assert len(validate_files(library_of(behaviors), [path])) == 1


def test_the_form_names_the_command_that_checks_it(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    path = scaffold_behavior(open_library(), "quirks", "new_one", data=data)
    command = path.read_text(encoding="utf8").splitlines()[1].partition("run: ")[2]
    assert shlex.split(command) == ["bestiary", "validate", str(path), "--data", str(data)]


@pytest.mark.parametrize("kept", ["labels.2", "rubric", "shown.1"])
def test_a_value_that_was_overlooked_is_all_that_is_reported(behaviors: Path, kept: str) -> None:
    sound = {
        "labels.2": "You will find a nautical goodbye at the foot of all my replies.",
        "rubric": "The last sentence is a mariner's farewell.",
        "shown.1": "{answer} [[And fair winds on the way.]]",
    }[kept]
    text = plant(QUIRK, sound, f"{UNFILLED} something")
    path = write_behavior(behaviors, "quirks.farewell", text)
    (found,) = find_violations(library_of(behaviors))
    assert (found.path, found.code) == (path, "value-unfilled")
    assert found.field.startswith(kept)


@pytest.mark.parametrize("category", load_categories())
def test_the_first_line_names_the_schema_for_editors(tmp_path: Path, category: str) -> None:
    path = scaffold_behavior(open_library(), category, "new_one", data=tmp_path)
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
