"""A sweep: one recipe, what is changed in it, and what each change comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

from bestiary.config.introspection import Sweep
from bestiary.introspection.course import check_course, train_adapter
from bestiary.introspection.evaluate import ask_with_adapter
from bestiary.introspection.experiment import Experiment, name_file, name_judge
from bestiary.introspection.figures import UNSEEN, Figure, measure, show_figure
from bestiary.records import Record, canonical_json
from bestiary.store import write_bytes

SWEEPS = "sweeps"
"""The folder of results, beside those of evaluations."""


class SweepRow(Record):
    """One run of a sweep."""

    name: str
    changed: tuple[str, ...]
    """Fields of the recipe that it changes; none in the first run."""
    organisms: int
    """Trained on."""
    unseen: Figure | None
    """Reports that name a family never trained on."""
    seen: Figure | None
    """Reports that name a family of which another organism was trained on."""
    unsupported: Figure | None
    """Reports of controls that claim a behavior."""
    trained: Figure | None = None
    """Reports of organisms that were trained on that name their family."""


def run_sweep(experiment: Experiment, sweep: Sweep) -> list[SweepRow]:
    """Train and ask every run, write `<sweep>.json` and `<sweep>.md`, and return the rows.

    What the store has is not computed again, so a sweep that was stopped goes on.
    """
    runs = {"as it is": {}, **sweep.runs}
    changed = {name: _change(experiment, sweep, name) for name in runs}
    _ = experiment.wordings  # what judges lack is said before anything is trained
    for run in changed.values():  # and so is what the release lacks for one of the runs
        check_course(run)
    folder = experiment.results / SWEEPS
    folder.mkdir(parents=True, exist_ok=True)
    file = name_file(sweep.name + name_judge(experiment))
    rows: list[SweepRow] = []
    for name, run in changed.items():
        rows.append(_run(run, name, tuple(runs[name])))
        write_bytes(folder / f"{file}.json", canonical_json(rows))
        write_bytes(folder / f"{file}.md", render_sweep(rows).encode())
    return rows


def _change(experiment: Experiment, sweep: Sweep, name: str) -> Experiment:
    """The experiment of one run."""
    recipe, changes = experiment.recipe, sweep.runs.get(name)
    if changes:
        recipe = recipe.change(f"{recipe.name} {name}", changes)
    return replace(experiment, recipe=recipe, folds=sweep.folds)


def _run(experiment: Experiment, name: str, changed: tuple[str, ...]) -> SweepRow:
    """One run on the first fold: what is chosen by it is then measured on the others."""
    asked = list(ask_with_adapter(experiment, 0, train_adapter(experiment)))
    return SweepRow(
        name=name,
        changed=changed,
        organisms=sum(one.split == "train" and not one.is_control for one in experiment.folded[0]),
        unseen=measure([row for row in asked if row.scope in UNSEEN], attrgetter("named")),
        seen=measure([row for row in asked if row.scope == "seen"], attrgetter("named")),
        unsupported=measure([row for row in asked if row.control], attrgetter("unsupported")),
        trained=measure([row for row in asked if row.scope == "train"], attrgetter("named")),
    )


def render_sweep(rows: Sequence[SweepRow]) -> str:
    """The runs as a Markdown table."""
    lines = [
        "| run | organisms | unseen named | seen named | trained named | unsupported on controls |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            *(row.name, str(row.organisms)),
            *(show_figure(row.unseen), show_figure(row.seen), show_figure(row.trained)),
            show_figure(row.unsupported),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
