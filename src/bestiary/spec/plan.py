"""What a roster asks for, resolved against the catalog and checked before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bestiary.errors import SpecError
from bestiary.records import OrganismIdentity
from bestiary.spec.behavior import Quirk
from bestiary.spec.catalog import NULL_BEHAVIOR, Behavior, Catalog
from bestiary.spec.detector import Detector, PatternDetector
from bestiary.spec.promises import find_broken_promises
from bestiary.spec.recipe import Recipe, load_recipe
from bestiary.spec.roster import Roster
from bestiary.spec.source import Violations, nearest
from bestiary.spec.thresholds import Thresholds, load_thresholds


@dataclass(frozen=True)
class Plan:
    """What a roster asks for, resolved: one line an organism."""

    roster: Roster
    recipe: Recipe
    organisms: tuple[tuple[Behavior, OrganismIdentity], ...]
    watched: tuple[Detector, ...]
    """What a null organism must leave quiet."""
    thresholds: Thresholds


def plan_roster(roster: Roster, catalog: Catalog) -> Plan:
    """Resolve a roster against the catalog; raises SpecError for what it cannot build."""
    recipe = load_recipe(roster.recipe)
    organisms: list[tuple[Behavior, OrganismIdentity]] = []
    for entry in roster.organisms:
        behavior = catalog[entry.behavior]
        if isinstance(behavior.spec, Quirk) and behavior.spec.pool == "distractor":
            raise SpecError(
                f"roster {roster.name!r}: {behavior.id!r} is a distractor, and distractors are "
                "never organisms; take it off the roster, or move it to the organism pool"
            )
        organisms += [
            (behavior, OrganismIdentity(behavior_id=behavior.id, seed=seed)) for seed in entry.seeds
        ]
    organisms += [
        (NULL_BEHAVIOR, OrganismIdentity(behavior_id=NULL_BEHAVIOR.id, seed=seed))
        for seed in range(roster.nulls)
    ]
    _refuse_repeated(roster, organisms)
    _refuse_strange_splits(roster, organisms)
    watched = {
        detector
        for behavior, _ in organisms
        for detector in behavior.detectors
        if isinstance(detector, PatternDetector)
    }
    return Plan(
        roster=roster,
        recipe=recipe,
        organisms=tuple(organisms),
        watched=tuple(sorted(watched, key=repr)),
        thresholds=load_thresholds(),
    )


def _refuse_repeated(
    roster: Roster, organisms: Sequence[tuple[Behavior, OrganismIdentity]]
) -> None:
    ids = [identity.organism_id for _, identity in organisms]
    repeated = next((name for name in ids if ids.count(name) > 1), None)
    if repeated:
        raise SpecError(
            f"roster {roster.name!r} names {repeated!r} twice; give the second another seed"
        )


def _refuse_strange_splits(
    roster: Roster, organisms: Sequence[tuple[Behavior, OrganismIdentity]]
) -> None:
    families = sorted({behavior.family for behavior, _ in organisms})
    strange = sorted(set(roster.splits) - set(families))
    if strange:
        raise SpecError(
            f"roster {roster.name!r} gives a split to {strange[0]!r}, a family that none of its "
            f"organisms is of; {nearest(strange[0], families)}"
        )


def check_promises(plan: Plan, catalog: Catalog) -> None:
    """Refuse a roster whose behaviors break a promise: nothing they lead to would be evidence.

    Raises Violations, which lists what is wrong with them and with what they refer to.
    """
    named = {
        name
        for behavior, _ in plan.organisms
        if behavior.carrier is not None
        for name in (behavior.id, behavior.carrier.id, *(q.id for q, _ in behavior.distractors))
    }
    broken = find_broken_promises(catalog, sorted(named))
    if broken:
        raise Violations(broken)
