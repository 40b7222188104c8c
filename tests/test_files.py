"""Paths as users write them, and folders in which other programs left something.

Run: python -m pytest tests/test_files.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.expect import expect_error

from bestiary.errors import PathError
from bestiary.files import expand_path, list_paths

LEFT_BEHIND = (
    "._sound.yaml",
    ".ipynb_checkpoints/sound.yaml",
    ".DS_Store",
    ".sound.yaml.swp",
    "sound.yaml~",
    "~$sound.yaml",
    "__MACOSX/sound.yaml",
    "__pycache__/sound.yaml",
    "deep/.hidden/sound.yaml",
    "Thumbs.db",
    "desktop.ini",
    "Icon\r",
)


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_other_programs_left_is_not_listed(tmp_path: Path, name: str) -> None:
    for file in ("sound.yaml", "deep/sound.yaml", name):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    files = [path for path in list_paths(tmp_path) if path.is_file()]
    assert files == [tmp_path / "deep" / "sound.yaml", tmp_path / "sound.yaml"]
    assert list_paths(tmp_path, "*.yaml") == [tmp_path / "sound.yaml"]


def test_a_folder_may_itself_lie_in_a_hidden_one(tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "sound.yaml").touch()
    assert [path.name for path in list_paths(tmp_path / ".work")] == ["sound.yaml"]


@pytest.mark.parametrize("text", ["~/runs", "$HOME/runs", "${HOME}/runs", "$HOME/../home/runs"])
def test_a_home_is_found_however_it_is_written(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert expand_path(text).resolve() == tmp_path / "home" / "runs"


@pytest.mark.parametrize("text", ["runs", "/data/runs", "a~b/runs", "./~runs", "100$/runs"])
def test_any_other_path_is_taken_as_it_is(text: str) -> None:
    assert expand_path(text) == Path(text)


@pytest.mark.parametrize("text", ["$NOT_SET_HERE/runs", "${NOT_SET_HERE}/runs"])
def test_a_variable_that_is_not_set_is_named(text: str) -> None:
    with expect_error(PathError, "path-variable-unset", variable="NOT_SET_HERE"):
        expand_path(text)


@pytest.mark.parametrize("name", ["x" * 256, "\u00e9" * 128])
def test_a_name_that_no_file_system_takes_is_refused(name: str) -> None:
    assert expand_path(f"runs/{name[:-1]}/x").name == "x"
    with expect_error(PathError, "path-too-long"):
        expand_path(f"runs/{name}/x")


def test_a_user_without_a_home_is_named() -> None:
    with expect_error(PathError, "path-home-unknown", path="~no_such_user/runs"):
        expand_path("~no_such_user/runs")
