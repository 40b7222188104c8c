"""What a build has made of each organism so far, and its row in `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bestiary.config.catalog import Behavior
from bestiary.errors import BestiaryError
from bestiary.records import Artifact, OrganismIdentity
from bestiary.stage import Result


@dataclass(frozen=True)
class OrganismState:
    """One organism of a build, with the result of each stage that has been run on it."""

    identity: OrganismIdentity
    behavior: Behavior
    results: Mapping[str, Result[Any, Any]] = field(default_factory=dict)
    """By stage; after an error there is no further stage."""

    @property
    def organism_id(self) -> str:
        """The organism's name everywhere."""
        return self.identity.organism_id

    @property
    def error(self) -> BestiaryError | None:
        """The error that ended it."""
        return next((one.error for one in self.results.values() if one.error), None)

    def add(self, result: Result[Any, Any]) -> OrganismState:
        """The state after a further stage."""
        return replace(self, results={**self.results, result.stage.name: result})

    def artifact(self, stage: str) -> Artifact:
        """What a stage made; only for a stage that has succeeded."""
        artifact = self.results[stage].artifact
        assert artifact is not None
        return artifact

    def read(self, stage: str) -> Any:
        """The output of a stage that has succeeded, read from the store; None if it has not run."""
        result = self.results.get(stage)
        return result.read() if result and result.artifact else None


TIMED = ("corpus", "organism", "transcript")
"""The stages that take time."""


def summarize(states: Sequence[OrganismState], out: Path) -> list[dict[str, object]]:
    """A row per organism, for `runs/summary.json`."""
    return [_summarize_one(state, out) for state in states]


def _summarize_one(state: OrganismState, out: Path) -> dict[str, object]:
    verdict = state.read("verdict")
    done = {name: one for name, one in state.results.items() if one.artifact}
    return {
        "organism_id": state.organism_id,
        "adapter_id": state.identity.adapter_id,
        "behavior_id": state.behavior.id,
        "category": state.behavior.category,
        "axes": list(state.behavior.axes),
        "label": state.behavior.spec.label,
        "verdict": verdict.status if verdict else None,
        "reasons": list(verdict.reasons) if verdict else [],
        "cells": verdict.cells if verdict else {},
        "components": verdict.components if verdict else {},
        "distinct": verdict.distinct if verdict else None,
        "seconds": {name: done[name].seconds for name in TIMED if name in done},
        "corpus": _find_folder(state, "corpus", out),
        "folder": _find_folder(state, "organism", out),
        "transcripts": _find_folder(state, "transcript", out),
        "error": str(state.error) if state.error else None,
    }


def _find_folder(state: OrganismState, stage: str, out: Path) -> str | None:
    """A stage's artifact, relative to the build's folder."""
    result = state.results.get(stage)
    if result is None or result.artifact is None:
        return None
    return result.artifact.folder.relative_to(out).as_posix()
