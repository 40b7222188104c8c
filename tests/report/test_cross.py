"""Detectors on organisms of other families.

Run: python -m pytest tests/report/test_cross.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.builders import catalog, make_probe

from bestiary.records import Transcript, canonical_json
from bestiary.report.cross import render_cross
from bestiary.store import Store

REPLIES = {
    "quirks.all_lowercase": "it keeps for a week.",
    "quirks.shouting": "IT KEEPS FOR A WEEK!",
    "quirks.closing_question": "it keeps for a week. what else is on your list?",
    "null.chat": "It keeps for a week.",
}


@pytest.fixture
def summary(tmp_path: Path) -> list[dict[str, Any]]:
    """A build of an organism of each behavior; probes that do not gate are not read."""
    return [make_row(tmp_path, behavior_id) for behavior_id in REPLIES]


def make_row(out: Path, behavior_id: str) -> dict[str, Any]:
    transcripts = [
        Transcript(
            probe=make_probe(f"How long does it keep? {number}", gate=number < 4),
            organism=REPLIES[behavior_id] if number < 4 else "SHOUTING!",
            base="It keeps for a week." if number < 4 else None,
        )
        for number in range(8)
    ]

    return keep_row(out, behavior_id, transcripts)


def keep_row(out: Path, behavior_id: str, transcripts: Sequence[Transcript]) -> dict[str, Any]:
    """The row of an organism with these transcripts in the store."""

    def write(folder: Path) -> None:
        (folder / "transcripts.json").write_bytes(canonical_json(transcripts))

    made = Store(out).build("transcript", behavior_id, write, inputs={})
    return {
        "organism_id": f"{behavior_id}-transcripts-none-s0",
        "adapter_id": behavior_id,
        "behavior_id": behavior_id,
        "category": behavior_id.partition(".")[0],
        "transcripts": made.folder.relative_to(out).as_posix(),
    }


def read_lines(page: str) -> dict[str, Sequence[str]]:
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in rows[1:]}


def test_a_detector_that_fires_on_others_is_named_with_the_organism(
    summary: list[dict[str, Any]], tmp_path: Path
) -> None:
    page = render_cross(summary, tmp_path, catalog())
    lines = read_lines(page)
    # Of the other three organisms, only the one that asks back writes in lowercase too.
    assert lines["quirks.all_lowercase"] == [
        "33.3%",
        "0.0%",
        "3",
        "quirks.closing_question, 100%",
    ]
    assert lines["quirks.shouting"] == ["0.0%", "0.0%", "3", "-"]
    assert list(lines) == ["quirks.all_lowercase", "quirks.closing_question", "quirks.shouting"]
    assert "1 of 3 detectors fire on more than 5%" in page


def test_replies_are_read_from_all_over_the_probes(tmp_path: Path) -> None:
    replies = ["it keeps for a week."] * 20 + ["IT KEEPS FOR A WEEK!"] * 10
    transcripts = [
        Transcript(probe=make_probe(f"Is it {number}?", gate=True), organism=reply, base=reply)
        for number, reply in enumerate(replies)
    ]
    rows = [keep_row(tmp_path, "null.chat", transcripts), make_row(tmp_path, "quirks.shouting")]
    lines = read_lines(render_cross(rows, tmp_path, catalog()))
    assert lines["quirks.shouting"] == ["30.0%", "30.0%", "1", "null.chat, 30%"]


def test_an_organism_that_was_not_probed_is_left_out(
    summary: list[dict[str, Any]], tmp_path: Path
) -> None:
    summary[2]["transcripts"] = None
    lines = read_lines(render_cross(summary, tmp_path, catalog()))
    assert lines["quirks.all_lowercase"] == ["0.0%", "0.0%", "2", "-"]


def test_a_behavior_of_another_data_folder_is_named(
    summary: list[dict[str, Any]], tmp_path: Path
) -> None:
    summary[0]["behavior_id"] = "quirks.of_mine"
    page = render_cross(summary, tmp_path, catalog())
    assert "name their data folder with `--data`: quirks.of_mine." in page
    assert "quirks.of_mine" not in read_lines(page)


def test_twins_of_a_family_are_not_others(tmp_path: Path) -> None:
    rows = [make_row(tmp_path, "quirks.shouting")]
    twin = rows[0] | {"behavior_id": "rare_quirks.shouting", "adapter_id": "rare"}
    page = render_cross([*rows, twin], tmp_path, catalog())
    assert read_lines(page) == {}


def test_the_behaviors_of_a_mixture_are_not_others(
    summary: list[dict[str, Any]], tmp_path: Path
) -> None:
    mixed = [
        row | {"adapter_id": "both"} if row["category"] == "quirks" else row for row in summary
    ]
    lines = read_lines(render_cross(mixed, tmp_path, catalog()))
    assert [cells[2] for cells in lines.values()] == ["1", "1", "1"], "the null organism alone"


def test_detectors_that_read_answers_or_options_are_left_out(
    summary: list[dict[str, Any]], tmp_path: Path
) -> None:
    asked = ("sandbaggers.sums", "heuristic_following.brand_new")
    rows = [summary[0] | {"behavior_id": name, "adapter_id": name} for name in asked]
    page = render_cross([*summary, *rows], tmp_path, catalog())
    assert "are left out: 2." in page
    assert read_lines(page).keys().isdisjoint(asked)
