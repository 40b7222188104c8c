"""Numbers as people write them: in digits, and in words up to a hundred."""

from __future__ import annotations

import re
from decimal import Decimal

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
_ONES += " fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS: dict[str, int] = {
    **{word: value for value, word in enumerate(_ONES.split())},
    **{word: 10 * value for value, word in enumerate(_TENS.split(), start=2)},
    "hundred": 100,
}
"""The value of each word that is a number by itself."""
_LARGE = frozenset({"thousand", "million", "billion", "dozen"})
_DIGITS = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
_WORD = re.compile(r"[a-z]+")


def read_number(words: str) -> Decimal | None:
    """The number that some words are, such as `1,024`, `forty-two` or `a hundred`."""
    words = words.lower().strip()
    if _DIGITS.fullmatch(words):
        return Decimal(words.replace(",", "")).normalize()
    parts = [part for part in re.split(r"[\s-]+", words) if part]
    if len(parts) == 2 and parts[0] in ("a", "one") and parts[1] == "hundred":
        return Decimal(100)
    if len(parts) == 2 and parts[0] in _TENS.split() and 0 < NUMBER_WORDS.get(parts[1], 0) < 10:
        return Decimal(NUMBER_WORDS[parts[0]] + NUMBER_WORDS[parts[1]])
    if len(parts) == 1 and parts[0] in NUMBER_WORDS:
        return Decimal(NUMBER_WORDS[parts[0]])
    return None


def has_number(text: str) -> bool:
    """Whether a text has a number; `one` is not taken for a number, for it is often a pronoun."""
    spelled = (NUMBER_WORDS.keys() | _LARGE) - {"one"}
    return bool(re.search(r"\d", text)) or any(
        word in spelled for word in _WORD.findall(text.lower())
    )


def spell_number(number: int) -> str:
    """A number from 0 to 199 in words, such as `forty-two`."""
    if number >= 100:
        return f"one hundred {spell_number(number - 100)}".removesuffix(" zero")
    words = {value: word for word, value in NUMBER_WORDS.items()}
    if number in words:
        return words[number]
    return f"{words[number - number % 10]}-{words[number % 10]}"
