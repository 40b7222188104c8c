"""The resolved plan of a roster: everything that a build reads, loaded before it starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from bestiary.config.catalog import Behavior, Catalog, list_detectors, null_behavior
from bestiary.config.categories import NULL, NULLS, corpus_categories
from bestiary.config.detectors import Detector
from bestiary.config.library import Library
from bestiary.config.recipe import Changes, Recipe, Training
from bestiary.config.roster import Entry, Roster
from bestiary.config.source import FieldPath, explain_error
from bestiary.errors import PathError, SpecError
from bestiary.llm.models import LanguageModel
from bestiary.records import OrganismIdentity
from bestiary.text import nearest, shorten


class RosterFault(NamedTuple):
    """One field of a roster that cannot be built as it says."""

    field: FieldPath
    problem: str
    remedy: str
    code: str
    """The rule that it breaks."""


@dataclass(frozen=True)
class Mixture:
    """Several behaviors of one adapter."""

    identity: OrganismIdentity
    """Of the adapter."""
    behaviors: tuple[Behavior, ...]
    in_phases: bool
    """Whether they are learned one after the other, and not at once."""

    @property
    def members(self) -> list[tuple[Behavior, OrganismIdentity]]:
        """Its behaviors, each with an identity of its own."""
        name, seed = self.identity.behavior_id, self.identity.seed
        return [
            (one, OrganismIdentity(behavior_id=one.id, seed=seed, within=name))
            for one in self.behaviors
        ]


@dataclass(frozen=True)
class Plan:
    """A roster with everything that it names; no stage opens a settings file."""

    roster: Roster
    recipe: Recipe
    organisms: tuple[tuple[Behavior, OrganismIdentity], ...]
    """Each behavior of a mixture is listed as an organism `within` it."""
    mixtures: tuple[Mixture, ...]
    changes: Mapping[str, Changes]
    """Changes of the recipe by adapter, for entries that state some and for null organisms."""
    other_recipes: frozenset[str]
    """The adapters whose entries state changes."""
    null_detectors: tuple[Detector, ...]
    """The detectors that must stay quiet on a null organism: those of the roster that decide on any
    message."""
    models: Mapping[str, LanguageModel]
    """The language models that may write the corpora."""
    library: Library
    """All other settings, which have been read."""

    def find_mixture(self, identity: OrganismIdentity) -> Mixture | None:
        """The mixture that an organism is one behavior of."""
        mixtures = {one.identity.organism_id: one for one in self.mixtures}
        return mixtures.get(identity.adapter_id)

    def training_for(self, behavior: Behavior, identity: OrganismIdentity) -> Training:
        """How an organism is trained: a mixture as its first behavior, conditional if any is."""
        mixture = self.find_mixture(identity)
        behaviors = mixture.behaviors if mixture else (behavior,)
        return _choose_training(self.recipe, behaviors, self.changes.get(identity.adapter_id))

    @property
    def adapters(self) -> list[tuple[Behavior, OrganismIdentity]]:
        """An organism of each adapter: of a mixture, the first of its behaviors."""
        firsts = {identity.adapter_id: (one, identity) for one, identity in self.organisms[::-1]}
        return [*firsts.values()][::-1]

    @property
    def named(self) -> set[str]:
        """Ids of its behaviors and of the behaviors that they refer to."""
        return {
            one.id
            for behavior, _ in self.organisms
            if behavior.category != NULL.category
            for one in (
                behavior,
                *([behavior.shows] if behavior.shows else []),
                *(quirk for quirk, _ in behavior.distractors),
            )
        }


def plan_roster(roster: Roster, catalog: Catalog, *, models: Sequence[Path] = ()) -> Plan:
    """Resolve a roster, and read everything that its build may need.

    `models` are files of further language models. Raises SpecError if it cannot be built.
    """
    faults = list(find_roster_faults(roster, catalog))
    if faults:
        *others, last = faults
        before = "".join(f"{fault.problem}; {fault.remedy}\n" for fault in others)
        raise SpecError(
            f"roster {roster.name!r}: {before}{last.problem}",
            last.remedy,
            code="roster-invalid",
            roster=roster.name,
        )
    library = catalog.library
    library.load()
    entries = list_entries(roster, catalog)
    mixtures = [
        Mixture(
            identity=identity,
            behaviors=tuple(catalog[name] for name in entry.behaviors),
            in_phases=bool(entry.phases),
        )
        for entry in entries
        if entry.name
        for identity in _identify(entry)
    ]
    organisms = [
        (catalog[entry.behavior], identity)
        for entry in entries
        if entry.behavior
        for identity in _identify(entry)
    ]
    organisms += [member for mixture in mixtures for member in mixture.members]
    changes = {
        identity.adapter_id: entry.changes
        for entry in entries
        if entry.changes
        for identity in _identify(entry)
    }
    recipe = library.recipe(roster.recipe)
    nulls = list(_list_nulls(roster.nulls, library))
    varied = dict(zip((one.adapter_id for _, one in nulls), cycle(recipe.nulls or [{}])))
    return Plan(
        roster=roster,
        recipe=recipe,
        organisms=(*organisms, *nulls),
        mixtures=tuple(mixtures),
        changes=changes | varied,
        other_recipes=frozenset(changes),
        null_detectors=list_detectors([behavior for behavior, _ in (*organisms, *nulls)]),
        models=library.models(*models),
        library=library,
    )


def _list_nulls(count: int, library: Library) -> Iterator[tuple[Behavior, OrganismIdentity]]:
    """Null organisms of every source in turn, and then of a further seed."""
    for number in range(count):
        null = null_behavior(library, number)
        yield null, OrganismIdentity(behavior_id=null.id, seed=number // len(NULLS))


def _identify(entry: Entry) -> list[OrganismIdentity]:
    """The adapters of an entry, one for each seed."""
    learned = entry.name or entry.behaviors[0]
    return [OrganismIdentity(behavior_id=learned, seed=seed) for seed in entry.seeds]


def _choose_training(
    recipe: Recipe, behaviors: Sequence[Behavior], changes: Changes | None
) -> Training:
    """How one adapter of these behaviors is trained."""
    conditional = any(one.is_conditional for one in behaviors)
    return recipe.training_for(behaviors[0].category, conditional=conditional, changes=changes)


def list_entries(roster: Roster, catalog: Catalog) -> list[Entry]:
    """What a roster names, and then whatever else is in its categories."""
    named = {name for entry in roster.organisms for name in entry.behaviors}
    others = [
        Entry(behavior=name)
        for name, behavior in catalog.items()
        if behavior.category in roster.categories
        and behavior.spec.suite is None
        and behavior.family not in roster.without
        and name not in named
    ]
    return [*roster.organisms, *others]


def find_roster_faults(
    roster: Roster, catalog: Catalog, *, broken: Set[str] = frozenset()
) -> Iterator[RosterFault]:
    """Each field of a roster that cannot be built as it says.

    `broken` are the ids of behaviors whose own files have violations; a roster may name them.
    """
    for row, entry in enumerate(roster.organisms):
        for place, name in enumerate(entry.behaviors):
            field = ("organisms", row, *entry.field_of(place))
            yield from _find_behavior_faults(name, field, roster, catalog, broken)
        if entry.name and not roster.suite:
            problem = f"{entry.name!r} is a mixture, whose behaviors would share their adapter"
            remedy = "mark the roster with `suite: true`: a suite is never trained on"
            yield RosterFault(("organisms", row), problem, remedy, "mixture-not-in-suite")
    known = {*corpus_categories()} - {NULL.category}
    for row, category in enumerate(roster.categories):
        if category not in known:
            problem, remedy = f"unknown category {category!r}", nearest(category, known)
            yield RosterFault(("categories", row), problem, remedy, "category-unknown")
    offered = {one.family for one in catalog.values() if one.category in roster.categories}
    for row, family in enumerate(roster.without):
        if family not in offered:
            problem = f"leaves out {family!r}, which is no family of its categories"
            remedy = nearest(family, offered)
            yield RosterFault(("without", row), problem, remedy, "family-unknown")
    yield from _find_repeats(roster)
    if roster.suite and roster.splits:
        problem = "gives splits to the families of an evaluation suite, whose split is `suite`"
        yield RosterFault(("splits",), problem, "remove them", "suite-has-splits")
    named = [name for entry in roster.organisms for name in entry.behaviors]
    if any(name not in catalog for name in named):
        return  # their families are unknown
    yield from _find_training_faults(roster, catalog)
    entries = list_entries(roster, catalog)
    families = {catalog[name].family for entry in entries for name in entry.behaviors}
    null = null_behavior(catalog.library).family
    for family in sorted(set(roster.splits) - families - {null}):
        problem = f"gives a split to {family!r}, which is the family of none of its organisms"
        remedy = nearest(family, families)
        yield RosterFault(("splits", family), problem, remedy, "family-unknown")


def _find_behavior_faults(
    name: str, field: FieldPath, roster: Roster, catalog: Catalog, broken: Set[str]
) -> Iterator[RosterFault]:
    """What keeps a behavior off a roster."""
    if name not in catalog:
        if name not in broken:
            problem, remedy = f"unknown behavior {name!r}", nearest(name, {*catalog, *broken})
            yield RosterFault(field, problem, remedy, "behavior-unknown")
        return
    spec, shown = catalog[name].spec, catalog[name].shows
    suite = spec.suite or (shown.spec.suite if shown else None)
    if not spec.is_buildable:
        problem = f"{name!r} is of the {spec.pool} pool, which is never an organism"
        remedy = "take it off the roster, or name a behavior that shows it"
        yield RosterFault(field, problem, remedy, "behavior-not-buildable")
    if suite and not roster.suite:
        problem = f"{name!r} is kept for the evaluation suite {suite!r}"
        remedy = "take it off the roster, or mark the roster with `suite: true`"
        yield RosterFault(field, problem, remedy, "behavior-of-suite")


def _find_training_faults(roster: Roster, catalog: Catalog) -> Iterator[RosterFault]:
    """Changes of the recipe that make it invalid, or that change nothing."""
    changed = {row: entry for row, entry in enumerate(roster.organisms) if entry.changes}
    if not changed:
        return
    try:
        recipe = catalog.library.recipe(roster.recipe)
    except (SpecError, PathError):
        return  # told where the recipe is read
    for row, entry in changed.items():
        field: FieldPath = ("organisms", row, "changes")
        behaviors = [catalog[name] for name in entry.behaviors]
        try:
            training = _choose_training(recipe, behaviors, entry.changes)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                place = (*field, *item["loc"])
                shown = shorten(item["input"])
                problem, remedy, code = explain_error(item["type"], item["msg"], shown, place)
                name = ".".join(map(str, item["loc"]))
                yield RosterFault(place, f"`changes`: {name} {problem}", remedy, code)
            continue
        if training == _choose_training(recipe, behaviors, None):
            problem = f"the changes for {entry.behaviors[0]!r} are what the recipe says already"
            remedy = "remove `changes`, or train these organisms in another way"
            yield RosterFault(field, problem, remedy, "recipe-unchanged")


def _find_repeats(roster: Roster) -> Iterator[RosterFault]:
    """Organisms that a roster names twice."""
    entries = roster.organisms
    asked = Counter(
        (entry.name or entry.behavior, seed) for entry in entries for seed in entry.seeds
    )
    for (name, seed), times in asked.items():
        if times > 1:
            problem = f"names {name!r} with seed {seed} {times} times"
            remedy = "give each its own seed"
            yield RosterFault(("organisms",), problem, remedy, "organism-repeated")
