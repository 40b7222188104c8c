"""The registry of leak checks: which run on a corpus and which on a release; it holds no check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bestiary.config.catalog import Behavior
from bestiary.errors import LeakError
from bestiary.leakage.held_out import find_held_out_overlap
from bestiary.leakage.label_phrases import find_label_phrases
from bestiary.leakage.near_duplicates import find_near_duplicates
from bestiary.leakage.split_overlap import SplitRow, find_split_overlap
from bestiary.records import Example, Finding, Probe

VERSION = 1
"""Of all checks together: a corpus that passed an older one is checked anew."""

CorpusCheck = Callable[[Sequence[Example], Sequence[Probe], Behavior], list[Finding]]
ReleaseCheck = Callable[[Sequence[SplitRow]], list[Finding]]

# Each check takes what it reads and no more; here they get one signature.
CORPUS_CHECKS: Mapping[str, CorpusCheck] = {
    "label_phrases": lambda examples, _, behavior: find_label_phrases(examples, behavior),
    "held_out": lambda examples, probes, _: find_held_out_overlap(examples, probes),
    "near_duplicates": lambda examples, probes, _: find_near_duplicates(examples, probes),
}
RELEASE_CHECKS: Mapping[str, ReleaseCheck] = {"split_overlap": find_split_overlap}

REMEDIES = {
    "corpus": "drop these rows, or change the text that they repeat",
    "organism": "withhold these organisms from the release",
    "release": "give each family one split, and each organism an adapter and a corpus of its own",
}
SHOWN = 10
"""Findings that a refusal lists: enough to see the cause, few enough to read."""


def check_corpus(
    examples: Sequence[Example], probes: Sequence[Probe], behavior: Behavior
) -> list[Finding]:
    """Put one behavior's training conversations to every corpus check; rows unnamed are kept."""
    return [
        finding for check in CORPUS_CHECKS.values() for finding in check(examples, probes, behavior)
    ]


def check_release(rows: Sequence[SplitRow]) -> list[Finding]:
    """Put the rows of a release to every release check."""
    return [finding for check in RELEASE_CHECKS.values() for finding in check(rows)]


def refuse(findings: Sequence[Finding]) -> None:
    """Raise LeakError with the first findings and the remedy; do nothing when there are none."""
    if not findings:
        return
    lines = [f"  {found.check}: {found.item}: {found.reason}" for found in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f"  and {len(findings) - SHOWN} more")
    remedies = dict.fromkeys(REMEDIES[found.subject] for found in findings)
    raise LeakError(
        "\n".join([f"leaks found: {len(findings)}", *lines, f"remedy: {'; '.join(remedies)}"])
    )


__all__ = [
    "CORPUS_CHECKS",
    "RELEASE_CHECKS",
    "SplitRow",
    "check_corpus",
    "check_release",
    "refuse",
]
