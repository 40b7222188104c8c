"""Grades reports that any auditing method made of a release, as an evaluation grades its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from bestiary.errors import SpecError
from bestiary.introspection.experiment import Experiment
from bestiary.introspection.panel import Panel, make_panel
from bestiary.introspection.subjects import Subject
from bestiary.records import Record
from bestiary.text import nearest

METHOD = "reports"
"""The condition of the panel's lines, if the reports do not name their method."""


class OutsideReport(Record):
    """One line of a file of reports."""

    organism_id: str = Field(min_length=1)
    """An organism or a null organism of the release."""
    report: str
    method: str = Field(default=METHOD, min_length=1, max_length=100)
    """Reports of several methods are kept apart."""
    question: str = ""


def score_reports(experiment: Experiment, path: Path) -> Panel:
    """The panel of the reports in a JSONL file.

    Raises SpecError for a line that is not a report, or that is of no organism of the release.
    """
    known = {subject.id: subject for subject in experiment.folded[0]}
    given = list(read_reports(path, known))
    cases = [experiment.make_case(known[one.organism_id], one.report) for one in given]
    rows = [
        experiment.make_row(
            0,
            one.method,
            known[one.organism_id],
            question=one.question,
            report=one.report,
            reading=reading,
        )
        for one, reading in zip(given, experiment.judge.read(cases), strict=True)
    ]
    return make_panel(rows, [])


def read_reports(path: Path, known: Mapping[str, Subject]) -> Iterator[OutsideReport]:
    """The reports of a file, a line each; empty lines are skipped."""
    try:
        # Not str.splitlines: a report may hold characters that it takes for line ends.
        lines = path.read_text(encoding="utf8").split("\n")
    except (OSError, UnicodeDecodeError) as cause:
        raise SpecError(
            f"{path}: cannot be read ({cause})",
            "name a UTF-8 file with one report a line",
            code="file-unreadable",
            path=path,
        ) from cause
    found = [_read_line(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise SpecError(
            f"{path} holds no report",
            'write lines such as {"organism_id": "...", "report": "..."}',
            code="reports-missing",
            path=path,
        )
    for number, report in found:
        if report.organism_id not in known:
            raise SpecError(
                f"{path}:{number}: {report.organism_id!r} is no organism of the release",
                nearest(report.organism_id, known),
                code="organism-unknown",
                path=path,
                organism=report.organism_id,
            )
        yield report


def _read_line(path: Path, number: int, line: str) -> tuple[int, OutsideReport]:
    try:
        return number, OutsideReport.model_validate_json(line)
    except ValidationError as cause:
        first = cause.errors()[0]
        field = ".".join(map(str, first["loc"])) or "line"
        raise SpecError(
            f"{path}:{number}: {field}: {first['msg']}",
            'write one object a line: {"organism_id": "...", "report": "..."}',
            code="report-invalid",
            path=path,
            line=number,
        ) from cause
