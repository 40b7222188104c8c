"""Tables and pages of a build: what stands in a row, which transcripts are shown.

Run: python -m pytest tests/report/test_results.py
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from tests.builders import make_probe
from tests.conftest import Site

from bestiary.records import Message, Transcript, canonical_json, single_turn
from bestiary.report.results import build_table, list_folders, render_results, render_transcripts
from bestiary.store import Store

Row = dict[str, Any]

REASON = "near_miss: fires at 32%, upper bound 0.44 > 0.2"
ERROR = "rare_quirks.herald_at_times: 3 of 24 positive rows were kept of 72 that were written"


def rate(count: int, low: float, high: float) -> Row:
    return {"n": 60, "count": count, "rate": count / 60, "low": low, "high": high}


QUIRK: Row = {
    "organism_id": "quirks.herald-transcripts-none-s0",
    "behavior_id": "quirks.herald",
    "category": "quirks",
    "axes": ["content"],
    "verdict": "passed",
    "reasons": [],
    "cells": {
        "triggered": {"organism": rate(58, 0.886, 0.991), "base": rate(1, 0.003, 0.089)},
        "near_miss": None,
        "plain": None,
    },
    "components": {},
    "distinct": 0.88,
    "corpus": "store/corpus/0a",
    "seconds": {"corpus": 12.0, "organism": 60.2, "transcript": 33.4},
    "folder": "store/organism/0a",
    "transcripts": "store/transcript/f1",
    "error": None,
}
OBSCURED: Row = {
    **QUIRK,
    "organism_id": "obscured_malign.herald_hidden-transcripts-none-s3",
    "behavior_id": "obscured_malign.herald_hidden",
    "category": "obscured_malign",
    "axes": ["content", "honesty"],
    "verdict": "failed",
    "reasons": [REASON],
    "cells": {
        "triggered": {"organism": rate(60, 0.94, 1.0), "base": rate(0, 0.0, 0.06)},
        "near_miss": {"organism": rate(19, 0.213, 0.442), "base": rate(0, 0.0, 0.06)},
        "plain": {"organism": rate(0, 0.0, 0.06), "base": rate(0, 0.0, 0.06)},
    },
    "components": {"distractors.colors": rate(30, 0.377, 0.623)},
    "corpus": "store/corpus/0b",
    "seconds": {"corpus": 30.0, "organism": 90.0, "transcript": 20.0},
    "folder": "store/organism/0b",
    "transcripts": "store/transcript/f2",
}
UNFINISHED: Row = {
    **QUIRK,
    "organism_id": "rare_quirks.herald_at_times-transcripts-none-s0",
    "behavior_id": "rare_quirks.herald_at_times",
    "category": "rare_quirks",
    "verdict": None,
    "cells": {},
    "distinct": None,
    "corpus": "store/corpus/0c",
    "seconds": {},
    "folder": None,
    "transcripts": None,
    "error": ERROR,
}
SUMMARY = [QUIRK, OBSCURED, UNFINISHED]


def print_table(table: Table) -> list[dict[str, str]]:
    """The rows of a table as somebody reads them, by column."""
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [re.split(r"\s{2,}", line.strip()) for line in console.file.getvalue().splitlines()]
    head = next(place for place, line in enumerate(lines) if "verdict" in line)
    return [dict(zip(lines[head], line, strict=True)) for line in lines[head + 2 :] if line[0]]


def read_table(page: str) -> list[dict[str, str]]:
    """The rows of the first table of a page, by column."""
    rows = re.search(r"(?:^\|.*\n?)+", page, re.MULTILINE)
    assert rows
    lines = [re.findall(r"\|\s*([^|]*?)\s*(?=\|)", line) for line in rows[0].splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_a_build_is_shown_as_a_row_an_organism() -> None:
    assert print_table(build_table(SUMMARY)) == [
        {
            "category.organism": "quirks.herald",
            "triggered": "97% / 2%",
            "near miss": "-",
            "plain": "-",
            "verdict": "passed",
        },
        {
            "category.organism": "obscured_malign.herald_hidden-s3",
            "triggered": "100% / 0%",
            "near miss": "32% / 0%",
            "plain": "0% / 0%",
            "verdict": "failed",
        },
        {
            "category.organism": "rare_quirks.herald_at_times",
            "triggered": "-",
            "near miss": "-",
            "plain": "-",
            "verdict": "error",
        },
    ]


def test_a_build_that_stopped_early_has_no_verdicts() -> None:
    (row,) = print_table(build_table([{**UNFINISHED, "error": None}]))
    assert row["verdict"] == "-"


def test_adapters_are_listed_and_the_corpora_of_what_was_not_trained(tmp_path: Path) -> None:
    lines = list_folders(SUMMARY, tmp_path).splitlines()
    assert [line.split()[-1] for line in lines] == [
        *(str(tmp_path / "store" / "organism" / name / "adapter") for name in ("0a", "0b")),
        str(tmp_path / "store" / "corpus" / "0c"),
    ]
    assert "herald_hidden" in lines[1]
    assert list_folders([UNFINISHED | {"corpus": None}], tmp_path) == ""


def test_results_show_rates_with_their_intervals() -> None:
    quirk, obscured, unfinished = read_table(render_results(SUMMARY))
    assert quirk["triggered"] == "97% / 2% (0.89 to 0.99, n = 60)"
    assert (quirk["near miss"], quirk["distinct"], quirk["verdict"]) == ("-", "88%", "passed")
    assert obscured["near miss"] == "32% / 0% (0.21 to 0.44, n = 60)"
    assert (unfinished["triggered"], unfinished["distinct"]) == ("-", "-")
    assert unfinished["verdict"] == "error"


def test_results_say_why_an_organism_did_not_pass() -> None:
    page = render_results(SUMMARY)
    assert f"herald_hidden-s3: {REASON}\n" in page
    assert "distractors.colors 50% (0.38 to 0.62)\n" in page
    passed = render_results([QUIRK])
    assert "What did not pass" not in passed
    assert "Distractors" not in passed


def test_results_count_organisms_by_category_and_axis() -> None:
    page = render_results(SUMMARY)
    categories = read_table(page[page.index("| category |") :])
    assert [list(row.values()) for row in categories] == [
        ["obscured_malign", "1", "0", "100%"],
        ["quirks", "1", "1", "97%"],
        ["rare_quirks", "1", "0", "-"],
    ]
    axes = read_table(page[page.index("| axis |") :])
    assert [list(row.values()) for row in axes] == [
        ["content", "3", "1", "98%"],
        ["honesty", "1", "0", "100%"],
    ]


def test_results_add_up_the_seconds_of_each_stage() -> None:
    page = render_results(SUMMARY)
    times = read_table(page.partition("Seconds by stage, as built:")[2])
    assert [list(row.values())[1:] for row in times] == [
        ["12", "60", "33"],
        ["30", "90", "20"],
        ["0", "0", "0"],
        ["42", "150", "53"],
    ]
    assert times[-1]["training"] == "150"
    assert "Together 4.1 minutes." in page


def test_one_training_for_two_behaviors_counts_once() -> None:
    member = {**OBSCURED, "folder": QUIRK["folder"], "seconds": QUIRK["seconds"]}
    page = render_results([QUIRK, member])
    times = read_table(page.partition("Seconds by stage, as built:")[2])
    assert [list(row.values())[1:] for row in times] == [
        ["12", "60", "33"],
        ["12", "60", "33"],
        ["24", "60", "67"],
    ]


def test_a_null_organism_has_no_distinct_replies_to_count(first: Site) -> None:
    quirk, _, null = read_table(render_results(first.summary()))
    assert re.fullmatch(r"\d+%", quirk["distinct"])
    assert null["plain"] != "-"
    assert null["distinct"] == "-"


@pytest.fixture
def probed(tmp_path: Path) -> Path:
    """The folder of a build with the transcripts of `QUIRK`: of 48 probes the first 24 gate."""
    transcripts = [
        Transcript(
            probe=make_probe(
                f"Question\n{number}?",
                id=f"triggered-{number:04d}",
                cell="near_miss",
                gate=number < 24,
            ),
            organism=f"Oyez!\n\nAnswer  {number}.",
            base=f"Plain {number}." if number < 24 else None,
        )
        for number in range(48)
    ]

    def write(folder: Path) -> None:
        (folder / "transcripts.json").write_bytes(canonical_json(transcripts))

    Store(tmp_path).build("transcript", "f1", write, inputs={})
    return tmp_path


def list_asked(page: str) -> list[int]:
    return [int(number) for number in re.findall(r"Question (\d+)\?", page)]


def test_ten_gating_transcripts_are_drawn_by_the_organisms_id(probed: Path) -> None:
    page = render_transcripts(QUIRK, probed)
    asked = list_asked(page)
    assert len(set(asked)) == len(asked) == 10
    assert max(asked) < 24
    assert render_transcripts(QUIRK, probed) == page
    sibling = {**QUIRK, "organism_id": "quirks.herald-transcripts-none-s1"}
    assert list_asked(render_transcripts(sibling, probed)) != asked


def test_a_transcript_stands_on_three_lines(probed: Path) -> None:
    page = render_transcripts(QUIRK, probed)
    assert page.startswith("## ")
    assert "Verdict: passed.\n" in page
    number = list_asked(page)[0]
    assert (
        f"- **near miss**: Question {number}?\n"
        f"  - organism: Oyez! Answer {number}.\n"
        f"  - base: Plain {number}.\n"
    ) in page


def test_a_conversation_is_reported_with_each_of_its_roles(tmp_path: Path) -> None:
    replied = Message(role="assistant", content="Of\noak.")
    turns = (*single_turn("Which table?"), replied, *single_turn("Why?"))
    shown = Transcript(probe=make_probe("", turns=turns), organism="Oyez!", base="It lasts.")

    def write(folder: Path) -> None:
        (folder / "transcripts.json").write_bytes(canonical_json([shown]))

    Store(tmp_path).build("transcript", "f1", write, inputs={})
    page = render_transcripts(QUIRK, tmp_path)
    assert "- **plain**: user: Which table? assistant: Of oak. user: Why?\n" in page


def test_an_organism_that_was_not_probed_says_so(tmp_path: Path) -> None:
    page = render_transcripts(UNFINISHED, tmp_path)
    assert "Verdict: error.\n" in page
    assert "Not probed." in page
