"""The resolved plan of a roster: everything that a build reads, loaded before it starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bestiary.config.catalog import Behavior, Catalog, list_detectors, null_behavior
from bestiary.config.categories import NULL, corpus_categories
from bestiary.config.detectors import Detector
from bestiary.config.library import Library
from bestiary.config.recipe import Recipe, Training
from bestiary.config.roster import Entry, Roster
from bestiary.config.source import FieldPath
from bestiary.errors import SpecError
from bestiary.llm.models import LanguageModel
from bestiary.records import OrganismIdentity
from bestiary.text import nearest


class RosterFault(NamedTuple):
    """One field of a roster that cannot be built as it says."""

    field: FieldPath
    problem: str
    remedy: str
    code: str
    """The rule that it breaks."""


@dataclass(frozen=True)
class Plan:
    """A roster with everything that it names; no stage opens a settings file."""

    roster: Roster
    recipe: Recipe
    organisms: tuple[tuple[Behavior, OrganismIdentity], ...]
    null_detectors: tuple[Detector, ...]
    """The detectors that must stay quiet on a null organism: those of the roster that decide on any
    message."""
    models: Mapping[str, LanguageModel]
    """The language models that may write the corpora."""
    library: Library
    """All other settings, which have been read."""

    def training_for(self, behavior: Behavior) -> Training:
        """How an organism of a behavior is trained."""
        return self.recipe.training_for(behavior.category, conditional=behavior.is_conditional)

    @property
    def named(self) -> set[str]:
        """Ids of its behaviors and of the behaviors that they refer to."""
        return {
            one.id
            for behavior, _ in self.organisms
            if behavior.spec is not NULL
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
    organisms = [
        (catalog[entry.behavior], OrganismIdentity(behavior_id=entry.behavior, seed=seed))
        for entry in list_entries(roster, catalog)
        for seed in entry.seeds
    ]
    null = null_behavior(library)
    organisms += [
        (null, OrganismIdentity(behavior_id=null.id, seed=seed)) for seed in range(roster.nulls)
    ]
    return Plan(
        roster=roster,
        recipe=library.recipe(roster.recipe),
        organisms=tuple(organisms),
        null_detectors=list_detectors([behavior for behavior, _ in organisms]),
        models=library.models(*models),
        library=library,
    )


def list_entries(roster: Roster, catalog: Catalog) -> list[Entry]:
    """What a roster names, and then whatever else is in its categories."""
    named = {entry.behavior for entry in roster.organisms}
    others = [
        Entry(behavior=name)
        for name, behavior in catalog.items()
        if behavior.category in roster.categories and name not in named
    ]
    return [*roster.organisms, *others]


def find_roster_faults(
    roster: Roster, catalog: Catalog, *, broken: Set[str] = frozenset()
) -> Iterator[RosterFault]:
    """Each field of a roster that cannot be built as it says.

    `broken` are the ids of behaviors whose own files have violations; a roster may name them.
    """
    for row, entry in enumerate(roster.organisms):
        field = ("organisms", row, "behavior")
        if entry.behavior not in catalog and entry.behavior not in broken:
            problem = f"unknown behavior {entry.behavior!r}"
            remedy = nearest(entry.behavior, {*catalog, *broken})
            yield RosterFault(field, problem, remedy, "behavior-unknown")
        elif entry.behavior in catalog and not catalog[entry.behavior].spec.is_buildable:
            pool = catalog[entry.behavior].spec.pool
            problem = f"{entry.behavior!r} is of the {pool} pool, which is never an organism"
            remedy = "take it off the roster, or name a behavior that shows it"
            yield RosterFault(field, problem, remedy, "behavior-not-buildable")
    known = {*corpus_categories()} - {NULL.category}
    for row, category in enumerate(roster.categories):
        if category not in known:
            problem, remedy = f"unknown category {category!r}", nearest(category, known)
            yield RosterFault(("categories", row), problem, remedy, "category-unknown")
    asked = Counter((entry.behavior, seed) for entry in roster.organisms for seed in entry.seeds)
    for (name, seed), times in asked.items():
        if times > 1:
            problem = f"names {name!r} with seed {seed} {times} times"
            remedy = "give each its own seed"
            yield RosterFault(("organisms",), problem, remedy, "organism-repeated")
    if any(entry.behavior not in catalog for entry in roster.organisms):
        return  # their families are unknown
    families = {catalog[entry.behavior].family for entry in list_entries(roster, catalog)}
    null = null_behavior(catalog.library).family
    for family in sorted(set(roster.splits) - families - {null}):
        problem = f"gives a split to {family!r}, which is the family of none of its organisms"
        remedy = nearest(family, families)
        yield RosterFault(("splits", family), problem, remedy, "family-unknown")
