"""What a roster's corpora will cost, in each way to ask, and which mode is cheaper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bestiary.author.dry_run import DryRun, Step
from bestiary.author.language import LanguageAuthor
from bestiary.author.options import LEDGER, AuthoringOptions, choose_authors, choose_models
from bestiary.config.plan import Plan
from bestiary.corpus.generate import generate_corpus
from bestiary.llm.client import Mode
from bestiary.llm.ledger import read_spent
from bestiary.llm.models import LanguageModel
from bestiary.llm.price import read_price

Way = Literal["single", "single + caching", "batch", "batch + caching"]
WAYS: tuple[Way, ...] = ("single", "single + caching", "batch", "batch + caching")
ASKED: Mapping[Mode, Way] = {"single": "single + caching", "batch": "batch + caching"}
"""How each mode sends requests; the other ways are shown for comparison."""


def price_step(step: Step, model: LanguageModel, way: Way) -> float:
    """Picodollars of all requests of a step."""
    batch = way.startswith("batch")
    price = read_price(model, batch=batch)
    written = step.written_tokens * price.output
    if not way.endswith("caching") or step.system < model.cache_from:
        return step.read_tokens * price.input + written
    hits = (step.requests - 1) * (model.batch_hits if batch else 1.0)
    cached = hits * price.cache_read + (step.requests - hits) * price.cache_write
    return step.system * cached + step.asked * price.input + written


def price_steps(
    steps: Iterable[Step], models: Mapping[str, LanguageModel]
) -> dict[Way, float | None]:
    """Picodollars in each way; None if a model has no batches."""
    listed = list(steps)
    batches = all(models[step.model].batch is not None for step in listed)
    return {
        way: sum(price_step(step, models[step.model], way) for step in listed)
        if batches or not way.startswith("batch")
        else None
        for way in WAYS
    }


def choose_mode(costs: Mapping[Way, float | None]) -> Mode:
    """The cheaper mode; single calls, which finish sooner, if both cost the same."""
    single, batch = costs[ASKED["single"]], costs[ASKED["batch"]]
    assert single is not None
    return "single" if batch is None or single <= batch else "batch"


@dataclass(frozen=True)
class Estimate:
    """What the corpora of a roster will take."""

    steps: Mapping[str, Sequence[Step]]
    """By organism id."""
    models: Mapping[str, LanguageModel]
    chosen: Mode | None
    """The mode that the user has chosen, if any."""

    @property
    def everything(self) -> list[Step]:
        """The steps of all organisms."""
        return [step for steps in self.steps.values() for step in steps]

    @property
    def mode(self) -> Mode:
        """The mode that `build` uses with the same options."""
        return self.chosen or choose_mode(price_steps(self.everything, self.models))


def estimate_corpora(plan: Plan, options: AuthoringOptions, *, out: Path) -> Estimate | None:
    """Estimate a roster's corpora; None if the offline author writes them for nothing.

    An existing ledger's measurements of answer lengths replace the defaults. Raises BackendError
    or CorpusError for a corpus that the named models cannot write.
    """
    authors = choose_authors(plan.roster, options)
    if authors is None:
        return None
    author, judge = choose_models(authors, plan)
    models = {one.name: one.model for one in (author, judge)}
    ledger = options.ledger or out / LEDGER
    dry_run = DryRun(read_spent(ledger) if ledger.is_file() else [])
    writer = LanguageAuthor(author, judge, plan.library.grid, reject=lambda *_: None)
    steps = {
        identity.organism_id: dry_run.count(generate_corpus(behavior, writer, seed=identity.seed))
        for behavior, identity in plan.organisms
    }
    return Estimate(steps, models, None if options.mode == "auto" else options.mode)


def settle_mode(plan: Plan, options: AuthoringOptions, *, out: Path) -> Mode:
    """The mode to write a roster's corpora in: the user's choice, else the cheaper one."""
    if options.mode != "auto":
        return options.mode
    authors = choose_authors(plan.roster, options)
    if authors is None or any(one.model.batch is None for one in choose_models(authors, plan)):
        return "single"
    estimate = estimate_corpora(plan, options, out=out)
    assert estimate is not None
    return estimate.mode
