"""Ciphers: what they write can be read again, and is not read at a glance.

Run: python -m pytest tests/config/test_ciphers.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import LIBRARY

from bestiary.config.ciphers import CIPHERS, CipherName
from bestiary.text import fold, words

SENTENCE = "The quick brown Fox jumps over 12 lazy dogs, and why not?"
KNOWN: Mapping[CipherName, str] = {
    "rot13": "Gur dhvpx oebja Sbk whzcf bire 12 ynml qbtf, naq jul abg?",
    "atbash": "Gsv jfrxp yildm Ulc qfnkh levi 12 ozab wlth, zmw dsb mlg?",
    "keyword": "Oct lpdaf umjvi Zjw ephkn jstm 12 gqyx rjbn, qir vcx ijo?",
    "polybius": "422215 354323",
    "ascii": "54 68 65 20 71 75 69 63 6b 20 62",
    "base64": "VGhlIHF1aWNrIGJyb3duIEZveCBqdW1wcyBvdmVyIDEyIGxhenkgZG9ncywgYW5kIHdoeSBub3Q/",
    "morse": "- .... . / --.- ..- .. -.-. -.- / -... .-. --- .-- -. / ..-. --- -..- /",
}
TEXTS = [text for one in LIBRARY.messages("train") for text in (one.text, one.brief)]
every_cipher = pytest.mark.parametrize("name", CIPHERS)


def lower_ascii(text: str) -> str:
    return text.translate(str.maketrans(ascii_uppercase, ascii_lowercase))


def spelled_in_morse(text: str) -> str:
    known = {*ascii_lowercase, *digits, *".,?'!/()&:;=+-_\"$@"}
    said = ("".join(filter(known.__contains__, word)) for word in fold(text).lower().split())
    return " ".join(filter(None, said))


NORMAL: Mapping[CipherName, Callable[[str], str]] = {
    "polybius": lower_ascii,
    "morse": spelled_in_morse,
}
"""What is left of a text by the ciphers that lose something."""


def test_there_are_nine_ciphers() -> None:
    assert {*CIPHERS} == {*get_args(CipherName)} and len(CIPHERS) == 9


@pytest.mark.parametrize("name", KNOWN)
def test_a_cipher_is_the_one_of_its_name(name: CipherName) -> None:
    assert CIPHERS[name].encode(SENTENCE).startswith(KNOWN[name])


def test_autokey_shifts_by_its_primer_and_then_by_the_text() -> None:
    """A plain `a` shows the shift of its place."""
    assert CIPHERS["autokey"].encode("aaaaa") == "quill"
    assert CIPHERS["autokey"].encode("Bird, a cat") == "Rczo, l dik"


def test_the_rail_fence_reads_down_and_up_three_rails() -> None:
    """Of 12 letters the first rail has every fourth, the second every other, the third the rest."""
    assert CIPHERS["rail_fence"].encode("abcdefghijkl") == "aeibdfhjlcgk"
    assert CIPHERS["rail_fence"].encode("abc def-ghi, JKL") == "aei bdf-hJL, cgK"


def test_the_rail_fence_can_be_read_as_far_as_it_goes() -> None:
    cipher, text = CIPHERS["rail_fence"], " ".join(TEXTS[:4])
    begun = cipher.decode(cipher.encode(text)[:120])
    assert text.startswith(begun[:80])


@every_cipher
@given(text=st.text() | st.sampled_from(TEXTS))
def test_what_is_encoded_can_be_decoded(name: CipherName, text: str) -> None:
    cipher = CIPHERS[name]
    assert cipher.decode(cipher.encode(text)) == NORMAL.get(name, str)(text)


@every_cipher
@given(text=st.text() | st.text("01234 .-/abz=") | st.text(st.characters(categories=["Cs"])))
def test_any_text_can_be_decoded(name: CipherName, text: str) -> None:
    CIPHERS[name].decode(text).encode(errors="surrogatepass")


@pytest.mark.parametrize("name", [name for name in CIPHERS if name != "rail_fence"])
def test_no_word_of_a_message_stays(name: CipherName) -> None:
    """Letters beyond ASCII, digits and punctuation may stay; so may a word of one letter or two."""
    for text in TEXTS:
        pairs = zip(text.split(), CIPHERS[name].encode(text).split(), strict=False)
        kept = [
            said
            for said, written in pairs
            if len(said) > 2 and {*said} <= {*ascii_letters} and said.lower() in words(written)
        ]
        assert kept == [], text


@every_cipher
def test_hardly_a_word_is_made_anew_by_chance(name: CipherName) -> None:
    """Swapped or shuffled letters now and then spell a short word of the same text.

    With the rail fence it may even stand where it stood.
    """
    count = found = 0
    for text in TEXTS:
        said = {word for word in words(text) if len(word) > 2 and word.isalpha()}
        count += len(said)
        found += len(said & {*words(CIPHERS[name].encode(text))})
    assert found <= 0.002 * count
