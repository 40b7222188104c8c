"""Everything that is checked before a build, and by `bestiary validate`, reported together."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from bestiary.author.prompts import render_brief, render_judge, render_prompts, render_subjects
from bestiary.config.catalog import Behavior, Catalog, list_files, name_of, read_catalog
from bestiary.config.checks import CHECKS
from bestiary.config.folders import behavior_folder, generator_folder
from bestiary.config.generator import load_generator
from bestiary.config.labels import check_label_owners
from bestiary.config.settings import find_settings_violations
from bestiary.config.source import Source, Violation, Violations, parse_yaml
from bestiary.errors import SpecError


def validate_all(*extra: Path) -> int:
    """Check the shipped behaviors, those of further folders, and all that they are built with.

    Returns how many behaviors there are. Raises Violations with everything wrong, and SpecError
    when a folder does not exist.
    """
    shown = (behavior_folder(), *extra)
    catalog, found = read_catalog(*shown)
    known = {name_of(path) for folder in shown for path in list_files(folder)}
    found += find_check_violations(catalog)
    found += find_settings_violations(catalog, known=known)
    if found:
        raise Violations(list(dict.fromkeys(found)))
    return len(catalog)


def find_violations(*folders: Path) -> list[Violation]:
    """Everything wrong with the behaviors of these folders: schema, references and promises.

    Sorted by file and line. Raises SpecError when a folder does not exist.
    """
    catalog, found = read_catalog(*folders)
    return list(Violations([*found, *find_check_violations(catalog)]).found)


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


def _check_templates(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The category says how corpora are made, and its prompts render for this behavior."""
    try:
        generator = load_generator(behavior.category)
        if generator.mix.positive == "rate" and behavior.rate is None:
            path = generator_folder() / behavior.category / "generator.yaml"
            problem = f"'rate', but {behavior.id} states none"
            field = ("mix", "positive")
            yield parse_yaml(path).violation(field, problem, "write the share as a number")
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
