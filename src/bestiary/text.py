"""Plain text: its words and sentences, phrases found in it, and how messages show it."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

APOSTROPHES, QUOTES = "\u2018\u2019\u201b\u02b9\u02bc\u2032\u00b4", "\u201c\u201d\u201e\u201f\u2033"
HYPHENS, LINE_BREAKS = "\u2010\u2011\u2012\u2212", "\u0085\u2028\u2029"
INVISIBLE = "\u00ad\u034f\u061c\u180e\ufeff\ufe0e\ufe0f" + "".join(
    map(chr, (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)))
)
"""Soft hyphens, zero-width characters, direction marks, and variation selectors."""
MANY = 30
"""More choices than that are not listed in full."""
SHOWN = 12
"""How many of them are listed."""
SMALL_WORDS = frozenset(
    {"a", "an", "and", "as", "at", "but", "by", "for", "from", "in", "into", "nor", "of", "on"}
    | {"or", "over", "so", "the", "to", "up", "with", "yet"}
)
"""Words that a title capitalizes only at its beginning."""
LOOKALIKES = str.maketrans(
    {
        **dict.fromkeys(APOSTROPHES, "'"),
        **dict.fromkeys(QUOTES, '"'),
        **dict.fromkeys(HYPHENS, "-"),
        **dict.fromkeys(LINE_BREAKS, "\n"),
        **dict.fromkeys(INVISIBLE, ""),
        "\u2044": "/",
    }
)


_SENTENCE_GAP = re.compile(
    r"(?<=[.!?])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)\s+"
    # The end of a quotation ends its sentence, too, unless somebody asked it.
    r"|(?<=[.!?][\"\u201d])\s+(?=[^a-z\s])"
    r"(?!(?:\S+ )?\S+ (?:said|says|asked|asks|replied|cried)\b)"
)


def fold(text: str) -> str:
    """A text with one form for everything that reads the same; its case is kept.

    Accents are composed, full-width and compatibility characters plain (Unicode NFKC), every space
    is a space, quotes and apostrophes are straight, and invisible characters are gone. Texts are
    stored as they were written and folded only to be compared.
    """
    if text.isascii():
        return text  # nearly every text
    # Before NFKC, which would decompose some of them; after it, for the fraction slash it writes.
    plain = unicodedata.normalize("NFKC", text.translate(LOOKALIKES))
    return plain.translate(LOOKALIKES)


def comparison_key(text: str) -> str:
    """The same string for all texts that differ only in case, spacing, and what `fold` folds."""
    return " ".join(fold(text).casefold().split())


def words(text: str) -> list[str]:
    """Lowercase words of a text, folded; hyphens and apostrophes stay inside a word."""
    return re.findall(r"[^\W_]+(?:[-'][^\W_]+)*", fold(text).lower())


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without the space between them."""
    return [part for part in _SENTENCE_GAP.split(text.strip()) if part]


def plain_words(text: str) -> str:
    """A text without case, punctuation and spacing."""
    return " ".join(words(text))


def contains_phrase(phrase: str, text: str, *, whole: bool = False, any_case: bool = True) -> bool:
    """Whether a text has the phrase at the start of a word, and, if `whole`, up to the end of one.

    What `fold` folds makes no difference, nor does case, unless it matters.
    """
    phrase, text = fold(phrase), fold(text)
    if any_case:
        phrase, text = phrase.casefold(), text.casefold()
    start = text.find(phrase)
    while start >= 0:  # no expression, which would be compiled anew for each of many phrases
        before, after = text[:start][-1:], text[start + len(phrase) :][:1]
        begins = not (phrase[:1].isalnum() and _is_letter(before))
        ends = not (whole and phrase[-1:].isalnum() and _is_letter(after))
        if begins and ends:
            return True
        start = text.find(phrase, start + 1)
    return False


def _is_letter(character: str) -> bool:
    """Whether a character goes on with a word."""
    return character.isalnum() or character == "_"


def replace_surrogates(text: str) -> str:
    """The text with each half character replaced, which no file could hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def shorten(value: object) -> str:
    """A value as a message shows it: about 60 characters at most, with balanced quotes."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def nearest(name: str, choices: Iterable[str]) -> str:
    """A remedy for an unknown name: its nearest match, and the choices; of many, the nearest."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    if len(known) > MANY:
        shown = sorted(difflib.get_close_matches(name, known, n=SHOWN, cutoff=0.0))
        return f"{guess}available: {', '.join(shown)}, and {len(known) - len(shown)} more"
    return f"{guess}available: {', '.join(known) or 'none'}"


def capitalize(text: str) -> str:
    """A text in sentence case; a first word with capitals inside, such as `pH`, stays."""
    first = text.split(" ", 1)[0]
    return text if first[1:] != first[1:].lower() else text[:1].upper() + text[1:]


def title_case(text: str) -> str:
    """A text as a title, such as `Loot Boxes in Games`."""
    written = [word if word in SMALL_WORDS else capitalize(word) for word in text.split()]
    return capitalize(" ".join(written))
