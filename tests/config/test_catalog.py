"""From files to resolved behaviors. Run: python -m pytest tests/config/test_catalog.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.files import (
    BACKDOOR,
    OBSCURED,
    QUIRK,
    check_violation,
    library_of,
    line_of,
    plant,
    write_behavior,
)
from tests.expect import expect_error

from bestiary.config.catalog import read_catalog
from bestiary.config.folders import DataFolders
from bestiary.config.library import Library, open_library
from bestiary.config.source import Violation
from bestiary.errors import SpecError


def faults(folder: Path) -> list[Violation]:
    """The violations that keep behaviors of a folder from being resolved."""
    return read_catalog(library_of(folder))[1]


def test_references_are_resolved(behaviors: Path) -> None:
    catalog, found = read_catalog(library_of(behaviors))
    assert found == []
    backdoor = catalog["backdoors.farewell_on_tuesday"]
    assert backdoor.family == catalog["quirks.farewell"].family == "farewell"
    assert backdoor.detectors == catalog["quirks.farewell"].detectors
    assert [shown.fires for shown in backdoor.demonstrations] == [True] * 8 + [False] * 2
    obscured = catalog["obscured_malign.upsell_in_colour"]
    assert [(quirk.id, rate) for quirk, rate in obscured.distractors] == [("quirks.colours", 0.3)]
    assert obscured.family == "upsell"


@pytest.mark.parametrize(
    "left", ["._farewell.yaml", ".ipynb_checkpoints/farewell-checkpoint.yaml", ".farewell.yaml.swp"]
)
def test_what_a_desktop_or_an_editor_left_is_no_behavior(tmp_path: Path, left: str) -> None:
    sound = write_behavior(tmp_path, QUIRK)
    foreign = sound.parent / left
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(b"\x00\x05\x16\x07 not YAML")
    catalog, found = read_catalog(library_of(tmp_path))
    assert (list(catalog), found) == (["quirks.farewell"], [])


def test_an_unknown_id_gets_its_nearest_match(tmp_path: Path) -> None:
    write_behavior(tmp_path, QUIRK)
    catalog, _ = read_catalog(library_of(tmp_path))
    with expect_error(SpecError, "behavior-unknown", behavior="quirks.farwell") as caught:
        catalog["quirks.farwell"]
    assert "quirks.farewell" in caught.error.remedy


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with expect_error(SpecError, "data-missing", path=tmp_path / "nowhere"):
        open_library(tmp_path / "nowhere")


def test_an_unknown_category_gets_its_nearest_match(tmp_path: Path) -> None:
    path = write_behavior(tmp_path, plant(QUIRK, "category: quirks", "category: quirk"))
    (found,) = faults(tmp_path)
    line = line_of(path, "category:")
    check_violation(
        found,
        "category-unknown",
        line=line,
        field="category",
        shows=["'quirk'", "'quirks'?", "backdoors, "],
    )


def test_a_missing_category_is_reported(tmp_path: Path) -> None:
    write_behavior(tmp_path, plant(QUIRK, "category: quirks\n", ""))
    (found,) = faults(tmp_path)
    check_violation(found, "key-missing", field="category", shows=["`category:`"])


def test_an_id_that_two_folders_use_is_refused(tmp_path: Path) -> None:
    first = write_behavior(tmp_path / "one" / "behaviors", QUIRK)
    second = write_behavior(tmp_path / "two" / "behaviors", QUIRK)
    library = Library(DataFolders((tmp_path / "one", tmp_path / "two")))
    (found,) = read_catalog(library)[1]
    shows = ["'quirks.farewell'", str(first)]
    check_violation(found, "id-taken", path=second, field="id", shows=shows)


def test_an_id_must_be_that_of_its_file(tmp_path: Path) -> None:
    path = write_behavior(tmp_path, QUIRK)
    path.rename(path.with_name("goodbye.yaml"))
    (found,) = faults(tmp_path)
    shows = ["quirks/goodbye.yaml", "'quirks.goodbye'"]
    check_violation(found, "id-mismatch", field="id", shows=shows)


@pytest.mark.parametrize("id", ["quirks.../../etc/passwd", "quirks/farewell", "quirks.a/b", "Q.A"])
def test_an_id_with_a_path_in_it_is_refused(tmp_path: Path, id: str) -> None:
    path = write_behavior(tmp_path, QUIRK)
    path.write_text(plant(QUIRK, "id: quirks.farewell", f"id: {id}"), encoding="utf8")
    (found,) = faults(tmp_path)
    check_violation(found, "value-invalid", line=2, field="id", shows=[id])


def test_an_unknown_reference_gets_its_nearest_match(tmp_path: Path) -> None:
    write_behavior(tmp_path, QUIRK)
    text = plant(BACKDOOR, "quirk: quirks.farewell", "quirk: quirks.farewel")
    path = write_behavior(tmp_path, text)
    (found,) = faults(tmp_path)
    line, shows = line_of(path, "quirk: "), ["'quirks.farewel'", "'quirks.farewell'?"]
    check_violation(found, "reference-unknown", path=path, line=line, field="quirk", shows=shows)


def test_a_distractor_must_come_from_its_pool_and_malign_be_malign(tmp_path: Path) -> None:
    write_behavior(tmp_path, QUIRK)
    text = plant(OBSCURED, "malign: quirks.upsell", "malign: quirks.farewell")
    write_behavior(tmp_path, plant(text, "quirk: quirks.colours", "quirk: quirks.farewell"))
    malign, distractor = faults(tmp_path)
    check_violation(malign, "reference-severity", field="malign", shows=["benign", "malign"])
    field = "distractors.0.quirk"
    check_violation(distractor, "reference-unknown", field=field, shows=["distractor pool"])


def test_an_unknown_key_is_named_without_the_tags_of_the_schema(tmp_path: Path) -> None:
    path = write_behavior(tmp_path, plant(QUIRK, "where: last_sentence", "were: last_sentence"))
    (found,) = faults(tmp_path)
    line = line_of(path, "were: ")
    shows = ["'last_sentence'"]
    check_violation(found, "key-unknown", line=line, field="detectors.0.were", shows=shows)


@pytest.mark.parametrize("place", ["farewell.yaml", "quirks/mine/farewell.yaml"])
def test_a_file_in_the_wrong_place_is_reported_and_not_ignored(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(QUIRK, encoding="utf8")
    (found,) = faults(tmp_path)
    check_violation(found, "id-mismatch", path=path, field="id", shows=["'quirks.farewell'"])
