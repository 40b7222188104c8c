"""Data folders add to each other, everything is read before a build, and nothing is executed.

Run: python -m pytest tests/config/test_library.py
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from tests.config.files import QUIRK, plant, write_behavior
from tests.conftest import Bestiary, run_command
from tests.expect import expect_error
from tests.forkserver import environment
from tests.tiny import ALONE, HERALD, ROWS, make_tiny_data, tiny_roster
from tests.tiny import QUIRK as HERALD_ID

from bestiary.config.catalog import load_catalog
from bestiary.config.folders import shipped_root
from bestiary.config.library import open_library
from bestiary.errors import SpecError
from bestiary.pipeline import build_roster
from bestiary.training.job import TrainingResources
from bestiary.validate import open_plan, validate_all

RECIPE = "organisms/recipes/smollm2-135m.yaml"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's data folder: a behavior, a bank, a recipe, a roster and a language model."""
    folder = tmp_path / "mine"
    write_behavior(folder / "behaviors", plant(QUIRK, "bank: general", "bank: pets"))
    for kind in ("generators/offline", "organisms/recipes", "organisms/rosters"):
        (folder / kind).mkdir(parents=True)
    shutil.copy(
        shipped_root() / "generators/offline/general.yaml", folder / "generators/offline/pets.yaml"
    )
    text = (shipped_root() / RECIPE).read_text("utf8")
    (folder / "organisms/recipes/slow.yaml").write_text(text.replace("smollm2-135m\n", "slow\n"))
    roster = "name: mine\nrecipe: slow\norganisms:\n  - behavior: quirks.farewell\n"
    (folder / "organisms/rosters/mine.yaml").write_text(roster)
    model = "{provider: openai, key: null, input: 0, output: 0, cache_write: 0, cache_read: 0}"
    (folder / "generators/models.yaml").write_text(
        f"checked: 2026-11-27\nmodels:\n  my-model: {model}\n"
    )
    return folder


def test_a_data_folder_adds_to_the_shipped_data(mine: Path) -> None:
    shipped = len(load_catalog(open_library()))
    library = open_library(mine)
    assert validate_all(library) == shipped + 1
    plan = open_plan("mine", data=[mine])
    assert plan.recipe.name == "slow"
    (farewell, _), (null, _) = plan.organisms
    assert farewell.prompts("train") == library.bank("pets").train
    assert null.prompts("train") == library.bank("general").train
    assert {"my-model", "claude-haiku-5-5"} <= plan.models.keys()


def test_the_command_line_takes_data_folders(mine: Path, bestiary: Bestiary) -> None:
    listed = bestiary("list", "--data", mine)
    assert listed.code == 0 and "quirks.farewell" in listed.out
    planned = bestiary("plan", "mine", "--data", mine)
    assert planned.code == 0 and "2 organisms" in planned.out


@pytest.mark.parametrize(
    "file", [RECIPE, "generators/offline/general.yaml", "generators/quirks/reply.j2"]
)
def test_a_name_that_is_taken_is_refused_with_both_paths(mine: Path, file: str) -> None:
    (mine / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shipped_root() / file, mine / file)
    with expect_error(SpecError, "name-taken", path=mine / file, other=shipped_root() / file):
        validate_all(open_library(mine))
        open_plan("mine", data=[mine])


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
from typing import ClassVar, Literal

from bestiary.config.behavior import OwnBehavior


class Whisper(OwnBehavior):
    """A category from another package."""

    data: ClassVar[Path] = Path(__file__).parent / "data"
    category: Literal["whispers"]
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
    text = HERALD.replace("quirks", "whispers")
    write_behavior(site / "data" / "behaviors", text)
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


def test_a_category_whose_name_is_taken_is_refused(installed: Path, tmp_path: Path) -> None:
    (installed / "toy.py").write_text(TOY.replace("whispers", "quirks"))
    seen = environment()
    seen["PYTHONPATH"] += f":{installed}"
    listed = run_command("list", env=seen)
    assert (listed.code, listed.out) == (1, "")
    assert listed.err.startswith("error[category-taken]: ")
    assert "Traceback" not in listed.err
