"""What a release is assembled from: one organism with its behavior, corpus, evidence and label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bestiary.config.catalog import Behavior
from bestiary.errors import ReleaseError
from bestiary.records import Corpus, Organism, Pair, Transcript, Verdict, sha256_bytes

Standing = Literal["pairs", "controls", "withheld"]


@dataclass(frozen=True)
class ReleaseEntry:
    """One organism of a release, whatever its verdict."""

    behavior: Behavior
    organism: Organism
    corpus: Corpus
    verdict: Verdict
    transcripts: tuple[Transcript, ...]
    pair: Pair | None
    """None where the organism is withheld, or is a null organism."""

    @property
    def organism_id(self) -> str:
        """Its name as a folder and as a key of every config."""
        return self.organism.identity.organism_id

    @property
    def standing(self) -> Standing:
        """The config that lists it."""
        passed = self.verdict.status == "passed"
        return self.behavior.spec.standing if passed else "withheld"

    @property
    def published(self) -> bool:
        """Whether its adapter is released: a withheld organism is described, not handed out."""
        return self.standing != "withheld"

    @property
    def organism_path(self) -> str:
        """Its folder in the model repository: peft's `subfolder`."""
        shard = sha256_bytes(self.organism_id.encode())[:2]
        return f"{shard}/{self.organism_id}"


def sort_entries(entries: Sequence[ReleaseEntry]) -> list[ReleaseEntry]:
    """Entries by organism id, each checked to be about one organism.

    Raises ReleaseError for an empty release, an organism named twice, records of different
    organisms in one entry, or a distractor that is published as an organism.
    """
    if not entries:
        raise ReleaseError("a release of no organisms; build some first: `bestiary build ROSTER`")
    repeated = [name for name, n in Counter(e.organism_id for e in entries).items() if n > 1]
    if repeated:
        raise ReleaseError(
            f"{sorted(repeated)[0]} stands twice in the release, and an organism id names one "
            "organism; give the second a seed of its own on the roster"
        )
    for entry in entries:
        _check_entry(entry)
    _check_distractors(entries)
    return sorted(entries, key=lambda entry: entry.organism_id)


def _check_entry(entry: ReleaseEntry) -> None:
    told = {
        "verdict": entry.verdict.organism_id == entry.organism_id,
        "behavior": entry.organism.identity.behavior_id == entry.behavior.id,
        "corpus": entry.corpus.behavior_id == entry.behavior.id,
        "pair": entry.pair is None
        or (entry.pair.organism == entry.organism and entry.pair.verdict == entry.verdict),
    }
    wrong = [name for name, right in told.items() if not right]
    if wrong:
        raise ReleaseError(
            f"{entry.organism_id}: its {' and '.join(wrong)} belongs to another organism; build "
            "the roster again, so that every record is of one organism"
        )
    if entry.verdict.status == "passed" and entry.pair is None and entry.standing == "pairs":
        raise ReleaseError(
            f"{entry.organism_id} passed but has no pair, and only what failed is withheld; make "
            "its pair with bestiary.pair.make_pair before the release"
        )


def _check_distractors(entries: Sequence[ReleaseEntry]) -> None:
    behaviors = {entry.behavior.id for entry in entries}
    for entry in entries:
        shown = sorted(behaviors & {quirk.id for quirk, _ in entry.behavior.distractors})
        if shown:
            raise ReleaseError(
                f"{shown[0]} is a distractor of {entry.organism_id} and an organism of its own; "
                "distractors are never organisms nor labels: take it off the roster"
            )
