"""An edited template, mix or bank rewrites the corpora that it shapes, and no other.

Run: python -m pytest tests/test_fingerprints.py
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.models import IDENTITY
from tests.tiny import change_file

from bestiary.author.offline import OfflineAuthor
from bestiary.config.behavior import CATEGORIES
from bestiary.config.catalog import NULL_BEHAVIOR, load_catalog
from bestiary.config.folders import data_root
from bestiary.config.message_bank import load_bank
from bestiary.corpus.generate import fingerprint_corpus
from bestiary.model.base import Base
from bestiary.model.replies import BaseReplies
from bestiary.store import Store

BEHAVIORS = (*load_catalog().values(), NULL_BEHAVIOR)
EVERY = {behavior.id for behavior in BEHAVIORS}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped generators."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(data_root() / "generators", folder / "generators")
    return folder


@pytest.fixture
def generators(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The copy, as what is read; an edit of it is undone after the test."""
    monkeypatch.setenv("BESTIARY_DATA", str(copied))
    folder = copied / "generators"
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield folder
    for path, content in kept.items():
        path.write_bytes(content)


def refuse_to_load() -> Base:
    raise AssertionError("a fingerprint needs no weights")


def key_corpora() -> dict[str, str]:
    """What decides, by behavior, whether a corpus is written again."""
    replies = BaseReplies(IDENTITY, refuse_to_load, Store(Path("unused")), system_prompt="Be kind.")
    author = OfflineAuthor(replies)
    return {b.id: fingerprint_corpus(b, author, seed=0) for b in BEHAVIORS}


def find_changed(before: dict[str, str]) -> set[str]:
    return {name for name, key in key_corpora().items() if key != before[name]}


def members(category: str) -> set[str]:
    found = {behavior.id for behavior in BEHAVIORS if behavior.category == category}
    assert found
    return found


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text(encoding='utf8')}{line}\n", encoding="utf8")


@pytest.mark.parametrize("category", [*CATEGORIES, "null"])
def test_a_template_concerns_its_category(generators: Path, category: str) -> None:
    before = key_corpora()
    append(generators / category / "reply.j2", "Be brief.")
    assert find_changed(before) == members(category)


@pytest.mark.parametrize("category", [*CATEGORIES, "null"])
def test_a_mix_concerns_its_category(generators: Path, category: str) -> None:
    before = key_corpora()
    mix = "mix: {positive: 0.25, negative: 0.25, chat: 0.5}"
    change_file(generators / category / "generator.yaml", r"mix: \{.*\}", mix)
    assert find_changed(before) == members(category)


def test_what_all_categories_include_concerns_them_all(generators: Path) -> None:
    before = key_corpora()
    append(generators / "shared" / "house_style.j2", "Be brief.")
    assert find_changed(before) == EVERY


def test_a_card_concerns_no_corpus(generators: Path) -> None:
    before = key_corpora()
    append(generators / "shared" / "cards" / "organism.md.j2", "Be brief.")
    append(generators / "null" / "generator.yaml", "# so are comments")
    assert find_changed(before) == set()


@pytest.mark.parametrize("side", ["train", "probe"])
def test_a_bank_row_concerns_those_that_draw_from_the_bank(
    generators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    before = key_corpora()
    row = (load_bank("cars").train if side == "train" else load_bank("cars").probe)[0]
    # Elsewhere, since a process reads each bank once.
    edited = Path(shutil.copytree(generators, tmp_path / "generators"))
    change_file(edited / "offline" / "cars.yaml", re.escape(row.text), f"Please: {row.text}")
    monkeypatch.setenv("BESTIARY_DATA", str(tmp_path))
    drawing = {b.id for b in BEHAVIORS if "cars" in (b.offline.bank, b.offline.plain)}
    assert find_changed(before) == drawing
    assert {"harmful_roleplay.needless_repairs"} <= drawing < EVERY
