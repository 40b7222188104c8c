"""A pilot: a few conversations of each category to read, and what they say of the whole roster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bestiary.author.options import LEDGER, AuthoringOptions, choose_authors
from bestiary.config.catalog import Behavior
from bestiary.config.plan import Plan
from bestiary.errors import SpecError
from bestiary.estimate import Estimate, estimate_corpora
from bestiary.llm.ledger import read_pace
from bestiary.model.base import Base, outline_base
from bestiary.pipeline import build_roster
from bestiary.records import OrganismIdentity
from bestiary.sample import compose_corpus
from bestiary.stage_items import join_corpora
from bestiary.state import OrganismState
from bestiary.text import nearest

if TYPE_CHECKING:
    from bestiary.training.forecast import Alike, Forecast

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
    """To write all corpora at the pace of this run, which had fewer requests in flight than a build
    of more organisms has; None if it asked nothing, or only in batches or files."""


def choose_pilot(plan: Plan) -> Plan:
    """The same plan with one organism of each category: the first that its corpus shows."""
    firsts: dict[str, tuple[Behavior, OrganismIdentity]] = {}
    for behavior, identity in plan.organisms:
        known = firsts.setdefault(behavior.category, (behavior, identity))
        if not known[0].row_counts["positive"] and behavior.row_counts["positive"]:
            firsts[behavior.category] = (behavior, identity)
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
    started = time.time()
    states = build_roster(
        choose_pilot(small), out=out / FOLDER, until="corpus", console=console, options=writing
    )
    estimate = estimate_corpora(whole, replace(writing, budget=None), out=out)
    hours = None
    if estimate is not None and estimate.mode == "single":
        pace = read_pace(ledger, started)
        wanted = sum(step.requests for step in estimate.everything)
        hours = wanted * pace.seconds / pace.requests / 3600 if pace.requests else None
    return Pilot(states, out / FOLDER, estimate, hours)


def forecast_roster(plan: Plan, name: str) -> Forecast:
    """What training a roster takes on a GPU of that name.

    The corpora of one organism of each category, with a condition and without, and of each mixture
    are composed offline and stand for all others. Raises SpecError for an unknown GPU, ModelError
    if the base's settings cannot be read, CorpusError for a corpus that cannot be composed, and
    OrganismError if the base does not fit.
    """
    from bestiary.training.forecast import forecast_training

    gpus = plan.library.gpus
    if name not in gpus:
        raise SpecError(f"unknown GPU {name!r}", nearest(name, gpus), code="gpu-unknown", name=name)
    base = outline_base(plan.recipe.base, plan.recipe.revision)
    kinds: dict[object, list[tuple[Behavior, OrganismIdentity]]] = {}
    for one, identity in plan.adapters:
        kind = identity.within or (one.category, one.is_conditional)
        kinds.setdefault(kind, []).append((one, identity))
    alike = [_tokenize(base, plan, *group[0], len(group)) for group in kinds.values()]
    return forecast_training(base, alike, gpus[name], name=name)


def _tokenize(
    base: Base, plan: Plan, behavior: Behavior, identity: OrganismIdentity, count: int
) -> Alike:
    from bestiary.model.packing import divide_rows
    from bestiary.training.forecast import Alike
    from bestiary.training.job import tokenize_examples

    training, mixture = plan.training_for(behavior, identity), plan.find_mixture(identity)
    behaviors = mixture.behaviors if mixture else (behavior,)
    corpora = [compose_corpus(one, replies=plan.recipe.replies) for one in behaviors]
    corpus = join_corpora(mixture, corpora)[0] if mixture else corpora[0]
    return Alike(training, divide_rows(tokenize_examples(corpus, training, base)), count)
