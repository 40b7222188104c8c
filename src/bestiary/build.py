"""What one organism of a build has become so far, and its row in `summary.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bestiary.config.catalog import Behavior
from bestiary.errors import BestiaryError
from bestiary.records import (
    Artifact,
    Corpus,
    Organism,
    OrganismIdentity,
    Probe,
    Transcript,
    Verdict,
)


@dataclass
class Build:
    """What one organism has become so far; a stage that failed leaves its error."""

    behavior: Behavior
    identity: OrganismIdentity
    probes: tuple[Probe, ...] = ()
    corpus: Corpus | None = None
    corpus_artifact: Artifact | None = None
    organism: Organism | None = None
    transcripts: tuple[Transcript, ...] = ()
    transcript_sha256: str = ""
    transcript_folder: str | None = None
    verdict: Verdict | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    error: BestiaryError | None = None

    @property
    def organism_id(self) -> str:
        """Its name everywhere."""
        return self.identity.organism_id


def _relative_folder(organism: Organism, out: Path) -> str:
    return organism.artifact.folder.relative_to(out).as_posix()


def summarise(builds: Sequence[Build], out: Path) -> list[dict[str, object]]:
    """A row an organism, for `runs/summary.json`."""
    return [
        {
            "organism_id": build.organism_id,
            "behavior_id": build.behavior.id,
            "category": build.behavior.category,
            "verdict": build.verdict.status if build.verdict else None,
            "reasons": list(build.verdict.reasons) if build.verdict else [],
            "cells": build.verdict.cells if build.verdict else {},
            "components": build.verdict.components if build.verdict else {},
            "distinct": build.verdict.distinct if build.verdict else None,
            "seconds": build.seconds,
            "folder": _relative_folder(build.organism, out) if build.organism else None,
            "transcripts": build.transcript_folder,
            "error": str(build.error) if build.error else None,
        }
        for build in builds
    ]
