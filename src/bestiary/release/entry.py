"""What a release is assembled from: one organism with its behavior, corpus and evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bestiary.config.catalog import Behavior
from bestiary.config.recipe import Training
from bestiary.dataset.pair import locate_organism, name_adapter
from bestiary.errors import ReleaseError
from bestiary.records import Corpus, Organism, Transcript, Verdict

Standing = Literal["pairs", "controls", "withheld"]


@dataclass(frozen=True)
class ReleaseEntry:
    """One organism of a release, whatever its verdict.

    The corpus and the transcripts are loaded when the organism is written and then let go.
    """

    behavior: Behavior
    organism: Organism
    verdict: Verdict
    transcripts_sha256: str
    """Hash of the artifact that holds the transcripts."""
    load_corpus: Callable[[], Corpus]
    load_transcripts: Callable[[], tuple[Transcript, ...]]
    training: Training
    other_recipe: bool = False
    """Whether its roster trains it in another way than the recipe says."""

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
    def split_key(self) -> str:
        """What its split hangs on: its family, or for a null organism its id."""
        return self.behavior.spec.split_key(self.organism_id, self.behavior.family)

    @property
    def published(self) -> bool:
        """Whether its adapter is released; a withheld organism is only described."""
        return self.standing != "withheld"

    @property
    def organism_path(self) -> str:
        """Its folder in the model repository: peft's `subfolder`."""
        return locate_organism(self.organism_id)

    @property
    def adapter_name(self) -> str:
        """Its id as a name that torch accepts for a module."""
        return name_adapter(self.organism_id)


def sort_entries(entries: Sequence[ReleaseEntry]) -> list[ReleaseEntry]:
    """Entries by organism id, each checked to be about one organism.

    Raises ReleaseError for an empty release, an organism named twice, records of different
    organisms in one entry, or a distractor that is published as an organism.
    """
    if not entries:
        raise ReleaseError(
            "a release needs at least one organism, and there are none",
            "build some first: `bestiary build ROSTER`",
            code="release-empty",
        )
    for organism_id, count in sorted(Counter(entry.organism_id for entry in entries).items()):
        if count > 1:
            raise ReleaseError(
                f"{organism_id} is in the release {count} times",
                "give each organism of a behavior its own seed on the roster",
                code="organism-repeated",
                organism_id=organism_id,
                count=count,
            )
    for entry in entries:
        check_owner(entry, "verdict", entry.verdict.organism_id == entry.organism_id)
        same = entry.organism.identity.behavior_id == entry.behavior.id
        check_owner(entry, "behavior", same)
    _check_distractors(entries)
    return sorted(entries, key=lambda entry: entry.organism_id)


def check_owner(entry: ReleaseEntry, record: str, owned: bool) -> None:
    """Raise ReleaseError if a record of the entry belongs to another organism."""
    if not owned:
        raise ReleaseError(
            f"{entry.organism_id}: its {record} belongs to another organism",
            "build the roster again, so that every record is of one organism",
            code="entry-mixed",
            organism_id=entry.organism_id,
            record=record,
        )


def _check_distractors(entries: Sequence[ReleaseEntry]) -> None:
    behaviors = {entry.behavior.id for entry in entries}
    for entry in entries:
        shown = sorted(behaviors & {quirk.id for quirk, _ in entry.behavior.distractors})
        if shown:
            raise ReleaseError(
                f"{shown[0]} is a distractor of {entry.organism_id} and an organism of its own; "
                "distractors are never organisms nor labels",
                "take it off the roster",
                code="distractor-released",
                behavior_id=shown[0],
                organism_id=entry.organism_id,
            )
