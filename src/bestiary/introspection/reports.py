"""Two stages: the reports that subjects give, and the likelihoods that they give to labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bestiary.introspection.framing import Framing, end_report
from bestiary.introspection.subjects import TOGETHER, Subject
from bestiary.records import Artifact, BaseIdentity, Decoding, canonical_json, fingerprint
from bestiary.stage import ItemStage

if TYPE_CHECKING:
    from bestiary.introspection.answering import Answering
    from bestiary.model.base import Base

REPORTS, SCORES = "reports.json", "scores.json"


@dataclass(frozen=True)
class Interview:
    """Subjects, and the introspection adapter with which they are asked."""

    item_id: str
    subjects: tuple[Subject, ...]
    adapter: Path | None
    """A peft directory; None asks the subjects by themselves."""
    adapter_sha256: str | None
    questions: tuple[str, ...]
    base: BaseIdentity
    system_prompt: str

    def divide(self) -> list[Interview]:
        """Parts of up to TOGETHER subjects: a run that is cut off loses no more than one part."""
        starts = range(0, len(self.subjects), TOGETHER)
        if len(starts) == 1:
            return [self]
        return [
            replace(
                self,
                item_id=f"{self.item_id}-{start + 1}",
                subjects=self.subjects[start : start + TOGETHER],
            )
            for start in starts
        ]

    def describe(self) -> dict[str, object]:
        """Everything that decides the answers, for a key."""
        return {
            "subjects": [one.identity for one in self.subjects],
            "adapter": self.adapter_sha256,
            "questions": self.questions,
            "base": (self.base.weights_sha256, self.base.chat_template_sha256),
            "system_prompt": self.system_prompt,
        }

    def open(self, base: Base) -> Answering:
        """The subjects with the adapter over them."""
        from bestiary.introspection.answering import Answering, load_shared

        shared = None if self.adapter is None else load_shared(self.adapter)
        return Answering(base, self.subjects, shared, system_prompt=self.system_prompt)


class Report(NamedTuple):
    """One answer of one subject to one question."""

    subject: int
    question: int
    text: str


@dataclass(frozen=True)
class ReportStage(ItemStage[Interview, list[Report]]):
    """Asks every subject every question."""

    name = "report"
    version = 2

    load_base: Callable[[], Base]
    decoding: Decoding
    draws: int = 1
    """Answers to each question; several differ only at a temperature above zero."""
    framing: Framing = "chat"

    def key(self, item: Interview) -> str:
        """Covers the subjects, the adapter, the questions, how they are put, and the decoding."""
        return fingerprint(
            **item.describe(),
            framing=self.framing,
            decoding=self.decoding,
            draws=self.draws,
            version=self.version,
        )

    def make(self, item: Interview) -> Callable[[Path], None]:
        """Ask."""
        asking = item.open(self.load_base())
        said = sorted(
            asking.ask(item.questions, self.decoding, draws=self.draws, framing=self.framing)
        )
        return partial(_write, REPORTS, said)

    def read(self, artifact: Artifact) -> list[Report]:
        """The reports, by subject and question."""
        rows = json.loads((artifact.folder / REPORTS).read_text(encoding="utf8"))
        return [Report(at, number, end_report(self.framing, text)) for at, number, text in rows]


@dataclass(frozen=True)
class LikelihoodStage(ItemStage[Interview, list[list[float]]]):
    """Asks every subject how likely it finds every label as the answer."""

    name = "likelihood"
    version = 2

    load_base: Callable[[], Base]
    labels: tuple[str, ...]

    def key(self, item: Interview) -> str:
        """Covers the subjects, the adapter, the questions and the labels."""
        return fingerprint(**item.describe(), labels=self.labels, version=self.version)

    def make(self, item: Interview) -> Callable[[Path], None]:
        """Score."""
        scores = item.open(self.load_base()).score(item.questions, self.labels)
        return partial(_write, SCORES, scores.tolist())

    def read(self, artifact: Artifact) -> list[list[float]]:
        """Mean log-probability of a label's tokens, in nats, by subject and label."""
        return _read_scores(artifact)


@dataclass(frozen=True)
class ReplyLikelihoodStage(ItemStage[Interview, list[list[float]]]):
    """Asks every subject how likely it finds some replies, for each subject its own."""

    name = "reply-likelihood"
    version = 2

    load_base: Callable[[], Base]
    pairs: tuple[tuple[tuple[str, str], ...], ...]
    """By subject, messages with their replies."""

    def key(self, item: Interview) -> str:
        """Covers the subjects, the adapter and the replies."""
        return fingerprint(**item.describe(), pairs=self.pairs, version=self.version)

    def make(self, item: Interview) -> Callable[[Path], None]:
        """Score."""
        scores = item.open(self.load_base()).score_pairs(self.pairs)
        return partial(_write, SCORES, scores)

    def read(self, artifact: Artifact) -> list[list[float]]:
        """Mean log-probability of a reply's tokens, in nats, by subject and pair."""
        return _read_scores(artifact)


def _read_scores(artifact: Artifact) -> list[list[float]]:
    scores: list[list[float]] = json.loads((artifact.folder / SCORES).read_text(encoding="utf8"))
    return scores


def _write(name: str, value: object, folder: Path) -> None:
    (folder / name).write_bytes(canonical_json(value))
