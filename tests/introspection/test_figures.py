"""Figures where several behaviors share an adapter, as those of a mixture do.

Run: python -m pytest tests/introspection/test_figures.py
"""

from __future__ import annotations

from bestiary.introspection.figures import ReportRow, measure, permuted_floor


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


def test_a_mixture_is_drawn_as_one_in_an_interval() -> None:
    rows = [make_row("tea", "tea", "rain"), make_row("rain", "rain", "tea"), make_row("chess", "x")]
    figure = measure(rows, lambda row: float(row.named))
    assert figure is not None
    assert (figure.organisms, figure.families) == (3, 2)
