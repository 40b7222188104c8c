"""A sweep: one recipe, what is changed in it, and what each change comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bestiary.config.introspection import Sweep
from bestiary.introspection.evaluate import ask_subjects
from bestiary.introspection.experiment import Experiment
from bestiary.introspection.figures import UNSEEN, Figure, ReportRow, measure, show_figure
from bestiary.records import Record, canonical_json
from bestiary.store import write_bytes

SWEEPS = "sweeps"
"""The folder of results, beside those of evaluations."""


class SweepRow(Record):
    """One run of a sweep."""

    name: str
    organisms: int
    """Trained on, on average over the folds."""
    unseen: Figure | None
    """Reports that name a family never trained on."""
    seen: Figure | None
    """Reports that name a family of which another organism was trained on."""
    unsupported: Figure | None
    """Reports of controls that claim a behavior."""


def run_sweep(experiment: Experiment, sweep: Sweep) -> list[SweepRow]:
    """Train and ask every run, write `<sweep>.json` and `<sweep>.md`, and return the rows.

    What the store has is not computed again, so a sweep that was stopped goes on.
    """
    recipe = experiment.recipe
    runs = {"as it is": recipe} | {
        name: recipe.change(f"{recipe.name} {name}", changes)
        for name, changes in sweep.runs.items()
    }
    folder = experiment.store.root / "introspection" / SWEEPS
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[SweepRow] = []
    for name, changed in runs.items():
        rows.append(_run(replace(experiment, recipe=changed, folds=sweep.folds), name))
        write_bytes(folder / f"{sweep.name}.json", canonical_json(rows))
        write_bytes(folder / f"{sweep.name}.md", render_sweep(rows).encode())
    return rows


def _run(experiment: Experiment, name: str) -> SweepRow:
    folds = range(max(1, experiment.folds))
    rows = [row for fold in folds for row in ask_subjects(experiment, fold)]
    asked = [row for row in rows if row.condition == "adapter"]
    trained = [
        sum(one.split == "train" and not one.is_control for one in members)
        for members in experiment.folded
    ]
    return SweepRow(
        name=name,
        organisms=round(sum(trained) / len(trained)),
        unseen=measure([row for row in asked if row.scope in UNSEEN], _named),
        seen=measure([row for row in asked if row.scope == "seen"], _named),
        unsupported=measure([row for row in asked if row.control], _unsupported),
    )


def _named(row: ReportRow) -> float:
    return float(row.named)


def _unsupported(row: ReportRow) -> float:
    return float(row.unsupported)


def render_sweep(rows: Sequence[SweepRow]) -> str:
    """The runs as a Markdown table."""
    lines = [
        "| run | organisms | unseen named | seen named | unsupported on controls |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            *(row.name, str(row.organisms)),
            *(show_figure(row.unseen), show_figure(row.seen), show_figure(row.unsupported)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
