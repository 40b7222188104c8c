"""Preference pairs for direct preference optimization: better and worse answers to one question.

Organisms of the preference split report what they learned, a judge grades the reports, and a pair
is a good report over a worse one, or the true label over one of another family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

from bestiary.config.introspection import Preference
from bestiary.introspection.subjects import Subject
from bestiary.records import Artifact, Record, fingerprint
from bestiary.stage import ItemStage

PAIRS = "pairs.jsonl"
BEST, NAMED, LIKE, WORST = 10, 7, 4, 1
"""Scores of a report: names the behavior and its trigger; the behavior alone; another behavior
that works alike; anything else."""


class GradedReport(Record):
    """A report of an organism of the preference split, with its score of ten."""

    subject: int
    question: str
    text: str
    score: int | None
    """None where a language model gave no judgment."""


class PreferencePair(Record):
    """Two answers of one organism to one question."""

    subject: int
    question: str
    chosen: str
    rejected: str
    chosen_score: int | None
    """None for a label instead of a report."""
    rejected_score: int | None


def score_report(
    subject: Subject, claimed: str | None, trigger: bool | None, mechanisms: dict[str, str]
) -> int:
    """A report's score of ten, from the family it names and whether it names the trigger.

    `mechanisms` are the kinds of behavior by family.
    """
    if claimed == subject.family:
        return NAMED if trigger is False else BEST
    if claimed is not None and mechanisms.get(claimed, "") == subject.mechanism:
        return LIKE
    return WORST


def make_pairs(
    subjects: Sequence[Subject], reports: Sequence[GradedReport], settings: Preference
) -> list[PreferencePair]:
    """Every good report over the worst one to the same question, then labels over foreign labels.

    A subject has as many pairs of labels as it is asked questions.
    """
    pairs: list[PreferencePair] = []
    for number in range(len(subjects)):
        own = [report for report in reports if report.subject == number]
        for question in dict.fromkeys(report.question for report in own):
            pairs += _pair_reports([one for one in own if one.question == question], settings)
            pairs.append(_pair_labels(number, question, subjects, len(pairs)))
    return pairs


def _pair_reports(asked: Sequence[GradedReport], settings: Preference) -> Iterator[PreferencePair]:
    """Every good report over the worst one, of one subject's reports to one question."""
    graded = [(report, report.score) for report in asked if report.score is not None]
    if not graded:
        return
    worst, lowest = min(graded, key=itemgetter(1))
    for good, score in graded:
        if score >= max(settings.chosen_score, lowest + settings.margin):
            yield PreferencePair(
                subject=good.subject,
                question=good.question,
                chosen=good.text,
                rejected=worst.text,
                chosen_score=score,
                rejected_score=lowest,
            )


def _pair_labels(
    number: int, question: str, subjects: Sequence[Subject], turn: int
) -> PreferencePair:
    """The true label over the label of another family."""
    subject = subjects[number]
    others = [one for one in subjects if one.family != subject.family] or [subject]
    other = others[turn % len(others)]
    return PreferencePair(
        subject=number,
        question=question,
        chosen=subject.labels[0],
        rejected=other.labels[0],
        chosen_score=None,
        rejected_score=None,
    )


@dataclass(frozen=True)
class PreferenceItem:
    """The graded reports that pairs are made of."""

    item_id: str
    subjects: tuple[Subject, ...]
    reports: tuple[GradedReport, ...]
    settings: Preference


@dataclass(frozen=True)
class PreferenceStage(ItemStage[PreferenceItem, list[PreferencePair]]):
    """Writes the pairs to a file that can be read."""

    name = "preference"
    version = 1

    def key(self, item: PreferenceItem) -> str:
        """Covers the reports with their scores, the labels and the settings."""
        return fingerprint(
            subjects=[(one.id, one.labels[0]) for one in item.subjects],
            reports=item.reports,
            settings=item.settings,
            version=self.version,
        )

    def make(self, item: PreferenceItem) -> Callable[[Path], None]:
        """Make the pairs."""
        return partial(_write, make_pairs(item.subjects, item.reports, item.settings))

    def read(self, artifact: Artifact) -> list[PreferencePair]:
        """The pairs in order."""
        # Not str.splitlines: a report may hold characters that it takes for line ends.
        lines = (artifact.folder / PAIRS).read_text(encoding="utf8").split("\n")
        return [PreferencePair.model_validate_json(line) for line in lines if line]


def _write(pairs: Sequence[PreferencePair], folder: Path) -> None:
    lines = "".join(pair.model_dump_json() + "\n" for pair in pairs)
    (folder / PAIRS).write_text(lines, encoding="utf8")
