"""What the settings beside the behaviors promise: each broken promise with its line."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path

from bestiary.config.behavior import CORPUS_CATEGORIES
from bestiary.config.catalog import Catalog
from bestiary.config.folders import generator_folder, organism_folder
from bestiary.config.generator import Generator
from bestiary.config.grid import load_grid
from bestiary.config.message_bank import read_bank
from bestiary.config.models import load_models
from bestiary.config.plan import find_roster_faults
from bestiary.config.recipe import find_file, read_recipe
from bestiary.config.roster import Roster
from bestiary.config.source import Violation, Violations, load_model, parse_yaml
from bestiary.config.source import validate_source as validate
from bestiary.config.thresholds import load_thresholds
from bestiary.errors import SpecError


def find_settings_violations(catalog: Catalog, *, known: Set[str]) -> list[Violation]:
    """Everything wrong with the banks, generators, recipes, rosters and thresholds.

    `known` are the ids that have a file, whether or not the file is sound: a roster that names
    a broken behavior is not to blame.
    """
    found: list[Violation] = []
    for path in _list_files():
        try:
            found += _check_file(path, catalog, known)
        except Violations as broken:
            found += broken.found
        except SpecError as error:
            problem, remedy = error.parts
            found.append(Violation(path=path, line=1, field="file", problem=problem, remedy=remedy))
    return found


def _list_files() -> Iterator[Path]:
    """Every settings file; a generator or thresholds file that is missing is listed as well."""
    yield from sorted((generator_folder() / "offline").glob("*.yaml"))
    for category in CORPUS_CATEGORIES:
        yield generator_folder() / category / "generator.yaml"
    yield generator_folder() / "grid.yaml"
    yield generator_folder() / "models.yaml"
    for kind in ("recipes", "rosters"):
        yield from sorted((organism_folder() / kind).glob("*.yaml"))
    yield organism_folder() / "thresholds.yaml"


def _check_file(path: Path, catalog: Catalog, known: Set[str]) -> list[Violation]:
    folder = path.parent.name
    if folder == "rosters":
        return list(_check_roster(path, catalog, known))
    if folder == "recipes":
        read_recipe(path)
    elif path.name == "thresholds.yaml":
        load_thresholds()
    elif folder == "offline":
        read_bank(path)
    elif path.name == "models.yaml":
        load_models()
    elif path.name == "grid.yaml":
        load_grid()
    else:
        load_model(path, Generator)
    return []


def _check_roster(path: Path, catalog: Catalog, known: Set[str]) -> Iterator[Violation]:
    """A roster names a recipe that exists, and can be built as it says."""
    source = parse_yaml(path)
    roster = validate(source, Roster)
    try:
        find_file(roster.recipe, organism_folder() / "recipes", "recipe")
    except SpecError as error:
        yield source.violation(("recipe",), *error.parts)
    for fault in find_roster_faults(roster, catalog, broken=known - set(catalog)):
        yield source.violation(*fault)
