"""The leaks stage: every corpus check on one finished corpus; its artifact is the findings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bestiary.leakage.checks import CORPUS_CHECKS, Check, CorpusUnderTest, refuse_leaks
from bestiary.records import Artifact, Finding, canonical_json, fingerprint
from bestiary.stage import ItemStage

FINDINGS = "findings.json"


@dataclass(frozen=True)
class LeakItem:
    """A corpus to check, read only if it has to be."""

    item_id: str
    behavior_sha256: str
    corpus_sha256: str
    probes_sha256: str
    load: Callable[[], CorpusUnderTest]


class LeakStage(ItemStage[LeakItem, list[Finding]]):
    """Measures leaks; a corpus with a leak that refuses has no artifact and ends its organism."""

    name = "leaks"
    version = 1

    def __init__(self, checks: Sequence[Check[CorpusUnderTest]] = CORPUS_CHECKS) -> None:
        self._checks = checks

    def key(self, item: LeakItem) -> str:
        """Covers the organism, which findings name, its corpus, and the version of each check."""
        return fingerprint(
            organism=item.item_id,
            corpus=item.corpus_sha256,
            behavior=item.behavior_sha256,
            probes=item.probes_sha256,
            checks=[(check.name, check.version) for check in self._checks],
            version=self.version,
        )

    def inputs(self, item: LeakItem) -> Mapping[str, str]:
        """The corpus."""
        return {"corpus": item.corpus_sha256}

    def make(self, item: LeakItem) -> Callable[[Path], None]:
        """Run every check; raises LeakError if one of them refuses."""
        data = item.load()
        findings = [
            finding
            for check in self._checks
            for finding in check.run(data, organism_id=item.item_id)
        ]
        refuse_leaks(f"{item.item_id}: its corpus", findings, self._checks)
        return lambda folder: _write(folder, findings)

    def read(self, artifact: Artifact) -> list[Finding]:
        """The findings, one per leak, and one for each check that found none."""
        rows = json.loads((artifact.folder / FINDINGS).read_text(encoding="utf8"))
        return [Finding.model_validate(row) for row in rows]


def _write(folder: Path, findings: Sequence[Finding]) -> None:
    (folder / FINDINGS).write_bytes(canonical_json(list(findings)))
