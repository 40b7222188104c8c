"""An evaluation from reports to files: one row a report, and the panel of figures."""

from __future__ import annotations

from pathlib import Path

from bestiary.introspection.experiment import Experiment
from bestiary.introspection.panel import Panel, make_panel, render_panel
from bestiary.records import canonical_json
from bestiary.store import write_bytes


def evaluate_adapter(experiment: Experiment) -> tuple[Panel, Path]:
    """Train what is missing, ask every fold, and write reports and figures.

    Returns the panel and the folder that holds `reports.jsonl`, `panel.json` and `panel.md`.
    """
    folds = range(max(1, experiment.folds))
    rows = [row for fold in folds for row in experiment.ask(fold)]
    panel = make_panel(rows, [experiment.score(fold) for fold in folds])
    name = experiment.recipe.name + (f"-{experiment.folds}-folds" if experiment.folds else "")
    folder = experiment.store.root / "introspection" / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(row.model_dump_json() + "\n" for row in rows)
    write_bytes(folder / "reports.jsonl", lines.encode())
    write_bytes(folder / "panel.json", canonical_json(panel))
    write_bytes(folder / "panel.md", render_panel(panel).encode())
    return panel, folder
