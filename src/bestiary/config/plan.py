"""What a roster asks for, resolved against the catalog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass

from bestiary.config.behavior import Quirk
from bestiary.config.catalog import NULL_BEHAVIOR, Behavior, Catalog
from bestiary.config.detector import Detector, PatternDetector
from bestiary.config.recipe import Recipe, load_recipe
from bestiary.config.roster import Roster
from bestiary.config.source import FieldPath
from bestiary.config.thresholds import Thresholds, load_thresholds
from bestiary.errors import SpecError
from bestiary.records import OrganismIdentity
from bestiary.text import nearest


@dataclass(frozen=True)
class Plan:
    """What a roster asks for, resolved: one line an organism."""

    roster: Roster
    recipe: Recipe
    organisms: tuple[tuple[Behavior, OrganismIdentity], ...]
    watched: tuple[Detector, ...]
    """What a null organism must leave quiet."""
    thresholds: Thresholds

    @property
    def named(self) -> set[str]:
        """Ids of its behaviors, and of those that they refer to."""
        return {
            name
            for behavior, _ in self.organisms
            if behavior.carrier
            for name in (behavior.id, behavior.carrier.id, *(q.id for q, _ in behavior.distractors))
        }


def plan_roster(roster: Roster, catalog: Catalog) -> Plan:
    """Resolve a roster against the catalog; raises SpecError for what it cannot build."""
    faults = [f"{problem}; {remedy}" for _, problem, remedy in find_roster_faults(roster, catalog)]
    if faults:
        raise SpecError(f"roster {roster.name!r}: " + "\n".join(faults))
    organisms = [
        (catalog[entry.behavior], OrganismIdentity(behavior_id=entry.behavior, seed=seed))
        for entry in roster.organisms
        for seed in entry.seeds
    ]
    organisms += [
        (NULL_BEHAVIOR, OrganismIdentity(behavior_id=NULL_BEHAVIOR.id, seed=seed))
        for seed in range(roster.nulls)
    ]
    watched = {
        detector
        for behavior, _ in organisms
        for detector in behavior.detectors
        if isinstance(detector, PatternDetector)
    }
    return Plan(
        roster=roster,
        recipe=load_recipe(roster.recipe),
        organisms=tuple(organisms),
        watched=tuple(sorted(watched, key=repr)),
        thresholds=load_thresholds(),
    )


def find_roster_faults(
    roster: Roster, catalog: Catalog, *, broken: Set[str] = frozenset()
) -> Iterator[tuple[FieldPath, str, str]]:
    """Each field of a roster that cannot be built as it says, with the problem and its remedy.

    `broken` are ids whose own files are at fault: a roster that names them is not to blame.
    """
    for row, entry in enumerate(roster.organisms):
        field = ("organisms", row, "behavior")
        if entry.behavior not in catalog and entry.behavior not in broken:
            problem = f"unknown behavior {entry.behavior!r}"
            yield field, problem, nearest(entry.behavior, {*catalog, *broken})
        spec = catalog[entry.behavior].spec if entry.behavior in catalog else None
        if isinstance(spec, Quirk) and spec.pool == "distractor":
            problem = f"{spec.id!r} is a distractor, which is never an organism"
            yield field, problem, "take it off the roster, or move it to the organism pool"
    asked = Counter((e.behavior, seed) for e in roster.organisms for seed in e.seeds)
    for (name, seed), times in asked.items():
        if times > 1:
            problem = f"names {name!r} with seed {seed} {times} times"
            yield ("organisms",), problem, "give each a seed of its own"
    if any(entry.behavior not in catalog for entry in roster.organisms):
        return  # whose families are not known
    families = {catalog[entry.behavior].family for entry in roster.organisms}
    for family in sorted(set(roster.splits) - families - {NULL_BEHAVIOR.family}):
        problem = f"gives a split to {family!r}, a family that none of its organisms is of"
        yield ("splits", family), problem, nearest(family, families)
