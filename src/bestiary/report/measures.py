"""Renders how detectors do on phrasings by others and on plain answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from bestiary.config.measure import Measure

ENOUGH_FOUND = 0.75
ENOUGH_QUIET = 0.98
SHOWN = 3
"""Replies listed of each detector that falls short, where there are many detectors."""
FEW = 3
"""So many detectors are shown with everything that went wrong."""


def measure_table(measures: Sequence[Measure]) -> Table:
    """One line per detector, and a last one for all of them."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_footer=True)
    tried = sum(one.phrasings for one in measures)
    missed = sum(len(one.missed) for one in measures)
    answers = sum(one.answers for one in measures)
    fired = sum(len(one.fired) for one in measures)
    table.add_column("behavior", f"{len(measures)} detectors", no_wrap=True)
    table.add_column("phrasings found", f"{tried - missed} of {tried}")
    table.add_column("plain answers left alone", f"{1 - fired / max(1, answers):.1%}")
    for one in measures:
        found = f"{one.phrasings - len(one.missed)} of {one.phrasings}" if one.phrasings else "-"
        table.add_row(one.behavior_id, found, f"{one.quiet:.1%}")
    return table


def list_misses(measures: Sequence[Measure]) -> Iterator[str]:
    """All that went wrong if there are few; else what did for those under three in four, or 98%."""
    few = len(measures) <= FEW
    shown = None if few else SHOWN
    for one in measures:
        if few or (one.found is not None and one.found < ENOUGH_FOUND):
            yield from (f"{one.behavior_id} misses: {text}" for text in one.missed[:shown])
        if few or one.quiet < ENOUGH_QUIET:
            yield from (f"{one.behavior_id} fires on: {text}" for text in one.fired[:shown])
