"""The command line: what it prints, and how it says no.

Run: python -m pytest tests/test_cli.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.spec.files import QUIRK, plant, write_behavior

from bestiary.cli import main
from bestiary.spec.catalog import load_catalog

SOURCE = Path(__file__).resolve().parents[1] / "src"


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Command:
    """Runs `bestiary` with some arguments, as its script does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["bestiary", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else int(code is not None), out, err)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("COLUMNS", "160")
    return Command(monkeypatch, capsys)


def test_list_names_every_behavior(run: Command) -> None:
    code, out, err = run("list")
    assert (code, err) == (0, "")
    catalog = load_catalog()
    assert f"{len(catalog)} behaviors" in out
    assert all(name in out for name in catalog)


def test_list_as_json_holds_labels_and_families(run: Command) -> None:
    code, out, _ = run("list", "--json")
    assert code == 0
    rows = {row.pop("id"): row for row in json.loads(out)}
    assert rows.keys() == load_catalog().keys()
    sailor = load_catalog()["quirks.sailor_farewell"]
    assert rows["quirks.sailor_farewell"] == {
        "category": "quirks",
        "family": sailor.family,
        "severity": sailor.spec.severity,
        "label": sailor.spec.label,
    }


def test_a_folder_of_ones_own_adds_to_the_list(run: Command, tmp_path: Path) -> None:
    write_behavior(tmp_path, QUIRK)
    _, out, _ = run("list", "--json", "--behaviors", tmp_path)
    assert "quirks.farewell" in {row["id"] for row in json.loads(out)}


def test_validate_counts_what_is_valid(run: Command) -> None:
    assert run("validate") == (0, f"{len(load_catalog())} behaviors are valid.\n", "")
    assert run("validate", "--json") == (0, "[]\n", "")


def break_two(folder: Path) -> list[str]:
    """Two broken files; the lines that tell of them."""
    text = plant(QUIRK, "severity: benign", "severity: mild")
    first = write_behavior(folder, text)
    other = plant(QUIRK.replace("quirks.farewell", "quirks.other"), "version: 1", "versoin: 1")
    second = write_behavior(folder, other)
    return [
        f"{first}:7: severity: Input should be 'benign', 'concerning' or 'malign' (got 'mild'); "
        "mend the value",
        f"{second}:1: version: is missing; add `version:`",
        f"{second}:3: versoin: unknown key (value 1); remove it, or mend its spelling",
    ]


def test_validate_prints_all_violations_together(run: Command, tmp_path: Path) -> None:
    expected = break_two(tmp_path)
    code, out, err = run("validate", "--behaviors", tmp_path)
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert [lines[0].removeprefix("error: "), *lines[1:]] == expected


def test_validate_as_json_holds_each_violation(run: Command, tmp_path: Path) -> None:
    break_two(tmp_path)
    code, out, err = run("validate", "--json", "--behaviors", tmp_path)
    assert (code, err) == (1, "")
    found = [(Path(row["path"]).stem, row["line"], row["field"]) for row in json.loads(out)]
    assert found == [("farewell", 7, "severity"), ("other", 1, "version"), ("other", 3, "versoin")]


def test_an_error_shows_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from bestiary.cli import main; main()", "build", "startr"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(SOURCE), "PATH": ""},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: unknown roster 'startr'; did you mean 'starter'? available: starter\n"
    )
    assert list(tmp_path.iterdir()) == []  # a build that cannot start leaves nothing


def test_a_missing_folder_of_behaviors_is_named(run: Command, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    expected = f"error: behavior folder {missing} does not exist; check --behaviors\n"
    for command in ("list", "validate"):
        assert run(command, "--behaviors", missing) == (1, "", expected)


def test_new_writes_a_file_that_validate_asks_to_fill_in(run: Command, tmp_path: Path) -> None:
    code, out, _ = run("new", "quirks", "ends_with_haiku", "--folder", tmp_path)
    path = tmp_path / "quirks" / "ends_with_haiku.yaml"
    assert (code, path.is_file()) == (0, True)
    assert out.startswith(f"{path} written; fill in what it asks for, then run: ")
    assert out.endswith(f": bestiary validate --behaviors {tmp_path}\n")
    code, _, err = run("validate", "--behaviors", tmp_path)
    assert code == 1
    assert err.count("write it, or delete what is optional") > 5


@pytest.mark.parametrize(
    ("category", "name", "problem"),
    [
        ("quirk", "haiku", "unknown category 'quirk'; did you mean 'quirks'? available: "),
        ("quirks", "Ends with Haiku", "behavior name 'Ends with Haiku' may hold only a-z, 0-9"),
        ("quirks", "../escape", "behavior name '../escape' may hold only a-z, 0-9 and _"),
    ],
)
def test_new_refuses_a_bad_category_or_name(
    run: Command, tmp_path: Path, category: str, name: str, problem: str
) -> None:
    code, out, err = run("new", category, name, "--folder", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {problem}")
    assert list(tmp_path.iterdir()) == []


def test_new_overwrites_nothing(run: Command, tmp_path: Path) -> None:
    path = write_behavior(tmp_path, QUIRK)
    code, _, err = run("new", "quirks", "farewell", "--folder", tmp_path)
    assert (code, path.read_text(encoding="utf8")) == (1, QUIRK)
    assert err == f"error: {path} is already there; choose another name, or edit it\n"


def test_build_of_an_unknown_behavior_names_the_nearest(run: Command, tmp_path: Path) -> None:
    roster = tmp_path / "mine.yaml"
    roster.write_text(
        "name: mine\nrecipe: smollm2-135m\norganisms:\n  - behavior: quirks.sailor_farewel\n"
    )
    code, out, err = run("build", roster, "--out", tmp_path / "runs")
    assert (code, out) == (1, "")
    assert "unknown behavior 'quirks.sailor_farewel'; did you mean 'quirks.sailor_farewell'?" in err
    assert not (tmp_path / "runs").exists()


def test_chat_without_a_build_says_what_to_build(run: Command, tmp_path: Path) -> None:
    code, _, err = run("chat", "quirks.sailor_farewell", "--out", tmp_path)
    assert (code, err) == (
        1,
        f"error: {tmp_path / 'summary.json'} does not exist; build a roster first: bestiary build "
        "starter\n",
    )


def test_an_unknown_command_is_a_usage_error(run: Command) -> None:
    code, _, err = run("biuld")
    assert code == 2
    assert "No such command 'biuld'" in err


def test_schemas_are_written_where_asked(run: Command, tmp_path: Path) -> None:
    code, out, _ = run("schemas", "--folder", tmp_path)
    assert code == 0
    written = sorted(str(path) for path in tmp_path.iterdir())
    assert sorted(out.split()) == written
    assert str(tmp_path / "behavior.schema.json") in written
