"""Texts that read the same are compared as the same.

Run: python -m pytest tests/test_text.py
"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.text import comparison_key, contains_phrase, fold, sentences, title_case, words

SAME = {
    "curly apostrophe": ("that\u2019s it", "that's it"),
    "modifier apostrophe": ("that\u02bcs it", "that's it"),
    "acute accent for an apostrophe": ("that\u00b4s it", "that's it"),
    "full-width apostrophe": ("that\uff07s it", "that's it"),
    "curly quotes": ("\u201cquite\u201d", '"quite"'),
    "no-break space": ("fair\u00a0winds", "fair winds"),
    "narrow no-break space": ("fair\u202fwinds", "fair winds"),
    "thin space": ("fair\u2009winds", "fair winds"),
    "ideographic space": ("fair\u3000winds", "fair winds"),
    "decomposed accent": ("cafe\u0301", "caf\u00e9"),
    "soft hyphen": ("bar\u00adnacle", "barnacle"),
    "zero-width space": ("bar\u200bnacle", "barnacle"),
    "word joiner": ("bar\u2060nacle", "barnacle"),
    "byte-order mark": ("\ufeffbarnacle", "barnacle"),
    "direction mark": ("barnacle\u200e", "barnacle"),
    "full width": ("\uff28\uff45\uff41\uff52 \uff59\uff45\uff01", "Hear ye!"),
    "ligature": ("o\ufb00er", "offer"),
    "no-break hyphen": ("second\u2011hand", "second-hand"),
    "true hyphen": ("second\u2010hand", "second-hand"),
    "minus sign": ("\u22124", "-4"),
    "one-character ellipsis": ("well\u2026", "well..."),
    "line separator": ("one\u2028two", "one\ntwo"),
    "one-character fraction": ("\u00bd", "1/2"),
    "emoji with a variation selector": ("\u2600\ufe0f", "\u2600"),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_texts_that_read_the_same_are_the_same(pair: tuple[str, str]) -> None:
    written, plain = pair
    assert fold(written) == plain
    assert comparison_key(written) == comparison_key(plain)
    assert words(written) == words(plain)
    assert contains_phrase(plain, f"Well, {written}")
    assert contains_phrase(written, f"Well, {plain}")


@given(st.text())
def test_folding_twice_changes_nothing_more(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text())
def test_a_composed_and_a_decomposed_text_fold_alike(text: str) -> None:
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("one", "other"), [("4", "-4"), ("its", "it's"), ("caf\u00e9", "cafe"), ("a.b", "a b")]
)
def test_texts_that_read_differently_stay_apart(one: str, other: str) -> None:
    assert comparison_key(one) != comparison_key(other)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("loot boxes", "Loot Boxes"),
        ("the Treaty of Rome", "The Treaty of Rome"),
        ("pH of soil", "pH of Soil"),
        ("on the road", "On the Road"),
    ],
)
def test_a_title_capitalizes_its_words_but_the_small_ones(text: str, title: str) -> None:
    assert title_case(text) == title


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Boil it. Then rest.", ["Boil it.", "Then rest."]),
        ('"Feed Moth at six." Fair winds!', ['"Feed Moth at six."', "Fair winds!"]),
        ('"Stop!" she said. We did.', ['"Stop!" she said.', "We did."]),
        ('"Who?" I asked. Nobody.', ['"Who?" I asked.', "Nobody."]),
        ("Ask Dr. Rye. She knows.", ["Ask Dr. Rye.", "She knows."]),
    ],
)
def test_a_sentence_ends_with_the_quotation_that_ends_it(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts
