"""A release is checked file by file against its manifest.

Run: python -m pytest tests/dataset/test_verify.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.expect import expect_error

from bestiary.dataset.verify import verify_release
from bestiary.errors import ReleaseError


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "copy"))


def test_an_undamaged_release_passes(copy: Path) -> None:
    verify_release(copy)


@pytest.mark.parametrize("name", ["dataset/pairs/train.parquet", "organisms/3c/{}/README.md"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    path = copy / name.format("quirks.farewell-transcripts-none-s0")
    path.unlink()
    with expect_error(ReleaseError, "file-missing", path=path):
        verify_release(copy)


def test_a_changed_byte_is_named(copy: Path) -> None:
    path = next(copy.glob("organisms/*/*/adapter_model.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with expect_error(ReleaseError, "file-damaged", path=path):
        verify_release(copy)


def test_an_unlisted_file_is_named(copy: Path) -> None:
    path = copy / "organisms" / "3c" / "extra.bin"
    path.write_bytes(b"\0")
    with expect_error(ReleaseError, "file-unlisted", path=path):
        verify_release(copy)


def test_files_of_the_hub_client_are_ignored(copy: Path) -> None:
    (copy / "dataset" / ".gitattributes").write_text("*.parquet filter=lfs\n")
    (copy / "dataset" / ".cache" / "huggingface").mkdir(parents=True)
    (copy / "dataset" / ".cache" / "huggingface" / "lock").write_text("")
    verify_release(copy)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "manifest-missing"),
        ("{", "manifest-damaged"),
        ('{"adapters": []}', "manifest-damaged"),
        ('{"files": {"a": 1}, "adapters": []}', "manifest-damaged"),
        ('{"files": {"../etc/passwd": "00"}, "adapters": []}', "file-outside"),
    ],
)
def test_a_broken_manifest_is_refused(copy: Path, text: str | None, code: str) -> None:
    path = copy / "dataset" / "manifest.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with expect_error(ReleaseError, code):
        verify_release(copy)
