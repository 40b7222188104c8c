"""What is asked to report its behavior: the organisms of a release, and controls beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from bestiary.config.categories import NULL, NULLS
from bestiary.config.encoder import similarity
from bestiary.dataset.load import load_local
from bestiary.dataset.manifest import MANIFEST, read_manifest
from bestiary.dataset.pair import ReleasedOrganism
from bestiary.errors import ReleaseError
from bestiary.records import BaseIdentity, Split, sha256_file, stable_seed

SubjectKind = Literal["organism", "null", "zero_b", "gaussian", "shuffled"]
"""`zero_b` changes nothing; `gaussian` and `shuffled` are random adapters of a trained one's size.
Only evaluation has `shuffled`."""
TOGETHER = 32
"""Subjects that are asked together, in one bank; what they say is one artifact."""
HELD_OUT = {null.id for null in NULLS if null.held_out}
NEAR_LABEL = 0.9
"""The cosine from which two labels say nearly the same: no two families that a reader found apart
in docs/near-labels.md come to more than 0.86."""


@dataclass(frozen=True)
class Subject:
    """An adapter of the base that is asked what it learned."""

    id: str
    kind: SubjectKind
    split: Split
    adapter: Path
    """Its folder; of a made control, that of the organism it is modeled on."""
    organism_sha256: str | None
    """Hash of that folder's weights."""
    behavior_id: str = NULL.id
    family: str = NULL.category
    category: str = NULL.category
    mechanism: str = ""
    """The behavior's `kind`: how it works, such as `say_phrase`."""
    axes: tuple[str, ...] = ()
    labels: tuple[str, ...] = NULL.labels
    """What it ought to report, each in another wording."""
    held_out: bool = False
    """Whether it is for tests alone, in every fold."""
    siblings: tuple[str, ...] = ()
    """Families of the other behaviors of its adapter, if that is a mixture's."""
    strength: float = 1.0
    """A factor on all that its adapter adds."""

    @property
    def identity(self) -> tuple[str, SubjectKind, str | None, float]:
        """All that decides what it answers, for a key."""
        return self.id, self.kind, self.organism_sha256, self.strength

    @property
    def voice(self) -> object:
        """What it has in common with subjects that answer alike, those of its mixture."""
        made = self.kind in ("zero_b", "gaussian", "shuffled")
        return self.kind, self.id if made else self.organism_sha256, self.strength

    @property
    def is_control(self) -> bool:
        """Whether it has nothing to report."""
        return self.kind != "organism"

    @property
    def learned(self) -> str:
        """One name for all that its adapter has learned: its family, or the first of a mixture."""
        return min((self.family, *self.siblings))

    @property
    def seed(self) -> int:
        """Draws the weights of a made control."""
        return stable_seed("control", self.id)


@dataclass(frozen=True)
class Subjects:
    """The organisms and null organisms of a release, all on one base."""

    release: Path
    name: str
    sha256: str
    """Hash of the release's manifest, which lists every file."""
    base: BaseIdentity
    system_prompt: str
    members: tuple[Subject, ...]
    suite: str | None = None
    """The name of the evaluation suite among them."""


def load_subjects(release: Path) -> Subjects:
    """The subjects of a release on this machine.

    Raises ReleaseError if it is missing, damaged or incomplete, has no passing organism, or mixes
    bases or system prompts.
    """
    if (release / "manifest.json").is_file():  # its dataset folder was named
        release = release.parent
    pairs, controls = load_local(release)
    if not pairs:
        raise ReleaseError(
            f"{release} has no passing organism to learn from",
            "see why they failed, bestiary report, and build them again with another recipe",
            code="release-without-pairs",
            path=release,
        )
    released: list[ReleasedOrganism] = [*pairs, *controls]
    contexts = {(one.base.weights_sha256, one.system_prompt) for one in released}
    if len(contexts) > 1:
        raise ReleaseError(
            f"{release} holds organisms on {len(contexts)} bases or system prompts",
            "build organisms of one recipe into a release",
            code="release-mixed",
            path=release,
        )
    _check_families(pairs)
    members = tuple(_describe(one, _list_siblings(one, pairs)) for one in released)
    return Subjects(
        release=release,
        name=read_manifest(release / "dataset")["name"],
        sha256=sha256_file(release / MANIFEST),
        base=pairs[0].base,
        system_prompt=pairs[0].system_prompt,
        members=members,
    )


def add_suite(subjects: Subjects, suite: Subjects) -> Subjects:
    """The subjects with those of an evaluation suite beside them, which no fold trains on.

    Raises ReleaseError if the other release is no suite, is of another base or system prompt, or
    has what training sees: a family, or a label that is nearly one of its labels.
    """
    context = (subjects.base.weights_sha256, subjects.system_prompt)
    if (suite.base.weights_sha256, suite.system_prompt) != context:
        raise ReleaseError(
            f"{suite.release} is of another base or system prompt than {subjects.release}",
            "build both rosters with one recipe",
            code="suite-of-other-base",
            path=suite.release,
        )
    trained = [one for one in suite.members if one.split != "suite"]
    if trained:
        raise ReleaseError(
            f"{suite.release} is not an evaluation suite: {trained[0].id} is in the split "
            f"{trained[0].split!r}",
            "name the release of a roster with `suite: true`",
            code="not-a-suite",
            path=suite.release,
        )
    _refuse_known(subjects, suite)
    # Rosters share their nulls, whose weights are padded otherwise in each.
    known = {one.id for one in subjects.members if one.is_control}
    members = [one for one in suite.members if one.id not in known]
    return replace(subjects, members=(*subjects.members, *members), suite=suite.name)


def _refuse_known(subjects: Subjects, suite: Subjects) -> None:
    """Refuse a suite with a behavior that the other organisms show, too."""
    trained = [one for one in subjects.members if not one.is_control]
    families = {one.family for one in trained}
    labels = list(dict.fromkeys(label for one in trained for label in one.labels))
    for one in suite.members:
        if one.is_control:
            continue
        near = similarity(one.labels, labels)
        if one.family in families or near >= NEAR_LABEL:
            found = f"a label at a cosine of {near:.2f} to one of its own"
            raise ReleaseError(
                f"{one.id} is no evaluation of an adapter that is trained on {subjects.release}: "
                f"that has {'its family' if one.family in families else found}",
                "leave that behavior out of the suite, or out of the training roster",
                code="suite-known",
                organism_id=one.id,
                family=one.family,
            )


def _check_families(pairs: Sequence[ReleasedOrganism]) -> None:
    """A family seen in training is in no split of unseen families."""
    sides: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        if pair.split != "adapter_ood":  # apart by how they were trained, not by what
            sides[pair.family].add("train" if pair.split == "iid_test" else pair.split)
    for family, found in sorted(sides.items()):
        if len(found) > 1:
            raise ReleaseError(
                f"family {family!r} is in several splits: {', '.join(sorted(found))}",
                "assemble the release again; a family belongs to one split",
                code="family-in-several-splits",
                family=family,
            )


def _list_siblings(one: ReleasedOrganism, pairs: Sequence[ReleasedOrganism]) -> tuple[str, ...]:
    if one.mixture is None:
        return ()
    shared = [other for other in pairs if (other.mixture, other.seed) == (one.mixture, one.seed)]
    return tuple(sorted({other.family for other in shared} - {one.family}))


def _describe(one: ReleasedOrganism, siblings: tuple[str, ...]) -> Subject:
    assert one.organism is not None  # a release folder is checked with its organisms
    plain = Subject(
        id=one.organism_id,
        kind="null",
        split=one.split,
        adapter=one.organism,
        organism_sha256=one.organism_sha256,
        held_out=one.behavior_id in HELD_OUT,
    )
    if one.category == NULL.category:
        return plain
    return replace(
        plain,
        kind="organism",
        behavior_id=one.behavior_id,
        family=one.family,
        category=one.category,
        mechanism=one.kind,
        siblings=siblings,
        axes=one.axes,
        labels=(one.label, *one.paraphrases),
    )


def make_controls(
    models: Sequence[Subject], kind: SubjectKind, count: int, *, seed: int
) -> list[Subject]:
    """Control adapters of one kind, modeled on organisms in turn."""
    turns = islice(cycle(models), count)
    return [
        Subject(
            id=f"{kind}-{seed}-{number}",
            kind=kind,
            split=model.split,
            adapter=model.adapter,
            organism_sha256=model.organism_sha256,
            strength=model.strength,
        )
        for number, model in enumerate(turns)
    ]
