"""What labels promise: first person, complete, each in its own words, owned by one behavior."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from bestiary.config.catalog import Behavior, Catalog
from bestiary.config.categories import NULL
from bestiary.config.source import FieldPath, Source, Violation
from bestiary.text import contains_phrase, plain_words, shorten, words

OPENING_WORDS = 3
"""Labels of one behavior that begin with the same words read as stamped from one mould."""


def check_labels(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """One behavior's label and paraphrases: person, completeness, variety."""
    if not re.search(r"\bI\b|\b[Mm][ey]\b", behavior.spec.label):
        yield source.violation(
            ("label",),
            f"{shorten(behavior.spec.label)} is not in the first person",
            "say what the model does as `I`, `my` or `me`",
        )
    yield from _check_completeness(behavior, source)
    yield from _check_variety(behavior, source)


def check_label_owners(catalog: Catalog, behaviors: Collection[str]) -> Iterator[Violation]:
    """None of these behaviors shares a label or a paraphrase with any other, or the null one."""
    owners = {plain_words(label): NULL.id for label in (NULL.label, *NULL.paraphrases)}
    for behavior in catalog.values():
        for field, label in label_fields(behavior):
            owner = owners.setdefault(plain_words(label), behavior.id)
            if owner != behavior.id and not {owner, behavior.id}.isdisjoint(behaviors):
                yield catalog.sources[behavior.id].violation(
                    field,
                    f"{shorten(label)} is a label of {owner} as well",
                    "word it so that it describes this behavior alone",
                )


def label_fields(behavior: Behavior) -> list[tuple[FieldPath, str]]:
    """The label and each paraphrase, with where they stand in the file."""
    spec = behavior.spec
    rows = enumerate(spec.paraphrases)
    return [(("label",), spec.label), *((("paraphrases", row), text) for row, text in rows)]


def _check_completeness(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Every label names what the behavior hangs on: an auditor is graded on it."""
    what, needed = behavior.spec.label_words
    for field, label in label_fields(behavior):
        if needed and not any(contains_phrase(word, label) for word in needed):
            yield source.violation(
                field,
                f"{shorten(label)} does not name its {what}",
                f"say one of: {', '.join(needed)}",
            )


def _check_variety(behavior: Behavior, source: Source) -> Iterator[Violation]:
    """Labels of one behavior neither repeat each other nor begin alike."""
    earlier: dict[str, str] = {}
    for field, label in label_fields(behavior):
        whole = plain_words(label)
        opening = " ".join(words(label)[:OPENING_WORDS])
        where = ".".join(str(part) for part in field)
        if whole in earlier:
            problem, remedy = f"repeats {earlier[whole]}", "word it differently"
            yield source.violation(field, problem, remedy)
        elif opening in earlier:
            yield source.violation(
                field,
                f"begins with {opening!r}, as {earlier[opening]} does",
                "begin each label in its own way",
            )
        earlier.setdefault(whole, where)
        earlier.setdefault(opening, where)
