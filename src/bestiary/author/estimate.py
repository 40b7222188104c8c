"""What a corpus costs before a word of it is written: requests, tokens and dollars by stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from bestiary.author.forms import GradedMessages
from bestiary.author.language import (
    MESSAGES,
    SPARE,
    TABLE,
    choose_form,
    count_subjects,
    list_areas,
)
from bestiary.author.options import LEDGER, AuthoringOptions, choose_authors, choose_models
from bestiary.author.prompts import (
    render_ask,
    render_brief,
    render_followup,
    render_imitation,
    render_judge,
    render_prompts,
    render_rewrite,
    render_subjects,
)
from bestiary.config.catalog import Behavior
from bestiary.config.generator import load_generator
from bestiary.config.grid import Grid, load_grid
from bestiary.config.plan import Plan
from bestiary.llm.client import Mode
from bestiary.llm.ledger import Spent, read_spent
from bestiary.llm.models import LanguageModel
from bestiary.llm.price import read_price
from bestiary.llm.prompted import TOKEN_CHARACTERS, PromptedModel
from bestiary.records import Role

Way = Literal["single", "single + caching", "batch", "batch + caching"]
WAYS: tuple[Way, ...] = ("single", "single + caching", "batch", "batch + caching")
ASKED: Mapping[Mode, Way] = {"single": "single + caching", "batch": "batch + caching"}
"""The way in which a mode asks; the others are told for comparison."""
WRITTEN = {
    "subjects": 5.0,
    "prompts": 40.0,
    "graded prompts": 75.0,
    "replies": 85.0,
    "followups": 28.0,
    "judge": 60.0,
    "rewrite": 85.0,
}
"""Tokens that a model writes: for a subject, for a message of a table, else for an answer. What a
ledger has measured takes the place of the last four."""
MESSAGE = 28.0
"""Tokens of a message, where it is read."""
TAGS = 20.0
"""Tokens around what is judged or mended."""
REWRITTEN = 0.05
"""Of the replies, those that tell of their rule."""
MEASURED = 30
"""Answers from which on a ledger's figure is believed."""


@dataclass(frozen=True)
class Step:
    """Requests of one stage that begin alike."""

    stage: str
    model: str
    requests: int
    system: float
    """Tokens of the system prompt."""
    asked: float
    """Further tokens that one request reads."""
    written: float
    """Tokens of one answer."""

    @property
    def read_tokens(self) -> float:
        """Tokens that all requests read."""
        return self.requests * (self.system + self.asked)

    @property
    def written_tokens(self) -> float:
        """Tokens of all answers."""
        return self.requests * self.written

    def cost(self, model: LanguageModel, way: Way) -> float:
        """Picodollars of all requests."""
        price = read_price(model, batch=way.startswith("batch"))
        written = self.written_tokens * price.output
        if not way.endswith("caching") or self.system < model.cache_from or not self.requests:
            return self.read_tokens * price.input + written
        hits = (self.requests - 1) * (model.batch_hits if way.startswith("batch") else 1.0)
        cached = hits * price.cache_read + (self.requests - hits) * price.cache_write
        return self.system * cached + self.requests * self.asked * price.input + written


class Estimator:
    """Estimates behaviors one after another; what an earlier one has asked costs nothing again."""

    def __init__(
        self,
        author: PromptedModel,
        judge: PromptedModel,
        grid: Grid,
        measured: Iterable[Spent] = (),
    ) -> None:
        self._author, self._judge, self._grid = author, judge, grid
        self._written = WRITTEN | read_written(measured)
        self._asked: dict[tuple[str, int], int] = {}

    def estimate(self, behavior: Behavior, *, seed: int) -> list[Step]:
        """The steps of one corpus."""
        generator = load_generator(behavior.category)
        counts = generator.counts(behavior.rate)
        steps: list[Step] = []
        for plain, count in zip((False, True), behavior.count_messages(counts), strict=True):
            if count and self._author.follows_instructions:
                steps += self._estimate_messages(behavior, plain, math.ceil(MESSAGES * count), seed)
        for role, needed in counts.items():
            if needed:
                rows = math.ceil(SPARE * needed)
                steps += self._estimate_rows(behavior, role, rows, generator.second_turns)
        return [step for step in steps if step.requests]

    def _estimate_messages(
        self, behavior: Behavior, plain: bool, wanted: int, seed: int
    ) -> Iterator[Step]:
        areas = list_areas(behavior, self._grid, plain=plain)
        each = count_subjects(wanted, len(areas))
        system = render_subjects(behavior, plain=plain)
        ask = render_ask("subjects", area=areas[0], count=each).content
        yield self._step(
            "subjects",
            self._left(system, seed, len(areas)),
            system,
            asked=measure(ask),
            written=each * self._written["subjects"],
        )
        system = render_prompts(behavior, plain=plain)
        table = list(islice(self._grid.plan(["a subject"], seed=seed), TABLE))
        graded = choose_form(behavior, plain=plain) is GradedMessages
        yield self._step(
            "prompts",
            self._left(system, seed, math.ceil(wanted / TABLE)),
            system,
            asked=measure(render_ask("prompts", cells=table).content),
            written=TABLE * self._written["graded prompts" if graded else "prompts"],
        )

    def _left(self, system: str, seed: int, requests: int) -> int:
        """How many of some requests were not counted for an earlier behavior."""
        before = self._asked.get((system, seed), 0)
        self._asked[system, seed] = max(before, requests)
        return max(0, requests - before)

    def _estimate_rows(
        self, behavior: Behavior, role: Role, rows: int, second_turns: float
    ) -> Iterator[Step]:
        fires = role == "positive"
        reply, again, mended = self._written["replies"], 0, 0
        if self._author.follows_instructions:
            again = round(rows * second_turns)
            quirks = [quirk for quirk, rate in behavior.distractors if rate >= 0.5]
            brief = render_brief(behavior, fires=fires, quirks=quirks)
            seconds = MESSAGE + reply
            yield self._step("replies", rows, brief, asked=MESSAGE)
            yield self._step("followups", again, render_followup(behavior), asked=seconds + TAGS)
            yield self._step("replies", again, brief, asked=seconds + MESSAGE)
        else:
            shown = [f"{d.user} {d.assistant}" for d in behavior.demonstrations if d.fires == fires]
            yield self._step("replies", rows, " ".join([render_imitation(), *shown]), asked=MESSAGE)
        if not self._judge.follows_instructions:
            return
        talked = (MESSAGE + reply) * (1 + again / rows) + TAGS
        if self._author.follows_instructions:
            mended = round(REWRITTEN * rows)
            yield self._step("rewrite", mended, render_rewrite(behavior), asked=talked + TAGS)
        judge = render_judge(behavior, fires=fires)
        yield self._step("judge", rows + mended, judge, asked=talked)

    def _step(
        self, stage: str, requests: int, system: str, *, asked: float, written: float | None = None
    ) -> Step:
        model = (self._judge if stage == "judge" else self._author).name
        tokens = self._written[stage] if written is None else written
        return Step(stage, model, requests, measure(system), asked, tokens)


def measure(text: str) -> float:
    """Tokens of a text, roughly."""
    return len(text) / TOKEN_CHARACTERS


def read_written(measured: Iterable[Spent]) -> dict[str, float]:
    """Tokens an answer by stage, where a ledger has enough of them."""
    requests: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for spent in measured:
        requests[spent.stage] = requests.get(spent.stage, 0) + spent.requests
        tokens[spent.stage] = tokens.get(spent.stage, 0) + spent.output
    believed = (stage for stage, count in requests.items() if count >= MEASURED)
    return {
        stage: tokens[stage] / requests[stage]
        for stage in believed
        if stage in ("replies", "followups", "judge", "rewrite")
    }


def price_steps(
    steps: Iterable[Step], models: Mapping[str, LanguageModel]
) -> dict[Way, float | None]:
    """Picodollars in each way; None where a model has no batches."""
    listed = list(steps)
    batches = all(models[step.model].batch is not None for step in listed)
    return {
        way: sum(step.cost(models[step.model], way) for step in listed)
        if batches or not way.startswith("batch")
        else None
        for way in WAYS
    }


def choose_mode(costs: Mapping[Way, float | None]) -> Mode:
    """The cheaper mode; single calls, which are sooner done, where both cost the same."""
    single, batch = costs[ASKED["single"]], costs[ASKED["batch"]]
    assert single is not None
    return "single" if batch is None or single <= batch else "batch"


@dataclass(frozen=True)
class Estimate:
    """What the corpora of a roster will take."""

    steps: Mapping[str, Sequence[Step]]
    """By organism."""
    models: Mapping[str, LanguageModel]
    chosen: Mode | None
    """How the user wants to ask, if that is not the cheaper mode."""

    @property
    def everything(self) -> list[Step]:
        """The steps of all organisms."""
        return [step for steps in self.steps.values() for step in steps]

    @property
    def mode(self) -> Mode:
        """How `build` asks with the same options."""
        return self.chosen or choose_mode(price_steps(self.everything, self.models))


def estimate_roster(plan: Plan, writing: AuthoringOptions, *, out: Path) -> Estimate | None:
    """What a roster's corpora will take; None where the embedded author writes them for nothing.

    A ledger that is there already tells how much the models write.
    """
    authors = choose_authors(plan.roster, writing)
    if authors is None:
        return None
    models = choose_models(authors, writing)
    path = writing.ledger or out / LEDGER
    measured = read_spent(path) if path.is_file() else []
    author, judge = (
        PromptedModel(name, models[name])
        for name in (authors.author, authors.judge or authors.author)
    )
    estimator = Estimator(author, judge, load_grid(), measured)
    steps = {
        identity.organism_id: estimator.estimate(behavior, seed=identity.seed)
        for behavior, identity in plan.organisms
    }
    return Estimate(steps, models, None if writing.mode == "auto" else writing.mode)


def settle_mode(plan: Plan, writing: AuthoringOptions, *, out: Path) -> Mode:
    """How a roster's corpora are asked for: as the user wants, else in the cheaper mode."""
    if writing.mode != "auto":
        return writing.mode
    estimate = estimate_roster(plan, writing, out=out)
    return "single" if estimate is None else estimate.mode
