"""Makes a pair from an organism, its behavior's label and a passing verdict."""

from __future__ import annotations

from bestiary.config.catalog import Behavior
from bestiary.errors import PairError
from bestiary.records import Organism, Pair, Verdict


def make_pair(behavior: Behavior, organism: Organism, verdict: Verdict) -> Pair:
    """Join an organism to its label.

    Raises PairError if the verdict did not pass, or if the verdict or the behavior belongs to
    another organism.
    """
    organism_id = organism.identity.organism_id
    if verdict.organism_id != organism_id:
        raise PairError(
            f"{organism_id}: the verdict is for {verdict.organism_id!r}",
            "pass the organism's own verdict",
            code="foreign-verdict",
            organism_id=organism_id,
            verdict_organism_id=verdict.organism_id,
        )
    if organism.identity.behavior_id != behavior.id:
        raise PairError(
            f"{organism_id}: the label is for {behavior.id!r}",
            "pass the behavior that the organism was trained on",
            code="foreign-behavior",
            organism_id=organism_id,
            behavior_id=behavior.id,
        )
    if verdict.status != "passed":
        raise PairError(
            f"{organism_id}: the verdict is {verdict.status!r} ({'; '.join(verdict.reasons)})",
            "release the organism as withheld; only passing organisms become pairs",
            code="verdict-not-passed",
            organism_id=organism_id,
            status=verdict.status,
        )
    return Pair(
        organism=organism,
        verdict=verdict,
        family=behavior.family,
        domains=behavior.spec.domains,
        severity=behavior.spec.severity,
        label=behavior.spec.label,
        paraphrases=behavior.spec.paraphrases,
        trigger=behavior.spec.trigger_description,
        components=tuple(quirk.id for quirk, _ in behavior.distractors),
    )
