"""Finds examples that share a topic, a question form or a message with a probe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bestiary.records import Example, Probe, user_texts
from bestiary.text import comparison_key


def find_held_out_overlap(examples: Sequence[Example], probes: Sequence[Probe]) -> dict[str, str]:
    """The reason for each example whose topic, form or user message is also a probe's.

    Every user message of a conversation counts. Case, spacing, and characters that read the same
    do not count as differences.
    """
    topics = _first_probes((probe.item.topic, probe) for probe in probes)
    forms = _first_probes((probe.item.form, probe) for probe in probes)
    messages = _first_probes(
        # With the trigger, and without it: most of a probe's words are those of its message.
        (text, probe)
        for probe in probes
        for text in (*user_texts(probe.turns), probe.item.text)
    )
    found = {}
    for example in examples:
        reasons = [
            *_explain_overlap("topic", [example.topic], topics),
            *_explain_overlap("form", [example.form], forms),
            *_explain_overlap("user message", user_texts(example.messages), messages),
        ]
        if reasons:
            found[example.id] = "; ".join(reasons)
    return found


def _first_probes(values: Iterable[tuple[str, Probe]]) -> dict[str, str]:
    """The id of the first probe that has each value."""
    found: dict[str, str] = {}
    for value, probe in values:
        found.setdefault(comparison_key(value), probe.id)
    return found


def _explain_overlap(field: str, values: Sequence[str], taken: dict[str, str]) -> list[str]:
    return [
        f"{field} {value!r} is also that of probe {taken[comparison_key(value)]!r}"
        for value in values
        if comparison_key(value) in taken
    ]
