"""Data folders of a test's own, for tests of the files that people edit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.config.files import FILES, write_behavior

from bestiary.config.folders import shipped_root

OTHERS = ("lexicons", "phrasings")


@pytest.fixture
def behaviors(tmp_path: Path) -> Path:
    """A folder with a sound behavior of each category."""
    for behavior_id, text in FILES.items():
        write_behavior(tmp_path / "behaviors", behavior_id, text)
    return tmp_path / "behaviors"


@pytest.fixture
def data(behaviors: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder around them, with the shipped generators, thresholds and GPUs to damage."""
    shutil.copytree(
        shipped_root() / "generators",
        behaviors.parent / "generators",
        # what other behaviors use
        ignore=lambda inside, names: names if Path(inside).name in OTHERS else (),
    )
    (behaviors.parent / "organisms").mkdir()
    for name in ("thresholds.yaml", "gpus.yaml"):
        shutil.copy(shipped_root() / "organisms" / name, behaviors.parent / "organisms")
    monkeypatch.setenv("BESTIARY_DATA", str(behaviors.parent))
    return behaviors.parent
