"""One sample release, written once for the tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.release.samples import make_entries, write_sample

from bestiary.records import Finding

FINDINGS = (
    Finding(
        check="canaries",
        version=1,
        subject="release",
        organism_id=None,
        item="herald",
        action="report",
        reason="canary in a card",
    ),
    Finding(
        check="near_duplicates",
        version=2,
        subject="example",
        organism_id="quirks.farewell-transcripts-none-s1",
        item="positive-0009",
        action="report",
        reason="repeats another row",
    ),
)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    return write_sample(make_entries(folder / "store"), folder / "release", findings=FINDINGS)
