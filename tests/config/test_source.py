"""Lines, broken YAML and nearest names. Run: pytest tests/spec/test_source.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.files import QUIRK, library_of, line_of, plant, write_behavior

from bestiary.config.source import Violations, load_model, parse_yaml
from bestiary.records import Record
from bestiary.text import nearest
from bestiary.validate import find_violations


class Garden(Record):
    """A small file for these tests."""

    name: str
    beds: tuple[int, ...]


def write(folder: Path, text: str) -> Path:
    """A YAML file with that text."""
    path = folder / "garden.yaml"
    path.write_text(text, encoding="utf8")
    return path


def test_a_field_knows_its_line(tmp_path: Path) -> None:
    source = parse_yaml(
        write(tmp_path, "# a comment\nname: Kew\n\nbeds:\n  - 1\n  - {a: 2,\n     b: 3}\n")
    )
    assert source.line(("name",)) == 2
    assert source.line(("beds", 0)) == 5
    assert source.line(("beds", 1, "b")) == 7
    assert source.line(("beds", 9)) == 4  # its nearest parent in the file
    assert source.line(("absent",)) == 1


def test_data_are_plain_python_values(tmp_path: Path) -> None:
    data = parse_yaml(write(tmp_path, "a: 'x'\nb: [1, 2.5, true, null]\n")).data
    assert data == {"a": "x", "b": [1, 2.5, True, None]}
    assert {type(value) for value in (*data["b"], data["a"])} == {int, float, bool, type(None), str}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("name: Kew\nbeds: [1, 2\nrest: 3\n", 3, "expected ',' or ']'"),
        ("name: Kew\nbeds: a: b\n", 2, "mapping values are not allowed here"),
        ("name: Kew\nbeds: [1]\nname: Wisley\n", 3, 'found duplicate key "name"'),
    ],
)
def test_broken_yaml_names_its_line(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(Violations) as caught:
        parse_yaml(path)
    (found,) = caught.value.found
    assert (found.path, found.line, found.field) == (path, line, "yaml")
    assert problem in found.problem
    assert "mend the YAML at that line" in found.remedy


@pytest.mark.parametrize("data", [b"name: \xff\xfe\n", b"name: a\x00b\n"])
def test_a_file_that_is_no_text_is_a_violation(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "garden.yaml"
    path.write_bytes(data)
    with pytest.raises(Violations, match=r"garden\.yaml:1: yaml: .*; save the file as plain UTF-8"):
        parse_yaml(path)


def test_a_tag_that_names_code_runs_nothing(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    tagged = f'rubric: !!python/object/apply:os.system ["touch {planted}"]'
    sound = "rubric: The last sentence is a mariner's farewell."
    path = write_behavior(tmp_path / "behaviors", plant(QUIRK, sound, tagged))
    (found,) = find_violations(library_of(tmp_path / "behaviors"))
    assert (found.path, found.line, found.field) == (path, line_of(path, "rubric:"), "rubric")
    assert not planted.exists()


def test_every_fault_of_a_file_is_reported_in_order_of_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "beds: [1, two]\nnmae: Kew\n")
    with pytest.raises(Violations) as caught:
        load_model(path, Garden)
    assert str(caught.value).splitlines() == [
        f"{path}:1: beds.1: Input should be a valid integer, unable to parse string as an integer "
        "(got 'two'); mend the value",
        f"{path}:1: name: is missing; add `name:`",
        f"{path}:2: nmae: unknown key (value 'Kew'); remove it, or mend its spelling",
    ]


def test_an_unknown_name_gets_its_nearest_match_and_the_choices() -> None:
    assert nearest("quirk", ["quirks", "backdoors"]) == (
        "did you mean 'quirks'? available: backdoors, quirks"
    )
    assert nearest("zebra", ["quirks"]) == "available: quirks"
    assert nearest("zebra", []) == "available: none"
