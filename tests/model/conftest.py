"""What tests of models share: the folder of a tiny one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.models import make_random_base


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model saved as transformers saves one, for tests that change nothing in it."""
    base = make_random_base()
    folder = tmp_path_factory.mktemp("saved") / "my-model"
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def local(saved: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return shutil.copytree(saved, tmp_path / "my-model")
