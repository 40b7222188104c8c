"""One sample release, written once for the tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.release.samples import make_entries, write_sample

from bestiary.records import Finding

FINDINGS = (
    Finding(check="canaries", subject="release", item="herald", reason="canary in a card"),
    Finding(
        check="near_duplicates",
        subject="corpus",
        item="quirks.sailor-transcripts-none-s1/positive-0009",
        reason="repeats another row",
    ),
)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    return write_sample(make_entries(folder / "store"), folder / "release", findings=FINDINGS)
