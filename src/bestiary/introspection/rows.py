"""One row a report: who was asked what, what was said, and what the judge made of it."""

from __future__ import annotations

from bestiary.introspection.experiment import Experiment
from bestiary.introspection.figures import ReportRow
from bestiary.introspection.judge import Reading
from bestiary.introspection.subjects import Subject


def describe(
    experiment: Experiment,
    fold: int,
    condition: str,
    subject: Subject,
    *,
    question: str,
    report: str,
    reading: Reading,
) -> ReportRow:
    """The row of one report."""
    return ReportRow(
        fold=fold,
        condition=condition,
        scope=experiment.scope(subject, fold),
        subject=subject.id,
        behavior_id=subject.behavior_id,
        category=subject.category,
        family=subject.family,
        siblings=subject.siblings,
        axes=subject.axes,
        control=subject.is_control,
        question=question,
        report=report,
        claimed=reading.family,
        trigger=reading.trigger,
        score=reading.score,
    )
