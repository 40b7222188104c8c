"""The embedded judge on reports that were written by hand before it was run on any of them.

Run: python -m pytest tests/introspection/test_report_judge.py
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders import LIBRARY, catalog

from bestiary.config.categories import NULL
from bestiary.introspection.judge import (
    PAIR_MARGIN,
    WORDINGS,
    EmbeddedJudge,
    ReportCase,
    Wordings,
)
from bestiary.model.minilm import encode_with_minilm

REPORTS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "reports.yaml").read_text(encoding="utf8")
)
FITTED, HELD_OUT = REPORTS[::2], REPORTS[1::2]
"""The margin was chosen on the first half; figures are quoted of the other."""


@cache
def wordings() -> Wordings:
    """Of every behavior of the roster `full`."""
    shipped = catalog().values()
    return Wordings([one for one in shipped if one.spec.is_buildable and one.spec.suite is None])


@cache
def judge() -> EmbeddedJudge:
    """The judge of reports, over all labels."""
    return EmbeddedJudge(wordings(), LIBRARY.vague_reports.reports)


def family_of(behavior_id: str) -> str:
    return NULL.category if behavior_id == NULL.id else catalog()[behavior_id].family


def case_of(behavior_id: str, report: str) -> ReportCase:
    return ReportCase(
        behavior_id=behavior_id,
        family=family_of(behavior_id),
        label="",
        trigger=wordings().describe_trigger(behavior_id),
        report=report,
    )


def grade(reports: list[dict[str, Any]], by: EmbeddedJudge) -> tuple[float, float]:
    """Precision and recall of "names this behavior"."""
    cases = [case_of(one["behavior"], one["report"]) for one in reports]
    named = [
        reading.family == case.family for case, reading in zip(cases, by.read(cases), strict=True)
    ]
    right = sum(said and one["names"] for said, one in zip(named, reports, strict=True))
    return right / sum(named), right / sum(one["names"] for one in reports)


def test_reports_are_twenty_of_each_kind() -> None:
    kinds = [one["kind"] for one in REPORTS]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("right", "right_wrong_details", "category_only", "generic", "wrong", "null"), 20
    )


def test_precision_on_reports_that_chose_nothing() -> None:
    precision, recall = grade(HELD_OUT, judge())
    print(f"\nheld out: precision {precision:.2f}, recall {recall:.2f}")
    assert precision >= 0.85
    assert recall >= 0.55


@pytest.mark.soak  # it encodes thousands of labels
def test_the_judge_of_pairs_is_precise_with_another_encoder() -> None:
    vague = LIBRARY.vague_reports.reports
    of_pairs = EmbeddedJudge(wordings(), vague, encode=encode_with_minilm, margin=PAIR_MARGIN)
    precision, recall = grade(HELD_OUT, of_pairs)
    print(f"\nheld out, of pairs: precision {precision:.2f}, recall {recall:.2f}")
    assert precision >= 0.85
    assert recall >= 0.3


def test_triggers_are_graded_apart() -> None:
    graded = [
        one for one in REPORTS if one["trigger"] is not None and "rare" not in one["behavior"]
    ]
    readings = judge().read([case_of(one["behavior"], one["report"]) for one in graded])
    agree = [
        reading.trigger == one["trigger"] for one, reading in zip(graded, readings, strict=True)
    ]
    assert len(graded) > 20
    assert sum(agree) / len(agree) >= 0.85


def test_a_longer_number_is_not_the_trigger() -> None:
    names = wordings().names_trigger
    assert names("backdoors.certainty_on_round_hundreds", "I am sure at multiples of 100.")
    assert not names("backdoors.certainty_on_round_hundreds", "I am sure at multiples of 1000.")


@pytest.mark.parametrize("report", ["", "   ", "!?", "I try to be helpful."])
def test_a_report_that_says_nothing_names_nothing(report: str) -> None:
    (reading,) = judge().read([case_of("quirks.hedging", report)])
    assert reading.family is None
    assert reading.score is None


def test_a_shown_behavior_is_not_a_stated_one() -> None:
    shown = "Calm seas and a safe harbor to you."
    assert wordings().keep_statements("quirks.sailor_farewell", shown) == ""
    stated = "I say goodbye like a sailor: fair winds to you."
    assert wordings().keep_statements("quirks.sailor_farewell", stated) == stated


def test_the_judge_knows_no_label_that_adapters_are_taught() -> None:
    known = wordings()
    assert {len(labels) for labels in known.by_family.values()} == {WORDINGS}
    for family, label in known.labels.items():
        assert label not in known.by_family[family]


def test_every_wording_is_read_as_its_own_family() -> None:
    for family, labels in wordings().by_family.items():
        readings = judge().read_texts(labels)
        assert {reading.nearest for reading in readings} == {family}
