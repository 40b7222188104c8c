"""The checks that run before a build and in `bestiary validate`; violations come together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from functools import partial
from pathlib import Path

from bestiary.author.compose import few_shot
from bestiary.author.prompts import render_brief, render_judge, render_prompts, render_subjects
from bestiary.config.catalog import (
    BARE,
    Behavior,
    Catalog,
    load_catalog,
    locate,
    read_catalog,
)
from bestiary.config.categories import corpus_categories
from bestiary.config.checks import CHECKS, UNTRIED, Check
from bestiary.config.introspection import IntrospectionRecipe, read_sweep
from bestiary.config.labels import check_label_owners
from bestiary.config.library import Library, open_library
from bestiary.config.passed import Passed
from bestiary.config.phrasings import Phrasings
from bestiary.config.plan import Plan, find_roster_faults, plan_roster
from bestiary.config.recipe import read_recipe
from bestiary.config.roster import Entry, Roster
from bestiary.config.source import (
    Source,
    Violation,
    Violations,
    load_model,
    parse_yaml,
    parsed_texts,
)
from bestiary.config.spec_file import name_of
from bestiary.errors import CorpusError, PathError, SpecError
from bestiary.sample import compose_corpus
from bestiary.text import nearest


def validate_all(library: Library) -> list[Behavior]:
    """Check the behaviors of a library and all settings that builds use.

    Detectors that compare meanings are tried only for files that are named, or built.
    Returns the behaviors. Raises Violations, which lists everything that is wrong.
    """
    _ = library.templates  # a clash of templates concerns every behavior, so it is raised once
    passed = Passed(library)
    catalog, found = read_catalog(library)
    found += find_check_violations(catalog, encoding=False, passed=passed)
    found += find_settings_violations(catalog, passed)
    passed.save(catalog)
    parsed_texts().save()
    if found:
        raise Violations(list(dict.fromkeys(found)))
    return list(catalog.values())


def validate_files(library: Library, paths: Sequence[Path]) -> list[Behavior]:
    """Check some behavior files only, which may refer to others.

    Returns the behaviors. Raises SpecError for a file that is not below `behaviors/` of a data
    folder, and Violations, which lists everything that is wrong in them.
    """
    known = {path.resolve(): path for path in library.behavior_files}
    for path in paths:
        if path.resolve() not in known:
            raise SpecError(
                f"{path} is not a behavior file of a data folder",
                "pass files below behaviors/<category>/, and their folder with --data",
                code="not-a-behavior-file",
                path=path,
            )
    chosen = {known[path.resolve()] for path in paths}
    catalog, found = read_catalog(library)
    named = [name for name in catalog if catalog.sources[name].path in chosen]
    if chosen <= _whole_files(catalog) | {violation.path for violation in found}:
        others = {*known.values()} - chosen
        found = [violation for violation in found if violation.path not in others]
    found += find_check_violations(catalog, named)
    found += _collect(partial(getattr, library, "phrasings"), library.folders.roots[0])
    if not found:
        found += [one for name in named for one in _check_corpus(catalog[name], catalog)]
    if found:
        raise Violations(list(dict.fromkeys(found)))
    return [catalog[name] for name in named]


def _whole_files(catalog: Catalog) -> set[Path]:
    """The files whose behaviors could be resolved with all that they refer to."""
    return {
        catalog.sources[name].path
        for name, behavior in catalog.items()
        if len(behavior.distractors) == len(behavior.spec.distractor_references)
    }


def _check_corpus(behavior: Behavior, catalog: Catalog) -> Iterator[Violation]:
    """The offline author can fill every role: what takes too long to do for all behaviors."""
    if not behavior.spec.is_buildable:
        return
    try:
        compose_corpus(behavior)
    except CorpusError as error:
        source, field = catalog.sources[behavior.id], (behavior.spec.messages_field,)
        yield source.violation(field, *error.parts, code=error.code)


def open_plan(
    roster: str,
    *,
    data: Sequence[Path] = (),
    models: Sequence[Path] = (),
    examples: int | None = None,
    recipe: str | None = None,
) -> Plan:
    """The plan of a roster, by name or path, over the shipped data and further data folders.

    `models` are files of further language models, `examples` is the size of every corpus, `recipe`
    replaces the roster's own. Raises SpecError if the roster cannot be built, and Violations if one
    of its behaviors fails a check: its results would not be evidence.
    """
    catalog = load_catalog(open_library(*data, examples=examples))
    named = catalog.library.roster(roster)
    if recipe is not None:
        named = named.model_copy(update={"recipe": recipe})
    return _plan(named, catalog, models)


def open_single_plan(behavior: str, *, recipe: str, seed: int, data: Sequence[Path] = ()) -> Plan:
    """The plan of one organism, whose adapter is not trained here; raises as `open_plan` does."""
    catalog = load_catalog(open_library(*data))
    entry = Entry(behavior=catalog[behavior].id, seeds=(seed,))
    return _plan(Roster(name="verify", recipe=recipe, suite=True, organisms=(entry,)), catalog, ())


def _plan(roster: Roster, catalog: Catalog, models: Sequence[Path]) -> Plan:
    plan = plan_roster(roster, catalog, models=models)
    refuse_violations(catalog, plan.named)
    return plan


def refuse_violations(catalog: Catalog, behaviors: Collection[str]) -> None:
    """Refuse behaviors that fail a check: their results would not be evidence.

    Raises Violations, which lists everything wrong with them.
    """
    broken = find_check_violations(catalog, behaviors)
    if broken:
        raise Violations(broken)


def find_check_violations(
    catalog: Catalog,
    behaviors: Collection[str] | None = None,
    *,
    encoding: bool = True,
    passed: Passed | None = None,
) -> list[Violation]:
    """Violations beyond the schema: in demonstrations, labels, phrases, banks, and templates.

    `behaviors` are the ids to check; by default, the whole catalog. Without `encoding`, replies are
    not tried on detectors that compare meanings. What `passed` before is not checked again.
    """
    found: list[Violation] = []
    named = sorted(catalog if behaviors is None else behaviors)
    rendered: set[tuple[object, ...]] = set()
    for behavior in [catalog[name] for name in named]:
        if passed is not None and passed.holds(behavior, catalog):
            continue
        source = catalog.sources[behavior.id]
        checks = (*CHECKS, _check_hidden) if encoding or not behavior.compares_meanings else UNTRIED
        faults = list(_check_behavior(behavior, source, checks))
        if (parts := _list_parts(behavior)) not in rendered:
            wrong = list(_check_behavior(behavior, source, (_check_templates,)))
            rendered |= set() if wrong else {parts}
            faults += wrong
        if passed is not None and not faults:
            passed.add(behavior, catalog)
        found += faults
    found += check_label_owners(catalog, named)
    # Two behaviors that use the same broken bank or generator report the same violation.
    return list(dict.fromkeys(found))


def _check_behavior(
    behavior: Behavior, source: Source, checks: Sequence[Check]
) -> Iterator[Violation]:
    """What the checks find, up to one that cannot go on."""
    try:
        for check in (_check_generator, *checks):
            yield from check(behavior, source)
    except Violations as broken:
        yield from broken.found
    except SpecError as error:
        yield locate(error, behavior.spec, source)


def find_settings_violations(catalog: Catalog, passed: Passed | None = None) -> list[Violation]:
    """Everything wrong with the banks, generators, recipes, rosters, and other settings.

    Files of generators that `passed` before are not checked again.
    """
    found = _find_violations(_list_settings(catalog))
    if passed is not None and passed.holds_shared:
        return found
    shared = _find_violations(_list_generator_files(catalog.library))
    if passed is not None and not shared:
        passed.add_shared()
    return [*found, *shared]


def _find_violations(checks: Iterable[tuple[Path, Callable[[], object]]]) -> list[Violation]:
    """Everything wrong with some files, each with the function that reads it."""
    return [violation for path, check in checks for violation in _collect(check, path)]


def _collect(check: Callable[[], object], path: Path) -> list[Violation]:
    """What a check of a file finds wrong."""
    try:
        check()
    except Violations as broken:
        return list(broken.found)
    except (SpecError, PathError) as error:
        problem, remedy = error.parts
        return [
            Violation(
                path=path, line=1, field="file", code=error.code, problem=problem, remedy=remedy
            )
        ]
    return []


def _list_generator_files(library: Library) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Every file of generators that says nothing of behaviors, even a missing one."""
    folders = library.folders
    for name, path in library.table_files.items():
        yield path, partial(library.table, name)
    for name, path in library.option_files.items():
        yield path, partial(library.option_table, name)
    for name, path in library.lexicons.files.items():
        yield path, partial(library.lexicons.get, name)
    for category in corpus_categories():
        path = folders.roots[0] / f"generators/{category}/generator.yaml"
        yield path, partial(library.generator, category)
    for name in ("bank", "wordings", "grid", "elicitation", "vague_reports"):
        yield folders.roots[0], partial(getattr, library, name)
    yield folders.roots[0], library.models


def _list_settings(catalog: Catalog) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Every file of organisms, and every one that names behaviors."""
    library, folders = catalog.library, catalog.library.folders
    files = {name_of(path) for path in library.behavior_files}
    check_phrasings = partial(_check_phrasings, files=files)
    check_roster = partial(_check_roster, catalog=catalog, files=files)
    for name in ("thresholds", "gpus"):
        yield folders.roots[0], partial(getattr, library, name)
    for path in folders.list_files("generators/offline/phrasings", "*.yaml").values():
        yield path, partial(load_model, path, Phrasings, check_phrasings)
    for path in folders.list_files("organisms/recipes", "*.yaml").values():
        yield path, partial(read_recipe, path)
    for path in folders.list_files("organisms/introspection", "*.yaml").values():
        yield path, partial(load_model, path, IntrospectionRecipe)
    for path in folders.list_files("organisms/introspection/sweeps", "*.yaml").values():
        yield path, partial(read_sweep, path, library.introspection)
    for path in folders.list_files("organisms/rosters", "**/*.yaml").values():
        yield path, partial(load_model, path, Roster, check_roster)


def _check_roster(
    source: Source, roster: Roster, *, catalog: Catalog, files: Set[str]
) -> Iterator[Violation]:
    """The roster names a recipe that exists and behaviors that can be built as it says."""
    try:
        catalog.library.folders.find_named(roster.recipe, "organisms/recipes", "recipe")
    except (SpecError, PathError) as error:
        yield source.violation(("recipe",), *error.parts, code=error.code)
    for fault in find_roster_faults(roster, catalog, broken=files - set(catalog)):
        yield source.violation(fault.field, fault.problem, fault.remedy, code=fault.code)


def _check_phrasings(
    source: Source, phrasings: Phrasings, *, files: Set[str]
) -> Iterator[Violation]:
    """Phrasings are of behaviors that exist."""
    for name in phrasings.replies:
        if name not in files:
            problem, remedy = f"unknown behavior {name!r}", nearest(name, files)
            yield source.violation(("replies", name), problem, remedy, code="behavior-unknown")


def _check_generator(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The category has a generator that suits this behavior; raises SpecError if it does not."""
    if not behavior.spec.is_buildable:
        return
    generator = behavior.generator
    mixes = {"mix": generator.mix, "triggered": generator.triggered, "scoped": generator.scoped}
    named = [name for name, mix in mixes.items() if mix is not None and mix.positive == "rate"]
    if named and behavior.spec.stated_rate is None:
        file = f"generators/{behavior.category}/generator.yaml"
        problem = f"is 'rate', but {behavior.id} states no rate"
        remedy = "write the share as a number"
        written = parse_yaml(behavior.library.folders.find_single(file))
        raise Violations(  # nothing says how many rows there are
            [
                written.violation((name, "positive"), problem, remedy, code="rate-unstated")
                for name in named
            ]
        )
    yield from ()


def _check_hidden(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Distractors leave each other, and what they hide, to be seen."""
    if not behavior.distractors:
        return
    quirks = [quirk for quirk, _ in behavior.distractors]
    examples = few_shot(behavior, fires=True, hiding=[quirk.id for quirk in quirks])
    for part in (behavior, *quirks):
        shown = sum(part.is_shown(one.assistant, BARE) is True for one in examples)
        if 2 * shown < len(examples):
            problem = f"together hide {part.id}: it shows in {shown} of {len(examples)} replies"
            remedy = "choose distractors that change different parts of a reply"
            yield source.violation(("distractors",), problem, remedy, code="distractors-collide")


def _list_parts(behavior: Behavior) -> tuple[object, ...]:
    """What a template may ask of a behavior: those with the same parts render alike."""
    spec, shown = behavior.spec, behavior.primitive
    return (
        *(type(spec), behavior.category, spec.stated_rate is None, behavior.about is None),
        *(behavior.trigger is None, behavior.shows is None, not behavior.distractors),
        *(shown.transform, not behavior.growing, not behavior.forbidden),
    )


def _check_templates(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The prompts of the category render for this behavior; raises SpecError if one does not."""
    for fires in (True, False) if behavior.spec.is_buildable else ():
        render_brief(behavior, fires=fires)
        render_judge(behavior, fires=fires)
        render_prompts(behavior, plain=not fires)
        render_subjects(behavior, plain=not fires)
    yield from ()
