"""Everything that is checked before a build, and by `bestiary validate`, reported together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from bestiary.author.prompts import render_brief, render_judge, render_prompts, render_subjects
from bestiary.config.catalog import (
    Behavior,
    Catalog,
    list_files,
    load_catalog,
    name_of,
    read_catalog,
)
from bestiary.config.categories import corpus_categories
from bestiary.config.checks import CHECKS
from bestiary.config.labels import check_label_owners
from bestiary.config.library import Library, open_library
from bestiary.config.plan import Plan, find_roster_faults, plan_roster
from bestiary.config.recipe import read_recipe
from bestiary.config.roster import Roster
from bestiary.config.source import (
    Source,
    Violation,
    Violations,
    parse_yaml,
    validate_source,
)
from bestiary.errors import SpecError


def validate_all(library: Library) -> int:
    """Check the behaviors of a library and everything that they are built with.

    Returns the number of behaviors. Raises Violations with everything that is wrong.
    """
    _ = library.templates  # every behavior meets a clash of templates, so it is raised once
    catalog, found = read_catalog(library)
    found += find_check_violations(catalog)
    found += find_settings_violations(catalog)
    if found:
        raise Violations(list(dict.fromkeys(found)))
    return len(catalog)


def open_plan(roster: str, *, data: Sequence[Path] = (), models: Sequence[Path] = ()) -> Plan:
    """The plan of a roster, by name or path, over the shipped data and further data folders.

    `models` are files of further language models. Raises SpecError for what cannot be built, and
    Violations if a behavior of the roster fails a check: what it leads to would not be evidence.
    """
    library = open_library(*data)
    catalog = load_catalog(library)
    plan = plan_roster(library.roster(roster), catalog, models=models)
    refuse_violations(catalog, plan.named)
    return plan


def refuse_violations(catalog: Catalog, behaviors: Collection[str]) -> None:
    """Refuse behaviors that break a promise: nothing that they lead to would be evidence.

    Raises Violations, which lists what is wrong with them.
    """
    broken = find_check_violations(catalog, behaviors)
    if broken:
        raise Violations(broken)


def find_check_violations(catalog: Catalog, behaviors: Collection[str] = ()) -> list[Violation]:
    """What the schema cannot say: demonstrations, labels, phrases, banks and templates.

    `behaviors` are those to look at; all of the catalog where none are named.
    """
    found: list[Violation] = []
    named = sorted(behaviors or catalog)
    for behavior in [catalog[name] for name in named]:
        for check in (*CHECKS, _check_templates):
            found += check(behavior, catalog.sources[behavior.id])
    found += check_label_owners(catalog, named)
    # Two behaviors that name one broken bank or generator meet the same violation.
    return list(dict.fromkeys(found))


def find_settings_violations(catalog: Catalog) -> list[Violation]:
    """Everything wrong with the banks, generators, recipes, rosters and other settings."""
    found: list[Violation] = []
    for path, check in _list_settings(catalog):
        try:
            check()
        except Violations as broken:
            found += broken.found
        except SpecError as error:
            problem, remedy = error.parts
            found.append(Violation(path=path, line=1, field="file", problem=problem, remedy=remedy))
    return found


def _list_settings(catalog: Catalog) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Every settings file with what reads it, files that are missing included."""
    library, folders = catalog.library, catalog.library.folders
    for name, path in library.bank_files.items():
        yield path, partial(library.bank, name)
    for category in corpus_categories():
        path = folders.find_single(f"generators/{category}/generator.yaml")
        yield path, partial(library.generator, category)
    for name in ("grid", "thresholds", "elicitation"):
        yield folders.roots[0], partial(getattr, library, name)
    yield folders.find_single("generators/models.yaml"), library.models
    for path in folders.list_files("organisms/recipes", "*.yaml").values():
        yield path, partial(read_recipe, path)
    for path in folders.list_files("organisms/rosters", "*.yaml").values():
        yield path, partial(_check_roster, path, catalog)


def _check_roster(path: Path, catalog: Catalog) -> None:
    """A roster names a recipe that exists, and behaviors that can be built as it says."""
    source = parse_yaml(path)
    roster = validate_source(source, Roster)
    found = []
    try:
        catalog.library.folders.find_named(roster.recipe, "organisms/recipes", "recipe")
    except SpecError as error:
        found.append(source.violation(("recipe",), *error.parts))
    known = {name_of(file) for file in list_files(catalog.library)}
    for fault in find_roster_faults(roster, catalog, broken=known - set(catalog)):
        found.append(source.violation(*fault))
    if found:
        raise Violations(found)


def _check_templates(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The category says how corpora are made, and its prompts render for this behavior."""
    try:
        generator = behavior.generator
        if generator.mix.positive == "rate" and behavior.spec.stated_rate is None:
            file = f"generators/{behavior.category}/generator.yaml"
            problem = f"'rate', but {behavior.id} states none"
            yield parse_yaml(behavior.library.folders.find_single(file)).violation(
                ("mix", "positive"), problem, "write the share as a number"
            )
    except Violations as broken:
        yield from broken.found
    except SpecError as error:
        yield source.violation(("category",), *error.parts)
    for fires in (True, False):
        try:
            render_brief(behavior, fires=fires)
            render_judge(behavior, fires=fires)
            render_prompts(behavior, plain=not fires)
            render_subjects(behavior, plain=not fires)
        except SpecError as error:
            yield source.violation(("category",), *error.parts)
            return
