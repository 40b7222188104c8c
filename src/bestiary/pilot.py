"""A pilot: a few conversations of each category to read, and what they say of the whole roster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from bestiary.author.estimate import Estimate
from bestiary.author.options import LEDGER, AuthoringOptions, choose_authors
from bestiary.config.catalog import Behavior
from bestiary.config.plan import Plan
from bestiary.llm.ledger import read_spent
from bestiary.pipeline import build_roster, estimate_corpora
from bestiary.records import OrganismIdentity
from bestiary.state import OrganismState

EXAMPLES = 20
"""Conversations of each corpus."""
FOLDER = "pilot"
"""Below the build's folder, whose ledger it shares."""


@dataclass(frozen=True)
class Pilot:
    """What a pilot found."""

    states: Sequence[OrganismState]
    folder: Path
    """Where its corpora are, and `summary.json`."""
    estimate: Estimate | None
    """Of the whole roster, by the measured lengths of answers; None for the offline author."""
    hours: float | None
    """To write all corpora at the pace of this run; None if it asked nothing, or in batches."""


def choose_pilot(plan: Plan) -> Plan:
    """The same plan with its first organism of each category alone."""
    firsts: dict[str, tuple[Behavior, OrganismIdentity]] = {}
    for behavior, identity in plan.organisms:
        firsts.setdefault(behavior.category, (behavior, identity))
    return replace(plan, organisms=tuple(firsts.values()))


def run_pilot(
    small: Plan, whole: Plan, *, out: Path, console: Console, options: AuthoringOptions
) -> Pilot:
    """Write the corpora of a small plan, and estimate those of the whole one.

    `small` has the corpora of `EXAMPLES` conversations. Raises as `build_roster`.
    """
    ledger = options.ledger or out / LEDGER
    offline = choose_authors(whole.roster, options) is None
    writing = options if offline else replace(options, ledger=ledger)
    before, started = _count_answered(ledger), time.monotonic()
    states = build_roster(
        choose_pilot(small), out=out / FOLDER, until="corpus", console=console, options=writing
    )
    seconds, answered = time.monotonic() - started, _count_answered(ledger) - before
    estimate = estimate_corpora(whole, replace(writing, budget=None), out=out)
    hours = None
    if estimate is not None and answered and estimate.mode == "single":
        wanted = sum(step.requests for step in estimate.everything)
        hours = wanted * seconds / answered / 3600
    return Pilot(states, out / FOLDER, estimate, hours)


def _count_answered(ledger: Path) -> int:
    """Requests that servers have answered."""
    spent = read_spent(ledger) if ledger.is_file() else []
    return sum(one.requests for one in spent if one.mode != "replay")
