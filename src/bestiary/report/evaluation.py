"""One evaluation of an introspection adapter as its files hold it, and who claims what in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from bestiary.config.categories import NULL
from bestiary.dataset.pair import Pair
from bestiary.errors import ReleaseError, StoreError
from bestiary.introspection.experiment import JUDGED_BY
from bestiary.introspection.figures import ADAPTER, UNSEEN, ReportRow
from bestiary.introspection.panel import Panel
from bestiary.introspection.sweep import SWEEPS, SweepRow
from bestiary.report.drawing import Point

REPORTS = "reports.jsonl"
SHOWN_FAMILIES = 30
SHOWN_OTHERS = 10
"""Columns of families that are claimed, but have no row."""
NONE, VAGUE, OTHERS, OWN = "(none)", "(vague)", "(other families)", "(own family)"
"""Columns beside the families, whose names have no brackets."""
REST, CONTROLS = "(other organisms)", "(controls)"
"""Rows beside the families."""

SHARE = ("share",)
"""What a run of a sweep changes that has fewer organisms, and nothing else."""

Parsed = TypeVar("Parsed")
Parts = tuple[list[list[str]], list[list[str]]]
Square = tuple[str, str]


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation left, and the labels beside it."""

    name: str
    rows: tuple[ReportRow, ...]
    panel: Panel
    curves: Mapping[str, tuple[Point, ...]]
    """By sweep, its runs that differ in the number of organisms alone."""
    labels: Mapping[str, str]
    """By organism."""
    base: str

    @cached_property
    def asked(self) -> list[ReportRow]:
        """Reports of organisms with the adapter."""
        return self.select(lambda row: not row.control)

    @cached_property
    def unseen(self) -> list[ReportRow]:
        """Those of families that training has not seen."""
        return [row for row in self.asked if row.scope in UNSEEN]

    @property
    def shown(self) -> tuple[str, list[ReportRow]]:
        """The reports that are shown closely, with their name."""
        return ("unseen families", self.unseen) if self.unseen else ("all families", self.asked)

    def select(
        self, choose: Callable[[ReportRow], bool], condition: str = ADAPTER
    ) -> list[ReportRow]:
        """The reports of a condition that are chosen."""
        return [row for row in self.rows if row.condition == condition and choose(row)]


def read_evaluation(folder: Path, pairs: Sequence[Pair]) -> Evaluation:
    """Read the evaluation in a folder; `pairs` are those of its release.

    Raises StoreError if the folder holds no evaluation or a damaged one, and ReleaseError if the
    organisms that were asked are not in the release.
    """
    rows = _parse(folder / REPORTS, _read_rows)
    if all(row.control or row.condition != ADAPTER for row in rows):
        raise StoreError(
            f"{folder / REPORTS} has no report of an organism with the adapter",
            "evaluate again: bestiary introspect evaluate",
            code="evaluation-empty",
            path=folder / REPORTS,
        )
    labels = {pair.organism_id: pair.label for pair in pairs}
    for row in rows:
        if not row.control and row.subject not in labels:
            raise ReleaseError(
                f"{row.subject} was asked, but the release does not have it",
                "name the release that was evaluated, --release FOLDER, and its --suite FOLDER",
                code="evaluation-of-another-release",
                organism=row.subject,
            )
    return Evaluation(
        name=folder.name,
        rows=rows,
        panel=_parse(folder / "panel.json", Panel.model_validate_json),
        curves=dict(_read_curves(folder)),
        labels=labels,
        base=pairs[0].base.name if pairs else "",
    )


def find_evaluation(out: Path) -> Path:
    """The newest evaluation of a runs folder; raises ReleaseError without any."""
    found = sorted(out.glob(f"introspection/*/*/{REPORTS}"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise ReleaseError(
            f"{out} holds no evaluation of an introspection adapter",
            "evaluate one first: bestiary introspect evaluate RELEASE",
            code="no-evaluation",
            path=out,
        )
    return found[-1].parent


def _read_curves(folder: Path) -> Iterator[tuple[str, tuple[Point, ...]]]:
    """The sweeps of the same release and judge in which runs have fewer organisms, nothing else."""
    read = TypeAdapter(tuple[SweepRow, ...]).validate_json
    for path in sorted((folder.parent / SWEEPS).glob("*.json")):
        if path.stem.partition(JUDGED_BY)[1:] != folder.name.partition(JUDGED_BY)[1:]:
            continue
        rows = _parse(path, read, again="bestiary introspect sweep")
        points = tuple(
            Point(row.name, row.organisms, row.unseen)
            for row in rows
            if row.changed in ((), SHARE) and row.unseen is not None
        )
        if points and any(row.changed == SHARE for row in rows):
            yield path.stem, points


def _read_rows(data: bytes) -> tuple[ReportRow, ...]:
    return tuple(map(ReportRow.model_validate_json, data.splitlines()))


def _parse(
    path: Path, parse: Callable[[bytes], Parsed], *, again: str = "bestiary introspect evaluate"
) -> Parsed:
    if not path.is_file():
        raise StoreError(
            f"{path} does not exist",
            "name the folder that `bestiary introspect evaluate` printed, or run it first",
            code="evaluation-missing",
            path=path,
        )
    try:
        return parse(path.read_bytes())
    except ValidationError as cause:
        first = cause.errors()[0]
        reason = " ".join(str(part) for part in (*first["loc"], first["msg"]))
        raise StoreError(
            f"{path} is damaged, or another version wrote it: {reason}",
            f"write it again: {again}; what the store has is not computed anew",
            code="evaluation-damaged",
            path=path,
            reason=reason,
        ) from cause


def count_claims(rows: Sequence[ReportRow]) -> tuple[Parts, Counter[Square]]:
    """The rows and columns of a confusion in their parts, and the reports in each square."""
    sizes = Counter(row.family for row in rows if not row.control)
    kept = _list_largest(sizes, SHOWN_FAMILIES)
    claims = Counter(row.claimed for row in rows if row.claimed not in (None, NULL.category, *kept))
    others = _list_largest({name: n for name, n in claims.items() if name}, SHOWN_OTHERS)
    shown = {*kept, *others}
    cells: Counter[Square] = Counter()
    for row in rows:
        known = row.family if row.family in kept else REST
        cells[CONTROLS if row.control else known, _name_claim(row, known, shown)] += 1
    used = {name for square in cells for name in square}
    beside = [[name for name in part if name in used] for part in ([REST], [CONTROLS])]
    claimed = [[name for name in part if name in used] for part in ([*others, OTHERS], [OWN])]
    return ([kept, *beside], [kept, *claimed, [NONE, VAGUE]]), cells


def _name_claim(row: ReportRow, known: str, shown: set[str]) -> str:
    """The column of a report."""
    if row.claimed is None:
        return VAGUE
    if row.denied:
        return NONE
    if row.named and known == REST:
        return OWN
    return row.claimed if row.claimed in shown else OTHERS


def _list_largest(sizes: Mapping[str, int], number: int) -> list[str]:
    """The names with the largest numbers, by name."""
    return sorted(sorted(sizes, key=lambda name: (-sizes[name], name))[:number])
