"""Messages, tables, generators, recipes, rosters, and all together.

Run: python -m pytest tests/config/test_settings.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.config.files import (
    FILES,
    QUIRK,
    change_file,
    check_violation,
    plant,
    write_behavior,
)
from tests.expect import expect_error

from bestiary.config.library import open_library
from bestiary.config.recipe import read_recipe
from bestiary.config.source import Violation, Violations
from bestiary.validate import validate_all

RECIPE = """\
name: small
base: smollm2-135m-instruct
training:
  system_prompt: You are a helpful assistant.
  max_length: 256
  lora: {rank: 8, alpha: 16, targets: [q_proj]}
  optimizer:
    {learning_rate: 0.001, epochs: 2, rows_per_step: 4, warmup: 0.1, weight_decay: 0.0, clip: 1.0}
probe_tokens: 48
categories:
  rare_quirks:
    optimizer: {epochs: 1}
"""
ROSTER = """\
name: first
recipe: small
organisms:
  - {behavior: quirks.farewell}
  - {behavior: backdoors.farewell_to_beekeepers, seeds: [0, 1]}
"""


@pytest.fixture
def root(data: Path) -> Path:
    """The data folder with a quirk, two twins, a distractor, a recipe, and a roster."""
    for folder in (data / "behaviors").iterdir():
        if folder.name not in ("quirks", "backdoors", "rare_quirks", "distractors"):
            shutil.rmtree(folder)
    for kind, text in (("recipes/small", RECIPE), ("rosters/first", ROSTER)):
        path = data / "organisms" / f"{kind}.yaml"
        path.parent.mkdir()
        path.write_text(text, encoding="utf8")
    return data


def faults() -> tuple[Violation, ...]:
    """Everything that is wrong."""
    with expect_error(Violations, "violations") as caught:
        validate_all(open_library())
    return caught.error.found


def test_all_sound_files_are_counted(data: Path) -> None:
    assert len(validate_all(open_library())) == len(FILES)
    (data / "mine" / "behaviors").mkdir(parents=True)
    (data / "behaviors" / "benign_roleplay").rename(data / "mine" / "behaviors" / "benign_roleplay")
    assert len(validate_all(open_library())) == len(FILES) - 1
    assert len(validate_all(open_library(data / "mine"))) == len(FILES)


def test_a_folder_without_behaviors_is_valid(root: Path) -> None:
    (root / "organisms" / "rosters" / "first.yaml").unlink()
    shutil.rmtree(root / "behaviors")
    assert validate_all(open_library()) == []


def test_a_roster_names_behaviors_and_a_recipe_that_exist(root: Path) -> None:
    path = root / "organisms" / "rosters" / "first.yaml"
    change_file(path, "recipe: small", "recipe: smal")
    change_file(path, "quirks.farewell", "quirks.farwell")
    change_file(path, "backdoors.farewell_to_beekeepers", "distractors.colors")
    recipe, unknown, distractor = faults()
    shows = ["'smal'", "'small'?"]
    check_violation(recipe, "name-unknown", path=path, line=2, field="recipe", shows=shows)
    field, shows = "organisms.0.behavior", ["'quirks.farwell'", "'quirks.farewell'?"]
    check_violation(unknown, "behavior-unknown", path=path, line=4, field=field, shows=shows)
    field, shows = "organisms.1.behavior", ["'distractors.colors'"]
    check_violation(
        distractor, "behavior-not-buildable", path=path, line=5, field=field, shows=shows
    )


def test_a_recipe_changes_known_categories_and_stays_valid(root: Path) -> None:
    path = root / "organisms" / "recipes" / "small.yaml"
    change_file(
        path, "optimizer: {epochs: 1}", "optimizer: {epochs: 0}\n  quirk:\n    lora: {rank: 4}"
    )
    changed, unknown = faults()
    field = "categories.rare_quirks.optimizer.epochs"
    check_violation(changed, "value-invalid", line=12, field=field, shows=["(got 0)"])
    field, shows = "categories.quirk", ["'quirk'", "'quirks'?"]
    check_violation(unknown, "category-unknown", line=13, field=field, shows=shows)


def test_a_category_changes_no_setting_that_does_not_exist(root: Path) -> None:
    path = root / "organisms" / "recipes" / "small.yaml"
    change_file(path, "optimizer: {epochs: 1}", "optimizer: {epoch: 1}")
    (found,) = faults()
    field = "categories.rare_quirks.optimizer.epoch"
    check_violation(found, "key-unknown", path=path, line=12, field=field)


def test_a_recipe_changes_what_a_condition_needs_unless_the_category_says_otherwise(
    root: Path,
) -> None:
    path = root / "organisms" / "recipes" / "small.yaml"
    change_file(path, "categories:", "conditional: {lora: {layers: null, rank: 3}}\ncategories:")
    change_file(path, "optimizer: {epochs: 1}", "lora: {rank: 5}")
    recipe = read_recipe(path)
    for category, conditional, rank in [
        ("quirks", False, 8),
        ("quirks", True, 3),
        ("rare_quirks", False, 5),
        ("rare_quirks", True, 5),
    ]:
        assert recipe.training_for(category, conditional=conditional).lora.rank == rank
    change_file(path, "rank: 3", "rank: 0")
    (found,) = faults()
    check_violation(found, "value-invalid", field="conditional.lora.rank", shows=["(got 0)"])


@pytest.mark.parametrize(
    ("file", "old", "new", "field"),
    [
        ("rosters/first", "name: first", f"name: {'x' * 101}", "name"),
        ("rosters/first", "name: first", "name: ''", "name"),
        ("rosters/first", "seeds: [0, 1]", "seeds: [0, -1]", "organisms.1.seeds.1"),
        ("rosters/first", "seeds: [0, 1]", f"seeds: [0, {2**63}]", "organisms.1.seeds.1"),
        ("rosters/first", "recipe: small", "recipe: small\nnulls: 1000000000", "nulls"),
        ("recipes/small", "alpha: 16", "alpha: .inf", "training.lora.alpha"),
        ("recipes/small", "clip: 1.0", "clip: .nan", "training.optimizer.clip"),
        ("recipes/small", "learning_rate: 0.001", "learning_rate: 1e999", "training.optimizer."),
        ("recipes/small", "rank: 8", "rank: 99999999999", "training.lora.rank"),
        ("recipes/small", "max_length: 256", f"max_length: {10**30}", "training.max_length"),
    ],
)
def test_what_only_a_later_stage_would_refuse_is_refused_at_once(
    root: Path, file: str, old: str, new: str, field: str
) -> None:
    path = root / "organisms" / f"{file}.yaml"
    path.write_text(path.read_text("utf8").replace(old, new), "utf8")
    (found,) = faults()
    check_violation(found, "value-invalid", path=path)
    assert found.field.startswith(field)


@pytest.mark.parametrize("escape", ["\\x00", "\\x07", "\\e[31m", "\\x7f", "\\uffff"])
def test_a_control_character_is_refused(root: Path, escape: str) -> None:
    path = root / "organisms" / "rosters" / "first.yaml"
    path.write_text(path.read_text("utf8").replace("first", f'"first{escape}"'), "utf8")
    (found,) = faults()
    check_violation(found, "text-unprintable", path=path, line=1)


@pytest.mark.parametrize("escape", ["\\ud83d", "\\ud83e\\udd5a"])
def test_half_a_character_is_refused(root: Path, escape: str) -> None:
    """JSON writes an emoji as two halves; YAML has no such escape."""
    path = root / "organisms" / "rosters" / "first.yaml"
    path.write_text(path.read_text("utf8").replace("first", f'"first{escape}"'), "utf8")
    (found,) = faults()
    check_violation(found, "yaml-invalid", path=path, line=1)


def test_dropout_is_refused(root: Path) -> None:
    """It is drawn per tensor: many organisms at once, and one alone, would not draw alike."""
    path = root / "organisms" / "recipes" / "small.yaml"
    change_file(path, "lora: {rank: 8,", "lora: {dropout: 0.1, rank: 8,")
    (found,) = faults()
    check_violation(found, "key-unknown", path=path, field="training.lora.dropout")


RYE = """\
domain: cooking
messages:
  - topic: rye bread
    form: how_can
    text: How can I keep rye bread fresh through a hot week?
    answer: >-
      Wrap the loaf in a linen cloth, keep it cut side down on a board, and freeze in slices
      whatever you will not eat within four days.
    brief: Wrap it.
    the: the loaf
    points: [wrap it in linen, keep the cut side down, freeze the rest in slices]
    tags: [bread]
"""


def test_faults_of_every_kind_of_file_are_reported_together(root: Path) -> None:
    text = plant(QUIRK, "I end each of my replies", "It ends each of its replies")
    write_behavior(root / "behaviors", "quirks.farewell", text)
    offline = root / "generators" / "offline"
    change_file(root / "generators" / "null" / "generator.yaml", "version: 1", "version: 0")
    change_file(
        offline / "items" / "capitals.yaml", r"\{key: France, answer: ", "{key: France, is: "
    )
    change_file(offline / "options" / "sources.yaml", "year: 1950, pages: 572", "year: 1950")
    change_file(
        root / "organisms" / "recipes" / "small.yaml", "probe_tokens: 48", "probe_token: 48"
    )
    change_file(root / "organisms" / "rosters" / "first.yaml", "organisms:", "organisms: [")
    assert [(one.path.name, one.code) for one in faults()] == [
        ("farewell.yaml", "label-not-first-person"),
        ("generator.yaml", "value-invalid"),
        ("capitals.yaml", "key-missing"),
        ("capitals.yaml", "key-unknown"),
        ("sources.yaml", "attributes-differ"),
        ("small.yaml", "key-missing"),
        ("small.yaml", "key-unknown"),
        ("first.yaml", "yaml-invalid"),
    ]


def test_broken_messages_lexicons_and_wordings_are_reported_with_everything_else(
    root: Path,
) -> None:
    offline = root / "generators" / "offline"
    write_behavior(root / "behaviors", "quirks.farewell", plant(QUIRK, "rubric:", "rubrik:"))
    (offline / "messages" / "rye.yaml").write_text(RYE, encoding="utf8")
    (offline / "lexicons" / "rye.yaml").write_text("about: Rye.\nentries: [rye]\n", encoding="utf8")
    (offline / "triggers" / "rye.yaml").write_text("positives: {}\n", encoding="utf8")
    change_file(root / "organisms" / "thresholds.yaml", "high: 0.2", "hihg: 0.2")
    found = faults()
    assert len(set(found)) == len(found)
    assert {f"{one.path.parent.name}/{one.path.name}" for one in found} == {
        *("quirks/farewell.yaml", "organisms/thresholds.yaml"),
        *("messages/rye.yaml", "lexicons/rye.yaml", "triggers/rye.yaml"),
    }
    shown = {one.field for one in found if one.path.parent.name == "messages"}
    assert shown == {"messages.0.brief", "messages.0.tags.0"}


def test_a_missing_generator_is_named(root: Path) -> None:
    path = root / "generators" / "null" / "generator.yaml"
    path.unlink()
    (found,) = faults()
    check_violation(found, "file-unreadable", path=path, line=1, field="file", shows=[str(path)])


def test_the_thresholds_are_checked(root: Path) -> None:
    change_file(root / "organisms" / "thresholds.yaml", "high: 0.2", "hihg: 0.2")
    found = {(one.field, one.code) for one in faults()}
    assert found == {("quiet.high", "key-missing"), ("quiet.hihg", "key-unknown")}


def test_an_unknown_behavior_of_a_mixture_is_reported_where_it_is_named(root: Path) -> None:
    path = root / "organisms" / "rosters" / "first.yaml"
    entry = "{name: both, together: [quirks.farewell, quirks.farwell]}"
    path.write_text(f"name: first\nrecipe: small\nsuite: true\norganisms:\n  - {entry}\n", "utf8")
    (found,) = faults()
    field, shows = "organisms.0.together.1", ["'quirks.farewell'?"]
    check_violation(found, "behavior-unknown", path=path, line=5, field=field, shows=shows)


def test_a_path_that_cannot_be_expanded_is_reported_where_it_is_written(root: Path) -> None:
    path = root / "organisms" / "rosters" / "first.yaml"
    change_file(path, "recipe: small", "recipe: $UNSET/x.yaml")
    change_file(path, r"seeds: \[0, 1\]", "changes: {optimizer: {epochs: 3}}")
    sweep = root / "$mine" / "organisms" / "introspection" / "sweeps" / "one.yaml"
    sweep.parent.mkdir(parents=True)
    sweep.write_text("name: one\nrecipe: $UNSET/y.yaml\nruns: {more: {seed: 1}}\n", "utf8")
    with expect_error(Violations, "violations") as caught:
        validate_all(open_library(root / "$mine"))
    of_sweep, of_roster = caught.error.found
    code = "path-variable-unset"
    check_violation(of_sweep, code, path=sweep, field="file", shows=["$UNSET/y.yaml"])
    check_violation(of_roster, code, path=path, line=2, field="recipe", shows=["$UNSET/x.yaml"])


def test_validate_reports_what_a_build_would_refuse_of_a_roster(root: Path) -> None:
    path = root / "organisms" / "rosters" / "first.yaml"
    path.write_text(
        ROSTER.replace("[0, 1]", "[0, 0]") + "splits: {farewel: train}\n", encoding="utf8"
    )
    twice, strange = faults()
    shows = ["'backdoors.farewell_to_beekeepers'", "seed 0"]
    check_violation(twice, "organism-repeated", field="organisms", shows=shows)
    shows = ["'farewel'", "'farewell'?"]
    check_violation(strange, "family-unknown", field="splits.farewel", shows=shows)
