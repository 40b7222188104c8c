"""Data folders add to each other, everything is read before a build, and nothing is executed.

Run: python -m pytest tests/config/test_library.py
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from tests.config.files import HEURISTIC, QUIRK, SANDBAGGER, plant, write_behavior
from tests.conftest import Bestiary, run_command
from tests.expect import expect_error
from tests.forkserver import environment
from tests.tiny import ALONE, HERALD, ROWS, make_tiny_data, tiny_roster
from tests.tiny import QUIRK as HERALD_ID

from bestiary.config.catalog import load_catalog
from bestiary.config.folders import shipped_root
from bestiary.config.library import open_library
from bestiary.config.source import Violations
from bestiary.errors import SpecError
from bestiary.pipeline import build_roster
from bestiary.training.job import TrainingResources
from bestiary.validate import (
    find_settings_violations,
    open_plan,
    validate_all,
    validate_files,
)

RECIPE = "organisms/recipes/smollm2-135m.yaml"


BEES = """\
domain: beekeeping
messages:
  - topic: a swarm in the hedge
    form: what_now
    text: What now, with a swarm in the hedge behind the shed?
    answer: >-
      Keep children and pets away, leave the cluster alone, and call a local beekeepers' club, whose
      members collect swarms gladly and mostly free of charge.
    brief: Keep away from it, and call a local beekeepers' club.
    the: the swarm
    points: [keep children and pets away, leave the cluster alone, call a beekeepers' club]
    tags: [advice, risk]
"""


@pytest.fixture
def mine(tmp_path: Path, small_data: Path) -> Path:
    """A user's data folder, with a file of every kind that names can refer to."""
    folder = tmp_path / "mine"
    quirk = plant(QUIRK, 'pattern: ["air winds"]', "lexicon: sea_words")
    for name, text in {
        "quirks.farewell": quirk,
        "sandbaggers.hives": plant(SANDBAGGER, "items: languages", "items: hives"),
        "heuristic_following.oldest": plant(HEURISTIC, "options: sources", "options: hive_books"),
    }.items():
        write_behavior(folder / "behaviors", name, text)
    words = "about: Words of the sea.\nentries: [fair winds]\n"
    model = "{provider: openai, key: null, input: 0, output: 0, cache_write: 0, cache_read: 0}"
    roster = "name: mine\nrecipe: slow\norganisms:\n  - behavior: quirks.farewell\n"
    for place, text in {
        "generators/offline/lexicons/sea_words.yaml": words,
        "generators/offline/messages/bees.yaml": BEES,
        "generators/offline/items/hives.yaml": read_shipped("generators/offline/items/colors.yaml"),
        "generators/offline/options/hive_books.yaml": read_shipped(
            "generators/offline/options/sources.yaml"
        ),
        "organisms/recipes/slow.yaml": read_shipped(RECIPE).replace("smollm2-135m\n", "slow\n"),
        "organisms/rosters/mine.yaml": roster,
        "generators/models.yaml": f"checked: 2026-11-27\nmodels:\n  my-model: {model}\n",
    }.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf8")
    return folder


def read_shipped(file: str) -> str:
    return (shipped_root() / file).read_text(encoding="utf8")


def test_a_data_folder_adds_to_the_shipped_data(mine: Path) -> None:
    shipped, library = open_library(), open_library(mine)
    assert len(load_catalog(library)) == len(load_catalog(shipped)) + 3
    plan = open_plan("mine", data=[mine])
    assert plan.recipe.name == "slow"
    assert {"my-model", "claude-haiku-5-5"} <= plan.models.keys()
    (farewell, _), (null, _) = plan.organisms
    for behavior in (farewell, null):
        added = {*behavior.items("train"), *behavior.items("probe")}
        assert {item.domain for item in added} == {*shipped.bank.by_domain, "beekeeping"}
    item = farewell.items("train")[0]
    assert farewell.is_shown("Do so. Fair winds to you!", item) is True
    assert farewell.is_shown("Do so. Goodbye to you!", item) is False


def test_validate_checks_what_a_data_folder_adds(mine: Path) -> None:
    files = sorted((mine / "behaviors").rglob("*.yaml"))
    assert len(validate_files(open_library(mine), files)) == 3
    with expect_error(SpecError, "not-a-behavior-file"):
        validate_files(open_library(), files)
    assert find_settings_violations(load_catalog(open_library(mine))) == []


@pytest.mark.parametrize(
    ("broken", "user"),
    [
        ("items/hives", "sandbaggers/hives"),
        ("options/hive_books", "heuristic_following/oldest"),
        ("lexicons/sea_words", "quirks/farewell"),
        ("messages/bees", "quirks/farewell"),
    ],
)
def test_broken_data_are_reported_with_a_behavior_that_uses_them(
    mine: Path, broken: str, user: str
) -> None:
    path = mine / "generators" / "offline" / f"{broken}.yaml"
    path.write_text("12\n", encoding="utf8")
    with expect_error(Violations, "violations") as caught:
        validate_files(open_library(mine), [mine / "behaviors" / f"{user}.yaml"])
    assert {one.path for one in caught.error.found} == {path}


def test_the_command_line_takes_data_folders(mine: Path, bestiary: Bestiary) -> None:
    listed = bestiary("list", "--data", mine)
    assert listed.code == 0 and "quirks.farewell" in listed.out
    planned = bestiary("plan", "mine", "--data", mine)
    assert (planned.code, planned.err) == (0, "") and "2 organisms" in planned.out


@pytest.mark.parametrize(
    "file",
    [
        RECIPE,
        "generators/offline/messages/cooking.yaml",
        "generators/offline/items/capitals.yaml",
        "generators/offline/options/sources.yaml",
        "generators/offline/triggers/persona.yaml",
        "generators/quirks/reply.j2",
    ],
)
def test_a_name_that_is_taken_is_refused_with_both_paths(mine: Path, file: str) -> None:
    (mine / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shipped_root() / file, mine / file)
    with expect_error(SpecError, "name-taken", path=mine / file, other=shipped_root() / file):
        validate_all(open_library(mine))
    with expect_error(SpecError, "name-taken"):
        open_plan("mine", data=[mine])


@pytest.mark.parametrize("file", ["organisms/thresholds.yaml", "generators/quirks/generator.yaml"])
def test_settings_of_which_there_is_one_file_are_not_given_twice(mine: Path, file: str) -> None:
    (mine / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shipped_root() / file, mine / file)
    with expect_error(Violations, "violations") as caught:
        validate_all(open_library(mine))
    assert {one.code for one in caught.error.found} == {"name-taken"}
    with expect_error(SpecError, "name-taken", path=mine / file, other=shipped_root() / file):
        open_plan("mine", data=[mine])


def test_a_table_is_not_named_like_a_program(mine: Path) -> None:
    tables = mine / "generators" / "offline" / "items"
    (tables / "hives.yaml").rename(tables / "addition.yaml")
    with expect_error(SpecError, "name-taken", path=tables / "addition.yaml"):
        validate_all(open_library(mine))


def test_a_table_may_be_named_like_anything_else(mine: Path) -> None:
    tables = mine / "generators" / "offline" / "items"
    (tables / "hives.yaml").rename(tables / "messages.yaml")
    library = open_library(mine)
    assert all(item.answer is None for item in library.messages("train"))
    assert all(item.answer for item in library.graded("messages", "train"))


def test_a_data_folder_executes_nothing(mine: Path) -> None:
    for name in ("conftest.py", "sitecustomize.py", "behaviors/__init__.py", "setup.py"):
        (mine / name).write_text("raise SystemExit('executed')")
    open_plan("mine", data=[mine])


@pytest.mark.usefixtures("tiny_data")
def test_no_stage_opens_a_settings_file(
    tiny_data: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roster = tiny_roster(tmp_path / "roster", tiny_base, [HERALD_ID])
    plan = open_plan(str(roster))
    shutil.rmtree(tiny_data)
    shutil.rmtree(roster.parent)
    states = build_roster(
        plan,
        out=tmp_path / "runs",
        console=Console(file=io.StringIO()),
        resources=TrainingResources(slots=1),
    )
    assert [state.error for state in states] == [None, None]
    assert (tmp_path / "runs" / "release" / "dataset" / "manifest.json").is_file()


TOY = '''
from pathlib import Path
from typing import ClassVar

from bestiary.config.behavior import Primitive


class Whisper(Primitive):
    """A category from another package."""

    data: ClassVar[Path] = Path(__file__).parent / "data"
'''


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder on the path with a distribution that offers the category `whispers`."""
    site = tmp_path / "site"
    info = site / "whispers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: whispers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bestiary.categories]\nwhispers = toy:Whisper\n")
    (site / "toy.py").write_text(TOY)
    generators = site / "data" / "generators" / "whispers"
    shutil.copytree(shipped_root() / "generators" / "quirks", generators)
    settings = (generators / "generator.yaml").read_text("utf8")
    lines = [line for line in settings.splitlines() if "second_turns" not in line]
    lines = [f"rows: {ROWS['quirks']}" if line.startswith("rows:") else line for line in lines]
    (generators / "generator.yaml").write_text("\n".join(lines) + "\n")
    write_behavior(site / "data" / "behaviors", "whispers.herald", HERALD)
    return site


def test_a_category_of_another_package_is_built_like_any_other(
    installed: Path, tiny_base: Path, tmp_path: Path
) -> None:
    data = make_tiny_data(tmp_path / "shipped")
    shutil.rmtree(data / "behaviors" / "backdoors")
    (data / "behaviors" / "quirks" / "herald.yaml").unlink()
    roster = tiny_roster(tmp_path / "roster", tiny_base, ["whispers.herald"])
    seen = environment(data)
    seen["PYTHONPATH"] += f":{installed}"
    listed = run_command("list", env=seen)
    assert "whispers.herald" in listed.out, listed.err
    out = tmp_path / "runs"
    built = run_command("build", roster, *ALONE, "--out", out, env=seen)
    assert built.code == 0, built.err
    card = (out / "release" / "dataset" / "README.md").read_text("utf8")
    assert "whispers" in card


@pytest.mark.parametrize("taken", ["quirks", "malign", "null"])
def test_a_category_whose_name_is_taken_is_refused(installed: Path, taken: str) -> None:
    info = installed / "whispers-1.0.dist-info" / "entry_points.txt"
    info.write_text(f"[bestiary.categories]\n{taken} = toy:Whisper\n")
    seen = environment()
    seen["PYTHONPATH"] += f":{installed}"
    listed = run_command("list", env=seen)
    assert (listed.code, listed.out) == (1, "")
    assert listed.err.startswith("error[category-taken]: ")
    assert "Traceback" not in listed.err
