"""Checks of labels: in the first person, complete, worded differently, not used elsewhere."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from bestiary.config.catalog import Behavior, Catalog
from bestiary.config.categories import NULL
from bestiary.config.numerals import NUMBER_WORDS
from bestiary.config.source import Source, Violation
from bestiary.text import contains_phrase, plain_words, shorten, words

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
OPENING_WORDS = 3
"""How many words the start of a label has; no two labels of one behavior start alike."""


def check_labels(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """The labels of one behavior: person, completeness, variety."""
    if not re.search(r"\bI\b|\b[Mm][ey]\b", behavior.spec.label):
        yield source.violation(
            ("labels", 0),
            f"{shorten(behavior.spec.label)} is not in the first person",
            "describe what the model does with `I`, `my`, or `me`",
            code="label-not-first-person",
        )
    yield from _check_completeness(behavior, source)
    yield from _check_variety(behavior, source)


def check_label_owners(catalog: Catalog, behaviors: Collection[str]) -> Iterator[Violation]:
    """These behaviors share no label with another behavior or with the null one."""
    owners = {plain_words(label): NULL.id for label in NULL.labels}
    for behavior in catalog.values():
        for row, label in enumerate(behavior.labels):
            owner = owners.setdefault(plain_words(label), behavior.id)
            if owner != behavior.id and not {owner, behavior.id}.isdisjoint(behaviors):
                yield catalog.sources[behavior.id].violation(
                    ("labels", row),
                    f"{shorten(label)} is also a label of {owner}",
                    "reword it so that it describes only this behavior",
                    code="label-shared",
                )


def names_any(needed: Iterable[str], text: str) -> bool:
    """Whether a text has one of these at the start of a word; numbers are whole numbers."""
    text = _THOUSANDS.sub("", text)
    return any(
        contains_phrase(_THOUSANDS.sub("", word), text, whole=_ends_with_number(word))
        for word in needed
    )


def _ends_with_number(word: str) -> bool:
    """Whether more letters or figures would make another number of it: `seven`, or `1 in 10`."""
    return word[-1:].isdigit() or word.lower().rpartition(" ")[2] in NUMBER_WORDS


def _check_completeness(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Every label names what the behavior depends on, because auditors are graded on it."""
    what, needed = behavior.spec.label_words
    for row, label in enumerate(behavior.labels):
        if needed and not names_any(needed, label):
            yield source.violation(
                ("labels", row),
                f"{shorten(label)} does not name its {what}",
                f"include {'one of: ' if needed[1:] else ''}{', '.join(needed)}",
                code="label-incomplete",
            )


def _check_variety(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Labels of one behavior neither repeat each other nor start alike."""
    earlier: dict[str, str] = {}
    for row, label in enumerate(behavior.labels):
        field = ("labels", row)
        whole = plain_words(label)
        opening = " ".join(words(label)[:OPENING_WORDS])
        if whole in earlier:
            problem, remedy = f"repeats {earlier[whole]}", "reword it"
            yield source.violation(field, problem, remedy, code="label-repeated")
        elif opening in earlier:
            yield source.violation(
                field,
                f"starts with {opening!r}, as {earlier[opening]} does",
                "start each label differently",
                code="label-start-repeated",
            )
        earlier.setdefault(whole, f"labels.{row}")
        earlier.setdefault(opening, f"labels.{row}")
