"""Commands are tried on few behaviors, unless a test asks for others."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data(small_data: Path) -> Path:
    """The data folder of these tests."""
    return small_data
