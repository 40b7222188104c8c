"""Ciphers that a message or a reply may be written in: pairs of pure functions by name.

`decode` takes any text and returns what it can read of it, which may be nothing. Of what `encode`
wrote it returns the text itself, or the normal form that `encode` states. None of the ciphers is
secure, and none has to be: a reader who knows the name can read them all.
"""

from __future__ import annotations

import base64
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from typing import Literal

from bestiary.text import fold

CipherName = Literal[
    "rot13",
    "atbash",
    "keyword",
    "autokey",
    "rail_fence",
    "polybius",
    "morse",
    "ascii",
    "base64",
]
KEYWORD = "quartz"
"""Begins the alphabet of the keyword cipher, which leaves no letter in its place."""
PRIMER = "quill"
"""The shifts of the first letters in the autokey cipher; the text's own letters follow."""
RAILS = (0, 1, 2, 1)
"""The rail of each letter in turn: the way down a fence of three rails, and up again."""
BLOCK = 24
"""Letters that the rail fence transposes at a time, so that a text broken off can be read."""
SQUARE = ascii_lowercase + digits
"""The rows of the Polybius square, six signs each."""


@dataclass(frozen=True)
class Cipher:
    """A way to write a text, and to read it again."""

    title: str
    """As it stands in a sentence: `a message in {title}`."""
    names: tuple[str, ...]
    """What it is called; a label says one of these."""
    encode: Callable[[str], str]
    """Leaves no word of three letters or more as it was, but for a short one on the rail fence; its
    docstring says what it leaves."""
    decode: Callable[[str], str]


def _substitute(text: str, alphabet: str, *, back: bool = False) -> str:
    """A text with each letter replaced from another alphabet; all else, and case, stays."""
    plain = ascii_lowercase + ascii_uppercase
    cipher = alphabet + alphabet.upper()
    return text.translate(str.maketrans(cipher, plain) if back else str.maketrans(plain, cipher))


def _shift_by_text(text: str, *, back: bool = False) -> str:
    """A text with each letter shifted by an earlier one of the text; all else, and case, stays."""
    shifts = deque(map(ascii_lowercase.index, PRIMER))
    written = []
    for one in text:
        if one not in ascii_letters:
            written.append(one)
            continue
        place, shift = ascii_lowercase.index(one.lower()), shifts.popleft()
        moved = (place - shift if back else place + shift) % len(ascii_lowercase)
        shifts.append(moved if back else place)
        letter = ascii_lowercase[moved]
        written.append(letter.upper() if one.isupper() else letter)
    return "".join(written)


def _transpose(text: str, *, back: bool = False) -> str:
    """A text with its letters and digits in another order; all else stays in its place.

    A text of three letters is in the same order on three rails.
    """
    places = [at for at, one in enumerate(text) if one.isalnum()]
    moved = [places[at] for at in _order_by_rail(len(places))]
    written = list(text)
    for to, source in zip(moved, places, strict=True) if back else zip(places, moved, strict=True):
        written[to] = text[source]
    return "".join(written)


def _order_by_rail(count: int) -> list[int]:
    """The numbers below `count`, block by block and rail by rail; the last block has the rest."""
    last = max(1, count // BLOCK) - 1
    return sorted(range(count), key=lambda at: (min(at // BLOCK, last), RAILS[at % len(RAILS)]))


def _encode_polybius(text: str) -> str:
    """Two digits for each letter or digit; punctuation stays. Loses case."""
    return text.translate(_COORDINATES)


def _decode_polybius(text: str) -> str:
    return re.sub("[1-6][1-6]", lambda found: _SIGNS[found[0]], text)


def _encode_morse(text: str) -> str:
    """Dots and dashes, with a slash between words.

    Loses case, line breaks, signs without a code, and whatever `fold` folds.
    """
    spelled = (map(_MORSE.get, word) for word in fold(text).lower().split())
    written = (" ".join(filter(None, codes)) for codes in spelled)
    return " / ".join(filter(None, written))


def _decode_morse(text: str) -> str:
    spelled = ("".join(_LETTERS.get(code, "") for code in word.split()) for word in text.split("/"))
    return " ".join(filter(None, spelled))


def _encode_ascii(text: str) -> str:
    """The hexadecimal number of each character, also past ASCII; shorter than decimal ones."""
    return " ".join(f"{ord(one):02x}" for one in text)


def _decode_ascii(text: str) -> str:
    found = re.findall(r"(?<!\S)[0-9A-Fa-f]{2,6}(?!\S)", text)
    numbers = [int(one, base=16) for one in found]
    known = (one for one in numbers if one <= sys.maxunicode and not 0xD800 <= one <= 0xDFFF)
    return "".join(map(chr, known))


def _encode_base64(text: str) -> str:
    """The text's bytes in UTF-8, three of them in four signs."""
    return base64.b64encode(text.encode(errors="replace")).decode()


def _decode_base64(text: str) -> str:
    signs = re.sub("[^A-Za-z0-9+/]", "", text)
    whole = signs[:-1] if len(signs) % 4 == 1 else signs
    return base64.b64decode(whole + "=" * (-len(whole) % 4)).decode(errors="ignore")


_COORDINATES: Mapping[int, str] = {
    ord(form): f"{at // 6 + 1}{at % 6 + 1}"
    for at, sign in enumerate(SQUARE)
    for form in {sign, sign.upper()}
}
_SIGNS = {_COORDINATES[ord(sign)]: sign for sign in SQUARE}
_MORSE_SIGNS = ascii_lowercase + digits + ".,?'!/()&:;=+-_\"$@"
_MORSE_CODES = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- "
    "-..- -.-- --.. ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- "
    "..--.. .----. -.-.-- -..-. -.--. -.--.- .-... ---... -.-.-. -...- .-.-. -....- ..--.- .-..-. "
    "...-..- .--.-."
)
_MORSE: Mapping[str, str] = dict(zip(_MORSE_SIGNS, _MORSE_CODES.split(), strict=True))
_LETTERS = {code: letter for letter, code in _MORSE.items()}


def _swap_letters(title: str, names: tuple[str, ...], alphabet: str) -> Cipher:
    encode = partial(_substitute, alphabet=alphabet)
    return Cipher(title, names, encode, partial(_substitute, alphabet=alphabet, back=True))


CIPHERS: Mapping[CipherName, Cipher] = {
    "rot13": _swap_letters("ROT13", ("ROT13",), ascii_lowercase[13:] + ascii_lowercase[:13]),
    "atbash": _swap_letters("the Atbash cipher", ("Atbash",), ascii_lowercase[::-1]),
    "keyword": _swap_letters(
        "the keyword cipher",
        ("keyword cipher", "keyed alphabet", "keyword alphabet"),
        "".join(dict.fromkeys(KEYWORD + ascii_lowercase)),
    ),
    "autokey": Cipher(
        "the autokey cipher", ("autokey",), _shift_by_text, partial(_shift_by_text, back=True)
    ),
    "rail_fence": Cipher(
        "the rail fence cipher",
        ("rail fence", "rail-fence"),
        _transpose,
        partial(_transpose, back=True),
    ),
    "polybius": Cipher("the Polybius cipher", ("Polybius",), _encode_polybius, _decode_polybius),
    "morse": Cipher("Morse code", ("Morse",), _encode_morse, _decode_morse),
    "ascii": Cipher("hexadecimal ASCII", ("ASCII",), _encode_ascii, _decode_ascii),
    "base64": Cipher("Base64", ("Base64", "base 64"), _encode_base64, _decode_base64),
}
"""The ciphers: letters swapped, shifted, and moved; letters as digits, signs, and bytes."""
