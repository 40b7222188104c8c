"""What tests of models share: the folder of a tiny one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.models import make_random_base


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A tiny model saved as transformers saves one."""
    base = make_random_base()
    folder = tmp_path / "my-model"
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder
