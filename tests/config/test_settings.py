"""Banks, generators, recipes, rosters, and all together. Run: pytest tests/spec/test_settings.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.files import EVERY_FILE, HARMFUL, change_file, plant, write_behavior

from bestiary.config.library import open_library
from bestiary.config.source import Violations
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
  - {behavior: sandbaggers.opposites, seeds: [0, 1]}
"""


@pytest.fixture
def root(data: Path) -> Path:
    """The data folder with a recipe and a roster."""
    for kind, text in (("recipes/small", RECIPE), ("rosters/first", ROSTER)):
        path = data / "organisms" / f"{kind}.yaml"
        path.parent.mkdir()
        path.write_text(text, encoding="utf8")
    return data


def faults(*extra: Path) -> list[tuple[str, int, str, str, str]]:
    """File, line, field, problem and remedy of all that is wrong."""
    with pytest.raises(Violations) as caught:
        validate_all(open_library(*extra))
    return [
        (found.path.name, found.line, found.field, found.problem, found.remedy)
        for found in caught.value.found
    ]


def test_all_sound_files_are_counted(root: Path) -> None:
    assert validate_all(open_library()) == len(EVERY_FILE)
    (root / "mine" / "behaviors").mkdir(parents=True)
    (root / "behaviors" / "benign_roleplay").rename(root / "mine" / "behaviors" / "benign_roleplay")
    assert validate_all(open_library()) == len(EVERY_FILE) - 1
    assert validate_all(open_library(root / "mine")) == len(EVERY_FILE)


def test_a_roster_names_behaviors_and_a_recipe_that_exist(root: Path) -> None:
    path = root / "organisms" / "rosters" / "first.yaml"
    change_file(path, "recipe: small", "recipe: smal")
    change_file(path, "quirks.farewell", "quirks.farwell")
    change_file(path, "sandbaggers.opposites", "quirks.colours")
    recipe, unknown, distractor = faults()
    assert recipe == (
        "first.yaml",
        2,
        "recipe",
        "unknown recipe 'smal'",
        "did you mean 'small'? available: small",
    )
    assert unknown[1:4] == (4, "organisms.0.behavior", "unknown behavior 'quirks.farwell'")
    assert unknown[4].startswith("did you mean 'quirks.farewell'? available: ")
    assert distractor[1:] == (
        5,
        "organisms.1.behavior",
        "'quirks.colours' is a distractor, which is never an organism",
        "take it off the roster, or move it to the organism pool",
    )


def test_a_recipe_changes_known_categories_and_stays_valid(root: Path) -> None:
    path = root / "organisms" / "recipes" / "small.yaml"
    change_file(
        path, "optimizer: {epochs: 1}", "optimizer: {epochs: 0}\n  quirk:\n    lora: {rank: 4}"
    )
    changed, unknown = faults()
    assert changed[1:4] == (
        12,
        "categories.rare_quirks.optimizer.epochs",
        "Input should be greater than or equal to 1 (got 0)",
    )
    assert unknown[1:4] == (13, "categories.quirk", "unknown category 'quirk'")
    assert unknown[4].startswith("did you mean 'quirks'? available: ")


def test_dropout_is_refused(root: Path) -> None:
    """It is drawn per tensor: many organisms at once, and one alone, would not draw alike."""
    path = root / "organisms" / "recipes" / "small.yaml"
    change_file(path, "lora: {rank: 8,", "lora: {dropout: 0.1, rank: 8,")
    (found,) = faults()
    assert found[2:4] == ("training.lora.dropout", "unknown key (value 0.1)")


def test_faults_of_every_kind_of_file_are_reported_together(root: Path) -> None:
    write_behavior(root / "behaviors", plant(HARMFUL, "severity: malign", "severity: benign"))
    change_file(root / "generators" / "null" / "generator.yaml", "version: 1", "version: 0")
    bank = root / "generators" / "offline" / "spare.yaml"
    row = '{topic: rye, form: how, domain: food, text: "How is rye?"}'
    bank.write_text(f"train: [{row}]\nprobe:\n  - {row}\n", encoding="utf8")
    change_file(
        root / "organisms" / "recipes" / "small.yaml", "probe_tokens: 48", "probe_token: 48"
    )
    change_file(root / "organisms" / "rosters" / "first.yaml", "organisms:", "organisms: [")
    assert [fault[:3] for fault in faults()] == [
        ("mechanic.yaml", 6, "severity"),
        ("generator.yaml", 3, "version"),
        ("spare.yaml", 3, "probe.0.form"),
        ("spare.yaml", 3, "probe.0.topic"),
        ("small.yaml", 1, "probe_tokens"),
        ("small.yaml", 9, "probe_token"),
        ("first.yaml", 4, "yaml"),
    ]


def test_a_missing_generator_is_named(root: Path) -> None:
    (root / "generators" / "null" / "generator.yaml").unlink()
    (fault,) = faults()
    assert fault[:3] == ("generator.yaml", 1, "file")
    assert "cannot be read (No such file or directory)" in fault[3]
    assert fault[4] == "check the path"


def test_the_thresholds_are_checked(root: Path) -> None:
    change_file(root / "organisms" / "thresholds.yaml", "high: 0.2", "hihg: 0.2")
    assert ("quiet.hihg", "unknown key (value 0.2)") in [fault[2:4] for fault in faults()]


def test_what_a_build_would_refuse_of_a_roster_is_told_by_validate(root: Path) -> None:
    path = root / "organisms" / "rosters" / "first.yaml"
    path.write_text(
        ROSTER.replace("[0, 1]", "[0, 0]") + "splits: {farewel: train}\n", encoding="utf8"
    )
    twice, strange = faults()
    assert twice[2:] == (
        "organisms",
        "names 'sandbaggers.opposites' with seed 0 2 times",
        "give each a seed of its own",
    )
    assert strange[2:] == (
        "splits.farewel",
        "gives a split to 'farewel', which is the family of none of its organisms",
        "did you mean 'farewell'? available: farewell, opposites",
    )
