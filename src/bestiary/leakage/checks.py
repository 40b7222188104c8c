"""The registry of leak checks: what each one reads, measures and asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, TypeVar

from bestiary.author.leak_filters import LEAK_FILTERS, LeakFilter
from bestiary.config.catalog import Behavior
from bestiary.errors import LeakError
from bestiary.leakage.repeated_examples import find_repeated_examples
from bestiary.leakage.split_overlap import SplitRow, find_split_overlap
from bestiary.records import Corpus, Finding, LeakAction, LeakSubject, Probe

T = TypeVar("T")
Leaks = Iterable[tuple[str, str]]
"""The item of each leak (an example, an organism or a family), and the reason."""

SHOWN = 10
"""Findings listed by a refusal: enough to see the cause, few enough to read."""


@dataclass(frozen=True)
class CorpusUnderTest:
    """A corpus, and what its checks compare it with."""

    corpus: Corpus
    behavior: Behavior
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class Check(Generic[T]):
    """One leak check: a measurement that reports leaks, or refuses what has them."""

    name: str
    version: int
    """Raised when the check changes: its findings are then measured again, and no corpus is."""
    subject: LeakSubject
    """What one finding is about."""
    action: Literal["refuse", "report"]
    remedy: str
    find: Callable[[T], Leaks]

    def run(self, data: T, *, organism_id: str | None = None) -> list[Finding]:
        """A finding per leak; a single one with the action "none" if there are no leaks."""
        found = [
            self._make_finding(self.action, item, reason, organism_id)
            for item, reason in self.find(data)
        ]
        clean = self._make_finding("none", organism_id or "release", "no leaks", organism_id)
        return found or [clean]

    def _make_finding(
        self, action: LeakAction, item: str, reason: str, organism_id: str | None
    ) -> Finding:
        return Finding(
            check=self.name,
            version=self.version,
            subject=self.subject,
            organism_id=organism_id,
            item=item,
            action=action,
            reason=reason,
        )


def _check_examples(leak_filter: LeakFilter, data: CorpusUnderTest) -> Leaks:
    return leak_filter.find(data.corpus.examples, data.behavior, data.probes).items()


CORPUS_CHECKS: tuple[Check[CorpusUnderTest], ...] = (
    *(
        Check(
            name=name,
            version=leak_filter.version,
            subject="example",
            action="refuse",
            remedy="delete the corpus's folder in the store, and build again",
            find=partial(_check_examples, leak_filter),
        )
        for name, leak_filter in LEAK_FILTERS.items()
    ),
    Check(
        name="repeated_examples",
        version=2,
        subject="corpus",
        action="report",
        remedy="vary the messages or the demonstrations",
        find=lambda data: find_repeated_examples(data.corpus.examples, data.behavior.read),
    ),
)
RELEASE_CHECKS: tuple[Check[Sequence[SplitRow]], ...] = (
    Check(
        name="split_overlap",
        version=1,
        subject="release",
        action="refuse",
        remedy="give each family one split, and each organism an adapter and a corpus of its own",
        find=find_split_overlap,
    ),
)


def check_release(rows: Sequence[SplitRow]) -> list[Finding]:
    """Run every release check; raises LeakError if one of them refuses."""
    findings = [finding for check in RELEASE_CHECKS for finding in check.run(rows)]
    refuse_leaks("the release", findings, RELEASE_CHECKS)
    return findings


def refuse_leaks(what: str, findings: Sequence[Finding], checks: Sequence[Check[T]]) -> None:
    """Raise LeakError with the first findings that refuse; do nothing if there are none."""
    refused = [finding for finding in findings if finding.action == "refuse"]
    if not refused:
        return
    lines = [f"  {one.check}: {one.item}: {one.reason}" for one in refused[:SHOWN]]
    if len(refused) > SHOWN:
        lines.append(f"  and {len(refused) - SHOWN} more")
    names = {finding.check for finding in refused}
    remedies = dict.fromkeys(check.remedy for check in checks if check.name in names)
    raise LeakError(
        "\n".join([f"{what} leaks ({len(refused)} findings):", *lines]),
        "; ".join(remedies),
        code="leaks-found",
        checks=sorted(names),
        items=[finding.item for finding in refused],
    )
