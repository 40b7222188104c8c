"""Figures where several behaviors share an adapter, or several folds ask one organism.

Run: python -m pytest tests/introspection/test_figures.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bestiary.introspection.figures import (
    SHORTLIST,
    ReportRow,
    commonest_floor,
    constant_floor,
    highest_floor,
    measure,
    measure_gain,
    permuted_floor,
)
from bestiary.introspection.panel import make_panel
from bestiary.introspection.subjects import Subject


def make_row(family: str, claimed: str | None, *siblings: str) -> ReportRow:
    return ReportRow(
        fold=0,
        condition="adapter",
        scope="suite",
        subject=f"quirks.{family}",
        behavior_id=f"quirks.{family}",
        category="quirks",
        family=family,
        siblings=siblings,
        axes=("content",),
        control=False,
        question="q",
        report="",
        claimed=claimed,
        trigger=None,
    )


def test_another_behavior_of_the_same_adapter_is_neither_named_nor_unsupported() -> None:
    row = make_row("tea", "rain", "rain")
    assert (row.named, row.unsupported) == (False, False)
    assert make_row("tea", "rain").unsupported
    assert make_row("tea", "tea", "rain").named


def test_the_floor_is_what_other_adapters_say() -> None:
    mixture = [make_row("tea", "rain", "rain"), make_row("rain", "rain", "tea")]
    assert permuted_floor(mixture) is None, "there is no other adapter"
    other = [make_row("chess", claimed) for claimed in ("rain", "chess")]
    # Of the other adapter's two reports none names tea and one names rain; of the mixture's, none
    # names chess.
    assert permuted_floor([*mixture, *other]) == (0 + 1 / 2 + 0) / 3


def test_one_answer_for_everybody_and_the_commonest_family_are_floors_too() -> None:
    rows = [make_row("tea", "rain"), make_row("rain", "rain"), make_row("chess", None)]
    rows.append(make_row("tea", "null").model_copy(update={"subject": "quirks.tea-again"}))
    assert constant_floor(rows) == 1 / 4, "rain is claimed most often, and one of four has it"
    assert commonest_floor(rows) == 2 / 4
    assert constant_floor([make_row("tea", None)]) == 0
    assert highest_floor(rows) == 2 / 4
    assert highest_floor([make_row("tea", "tea")]) == 1, "of one family naming it is no feat"
    assert highest_floor([]) is None
    assert constant_floor([row.model_copy(update={"score": 8}) for row in rows]) is None


def test_a_mixture_is_drawn_as_one_in_an_interval() -> None:
    rows = [make_row("tea", "tea", "rain"), make_row("rain", "rain", "tea"), make_row("chess", "x")]
    figure = measure(rows, lambda row: float(row.named))
    assert figure is not None
    assert (figure.organisms, figure.families) == (3, 2)


def test_an_organism_that_every_fold_asks_counts_once() -> None:
    rows = [
        make_row("tea", claimed).model_copy(update={"fold": fold})
        for fold, claimed in enumerate(("tea", "rain", None, None))
    ]
    figure = measure([*rows, make_row("chess", "chess")], lambda row: float(row.named))
    assert figure is not None
    assert (figure.organisms, figure.value) == (2, (1 / 4 + 1) / 2)


def test_a_gain_is_that_of_each_organism_within_its_fold() -> None:
    with_adapter = [make_row("tea", "tea"), make_row("tea", None), make_row("rain", "rain")]
    guessed = [
        make_row(family, claimed).model_copy(update={"condition": "transcripts", "shows": shows})
        for family, claimed, shows in (
            ("tea", "tea", True),
            ("rain", None, False),
            ("chess", "chess", True),
        )
    ]
    gain = measure_gain(with_adapter, guessed)
    assert gain is not None
    assert (gain.value, gain.organisms) == ((-1 / 2 + 1) / 2, 2)
    judged = [row.model_copy(update={"score": 8}) for row in with_adapter]
    assert measure_gain(judged, guessed) is None, "different judges have read them"
    assert measure_gain(judged, [*guessed, judged[0]]) is not None
    elsewhere = [row.model_copy(update={"fold": 1}) for row in guessed]
    assert measure_gain(with_adapter, elsewhere) is None
    gains = make_panel([*with_adapter, *guessed], []).gains
    assert {(one.group, one.named.value) for one in gains} == {
        ("all", 1 / 4),
        ("shown", -1 / 2),
        ("silent", 1),
    }
    assert {(one.scope, one.baseline) for one in gains} == {("suite", "transcripts")}


def test_chance_is_unknown_where_not_every_claim_is() -> None:
    rows = [make_row("tea", "tea"), make_row("chess", "rain")]
    assert permuted_floor(rows) == 0
    assert permuted_floor([row.model_copy(update={"score": 8}) for row in rows]) is None
    assert permuted_floor([row.model_copy(update={"condition": SHORTLIST}) for row in rows]) is None


def test_labels_are_compared_among_those_that_differ() -> None:
    tea = make_subject("tea")
    again = replace(tea, id="quirks.tea-again")
    subjects = [tea, again, make_subject("bread"), make_subject("rain")]
    scores = [[0.0 if one == other else -1.0 for other in range(4)] for one in range(4)]
    for folds in (1, 3):
        (whole, _) = make_panel([], [(subjects, scores)] * folds).likelihood
        assert whole.labels == 3
        assert whole.top1 is not None
        assert (whole.top1.organisms, whole.top1.families) == (4, 3)


def make_subject(family: str) -> Subject:
    return Subject(
        id=f"quirks.{family}",
        kind="organism",
        split="test",
        adapter=Path(family),
        organism_sha256=None,
        family=family,
        category="quirks",
        labels=(f"I like {family}.",),
    )
