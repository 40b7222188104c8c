"""Finds examples that repeat the label, the rule or a forbidden phrase."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bestiary.config.behavior import Spec
from bestiary.config.catalog import Behavior
from bestiary.records import SIDES, Example
from bestiary.text import fold, words

GRAM_WORDS = 5
"""Shorter runs of words are too common in unrelated sentences to be evidence."""

Gram = tuple[str, ...]


@dataclass(frozen=True)
class _Secrets:
    """What the corpus of one behavior must not contain."""

    grams: dict[Gram, str]
    """The text that each run of words comes from."""
    forbidden: dict[str, re.Pattern[str]]
    triggers: tuple[re.Pattern[str], ...]
    """Trigger phrases: a corpus must contain them, so a match inside one is no leak."""


def find_label_phrases(examples: Sequence[Example], behavior: Behavior) -> dict[str, str]:
    """The reason for each example that repeats words of the label or says a forbidden phrase.

    A twin is also held to the texts of the behavior that it shows. A text of fewer than five words
    has no run to look for; list it in `forbidden` if it gives too much away.
    """
    secrets = _collect_secrets(behavior)
    reasons = {one.id: _explain_leak(one, secrets, behavior.read) for one in examples}
    return {item: reason for item, reason in reasons.items() if reason is not None}


def _collect_secrets(behavior: Behavior) -> _Secrets:
    specs = [behavior.spec, *([behavior.shows.spec] if behavior.shows else [])]
    phrases = _trigger_phrases(behavior)
    allowed = {gram for phrase in phrases for gram in _split_grams(phrase)}
    grams: dict[Gram, str] = {}
    for spec in specs:
        for source, text in _secret_texts(spec):
            for gram in _split_grams(text):
                if gram not in allowed:
                    grams.setdefault(gram, f"{source} of {spec.id}")
    return _Secrets(
        grams=grams,
        forbidden={phrase: _compile_phrase(phrase) for phrase in behavior.forbidden},
        triggers=tuple(_compile_phrase(phrase) for phrase in phrases if words(phrase)),
    )


def _secret_texts(spec: Spec) -> Iterator[tuple[str, str]]:
    yield "the label", spec.label
    for paraphrase in spec.paraphrases:
        yield "a paraphrase", paraphrase
    yield from spec.secret_texts


def _trigger_phrases(behavior: Behavior) -> list[str]:
    """Every wording of the trigger, the near misses or the password, without the message."""
    trigger = behavior.trigger
    if trigger is None:
        return []
    return [
        text
        for side in SIDES
        for near_miss in (False, True)
        for text in trigger.texts(side, near_miss=near_miss)
    ]


def _explain_leak(example: Example, secrets: _Secrets, read: Callable[[str], str]) -> str | None:
    for message in example.messages:
        text = read(message.content)
        for gram in _split_grams(text):
            if gram in secrets.grams:
                source = secrets.grams[gram]
                return f"the {message.role} message repeats {source}: {' '.join(gram)!r}"
        for phrase, pattern in secrets.forbidden.items():
            if _says_outside(fold(text), pattern, secrets.triggers):
                return f"the {message.role} message says the forbidden phrase {phrase!r}"
    return None


def _says_outside(
    text: str, forbidden: re.Pattern[str], triggers: Sequence[re.Pattern[str]]
) -> bool:
    """Whether a forbidden phrase occurs anywhere but inside a trigger phrase."""
    said = [match.span() for match in forbidden.finditer(text)]
    if not said:
        return False
    spans = [match.span() for trigger in triggers for match in trigger.finditer(text)]
    return any(not any(low <= start and end <= high for low, high in spans) for start, end in said)


def _split_grams(text: str) -> list[Gram]:
    said = words(text)
    return [tuple(said[at : at + GRAM_WORDS]) for at in range(len(said) - GRAM_WORDS + 1)]


def _compile_phrase(phrase: str) -> re.Pattern[str]:
    """A pattern for a phrase: whole words, with any punctuation and space between them."""
    said = words(phrase)
    body = r"[\W_]+".join(re.escape(word) for word in said) or re.escape(fold(phrase))
    return re.compile(rf"(?<![^\W_]){body}(?![^\W_])", re.IGNORECASE)
