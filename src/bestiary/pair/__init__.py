"""The only way to make a pair: an organism, its label, and a verdict that passed."""

from __future__ import annotations

from bestiary.config.catalog import Behavior
from bestiary.errors import PairError
from bestiary.records import Organism, Pair, Verdict


def make_pair(behavior: Behavior, organism: Organism, verdict: Verdict) -> Pair:
    """Join an organism to its label.

    Raises PairError when the verdict did not pass, or belongs to another organism or behavior.
    """
    organism_id = organism.identity.organism_id
    if verdict.organism_id != organism_id or organism.identity.behavior_id != behavior.id:
        raise PairError(
            f"{organism_id}: the verdict is for {verdict.organism_id!r} and the label for "
            f"{behavior.id!r}; a pair is made from one organism's own evidence"
        )
    if verdict.status != "passed":
        raise PairError(
            f"{organism_id}: the verdict is {verdict.status!r} ({'; '.join(verdict.reasons)}); "
            "only passing organisms become pairs, the others are released as withheld"
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
