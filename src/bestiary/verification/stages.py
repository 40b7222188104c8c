"""The stages of verification: plan probes, collect transcripts, judge them."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestiary.config.catalog import Behavior
from bestiary.config.detectors import VERSION as DETECTOR_VERSION
from bestiary.config.detectors import Detector
from bestiary.config.thresholds import Thresholds
from bestiary.model.adapter import ADAPTER
from bestiary.model.lazy import LazyBase
from bestiary.model.replies import BaseReplies
from bestiary.records import (
    Artifact,
    Decoding,
    Probe,
    Transcript,
    Verdict,
    canonical_json,
    fingerprint,
)
from bestiary.stage import Context, ItemStage, Made, OrganismItem, Stage
from bestiary.verification import transcripts as asking
from bestiary.verification import verdict as judging
from bestiary.verification.probes import plan_probes
from bestiary.verification.selection import needs_base
from bestiary.verification.transcripts import TranscriptItem

PROBES = "probes.json"
TRANSCRIPTS = "transcripts.json"
VERDICT = "verdict.json"


@dataclass(frozen=True)
class ProbeItem(OrganismItem):
    """An organism that is going to be probed."""

    behavior: Behavior


class ProbeStage(ItemStage[ProbeItem, tuple[Probe, ...]]):
    """Plans the held-out prompts first: the corpus must share nothing with them."""

    name = "probes"
    version = 3

    def key(self, item: ProbeItem) -> str:
        """Covers the behavior, its messages and the seed."""
        return fingerprint(
            behavior=item.behavior.sha256,
            messages=item.behavior.messages_sha256,
            seed=item.identity.seed,
            version=self.version,
        )

    def make(self, item: ProbeItem) -> Callable[[Path], None]:
        """Plan the probes; raises VerificationError if too few messages suit."""
        probes = plan_probes(item.behavior, seed=item.identity.seed)
        return lambda folder: _write(folder / PROBES, list(probes))

    def read(self, artifact: Artifact) -> tuple[Probe, ...]:
        """The probes of every cell."""
        return tuple(map(Probe.model_validate, _read(artifact.folder / PROBES)))


@dataclass(frozen=True)
class TranscriptStage(Stage[TranscriptItem, tuple[Transcript, ...]]):
    """Lets many organisms, and their base, answer their probes."""

    name = "transcript"
    version = asking.VERSION
    unit = "replies"
    distributed = True

    base: LazyBase
    system_prompt: str
    chunks: Mapping[str, tuple[str, ...]]
    """The messages that the base always answers together, by message."""

    def key(self, item: TranscriptItem) -> str:
        """Covers the adapter, the probes, the decoding, and what the base replies depend on.

        Which choices and questions count depends on what the detectors say of the base's replies.
        """
        decided = any(map(needs_base, item.probes))
        return fingerprint(
            organism=item.organism.sha256,
            probes=item.probes_sha256,
            detectors=(DETECTOR_VERSION, item.behavior.detector) if decided else (),
            decoding=item.decoding,
            base=BaseReplies.fingerprint_of(self.base.identity, self.system_prompt),
            version=self.version,
        )

    def inputs(self, item: TranscriptItem) -> Mapping[str, str]:
        """The adapter."""
        return {"organism": item.organism.sha256}

    def size(self, item: TranscriptItem) -> int:
        """Replies of the organism and of the base."""
        return asking.count_replies(item.probes)

    def affinity(self, item: TranscriptItem) -> Hashable:
        """Organisms whose adapters fit one bank are asked together."""
        return item.affinity

    def run(
        self, todo: Sequence[TranscriptItem], context: Context
    ) -> Iterator[Made[TranscriptItem]]:
        """Ask organisms side by side; each is finished when its last reply is there."""
        base = self.base.load()
        replies = BaseReplies(
            base.identity,
            self.base.load,
            context.store,
            system_prompt=self.system_prompt,
            chunks=self.chunks,
        )
        adapters = {
            item.item_id: context.store.folder("organism", item.organism.folder.name) / ADAPTER
            for item in todo
        }
        for result in asking.collect_transcripts(
            todo,
            base,
            replies,
            adapters=adapters,
            system_prompt=self.system_prompt,
            on_reply=context.reporter.advance,
        ):
            write = None if result.error else _write_transcripts(result.transcripts)
            yield Made(result.item, write, result.error, result.seconds)

    def read(self, artifact: Artifact) -> tuple[Transcript, ...]:
        """The transcripts of every probe that counts."""
        return tuple(map(Transcript.model_validate, _read(artifact.folder / TRANSCRIPTS)))


def _write_transcripts(transcripts: Sequence[Transcript]) -> Callable[[Path], None]:
    return lambda folder: _write(folder / TRANSCRIPTS, list(transcripts))


@dataclass(frozen=True)
class VerdictItem:
    """An organism's transcripts, read only if they have to be judged."""

    item_id: str
    behavior: Behavior
    transcripts_sha256: str
    decoding: Decoding
    load: Callable[[], tuple[Transcript, ...]]


@dataclass(frozen=True)
class VerdictStage(ItemStage[VerdictItem, Verdict]):
    """Judges transcripts against the thresholds."""

    name = "verdict"
    version = judging.VERSION

    thresholds: Thresholds
    null_detectors: tuple[Detector, ...]
    """What must stay quiet in a null organism."""

    def key(self, item: VerdictItem) -> str:
        """Covers the transcripts, what the behavior is detected by, and the thresholds."""
        return fingerprint(
            organism=item.item_id,
            transcripts=item.transcripts_sha256,
            behavior=item.behavior.sha256,
            detectors=item.behavior.spec.choose_detectors((), self.null_detectors),
            thresholds=self.thresholds,
            decoding=item.decoding,
            version=(self.version, DETECTOR_VERSION),
        )

    def inputs(self, item: VerdictItem) -> Mapping[str, str]:
        """The transcripts."""
        return {"transcripts": item.transcripts_sha256}

    def make(self, item: VerdictItem) -> Callable[[Path], None]:
        """Judge one organism."""
        verdict = judging.judge_organism(
            item.behavior,
            item.item_id,
            item.load(),
            self.thresholds,
            decoding=item.decoding,
            null_detectors=self.null_detectors,
        )
        return lambda folder: _write(folder / VERDICT, verdict)

    def read(self, artifact: Artifact) -> Verdict:
        """The verdict."""
        return Verdict.model_validate(_read(artifact.folder / VERDICT))


def _write(path: Path, value: object) -> None:
    path.write_bytes(canonical_json(value))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf8"))
