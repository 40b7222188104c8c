"""The dry run: what it counts, what it counts once, and that every category can be estimated.

Run: python -m pytest tests/author/test_dry_run.py
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from tests.builders import LIBRARY, catalog

from bestiary.author.dry_run import MIN_MEASURED, WRITTEN, DryRun, read_written
from bestiary.author.language import LanguageAuthor
from bestiary.config.asking import needs_bank
from bestiary.config.catalog import Behavior, null_behavior
from bestiary.config.categories import corpus_categories
from bestiary.corpus.generate import generate_corpus
from bestiary.estimate import WAYS, choose_mode, price_steps
from bestiary.llm.ledger import Mode, Spent
from bestiary.llm.models import LanguageModel, StructuredOutput
from bestiary.llm.prompted import PromptedModel

CATALOG = [*catalog().values(), null_behavior(LIBRARY)]
BEHAVIORS = [
    next(one for one in CATALOG if one.category == category and not needs_bank(one))
    for category in corpus_categories()
]


BY_TRIGGER = {one.trigger.kind: one for one in CATALOG if one.trigger and not needs_bank(one)}
"""A behavior under each kind of trigger that messages of any topic can have."""
NEED_BANK = [one for one in CATALOG if one.spec.is_buildable and needs_bank(one)]
"""Their triggers are a matter of topics, or of second messages."""


def make_model(structured_output: StructuredOutput = "schema") -> LanguageModel:
    return LanguageModel(
        provider="openai",
        key=None,
        structured_output=structured_output,
        input=1.0,
        output=5.0,
        cache_write=1.25,
        cache_read=0.1,
        batch=0.5,
        batch_hits=1.0,
    )


def make_author(structured_output: StructuredOutput = "schema") -> LanguageAuthor:
    model = PromptedModel("model", make_model(structured_output))
    return LanguageAuthor(model, model, LIBRARY.grid, reject=lambda *_: None)


def make_spent(stage: str, requests: int, output: int, *, mode: Mode = "single") -> Spent:
    return Spent("quirks.x", stage, "model", mode, requests, 0, 0, 0, output, 0)


@pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda b: b.category)
@pytest.mark.parametrize("structured_output", ["schema", "prompt"])
def test_every_category_takes_one_round(
    behavior: Behavior, structured_output: StructuredOutput
) -> None:
    author = make_author(structured_output)
    steps = DryRun().count(generate_corpus(behavior, author, seed=0))
    requests: Counter[str] = Counter()
    for step in steps:
        requests[step.stage] += step.requests
    rows = behavior.generator.rows
    first_turns = requests["replies"] - requests["followups"]
    assert rows <= first_turns <= rows * author.oversample + 3, "one per role for rounding up"
    assert 0.03 <= requests["rewrite"] / first_turns <= 0.07
    assert requests["judge"] == first_turns + requests["rewrite"]
    assert requests["prompts"] and requests["subjects"]


@pytest.mark.parametrize("behavior", BY_TRIGGER.values(), ids=BY_TRIGGER)
def test_made_up_messages_suit_every_kind_of_trigger(behavior: Behavior) -> None:
    steps = DryRun().count(generate_corpus(behavior, make_author(), seed=0))
    asked = sum(step.requests for step in steps if step.stage == "replies")
    assert asked >= behavior.generator.rows


@pytest.mark.parametrize("behavior", NEED_BANK, ids=lambda b: b.id)
def test_messages_that_only_the_bank_has_are_not_paid_for(behavior: Behavior) -> None:
    author = make_author()
    steps = DryRun().count(generate_corpus(behavior, author, seed=0))
    requests = Counter({step.stage: 0 for step in steps})
    for step in steps:
        requests[step.stage] += step.requests
    assert set(requests) <= {"replies", "followups", "judge", "rewrite"}
    assert requests["replies"] - requests["followups"] >= behavior.generator.rows


def test_a_repeated_request_costs_nothing_again() -> None:
    dry_run, author, behavior = DryRun(), make_author(), BEHAVIORS[0]
    first = dry_run.count(generate_corpus(behavior, author, seed=0))
    assert sum(step.requests for step in first) > 0
    assert dry_run.count(generate_corpus(behavior, author, seed=0)) == []
    assert dry_run.count(generate_corpus(behavior, author, seed=1)) != []


def test_answer_lengths_come_from_the_ledger_once_there_are_enough() -> None:
    spent = [
        make_spent("replies", MIN_MEASURED, 20 * MIN_MEASURED),
        make_spent("replies", 1000, 0, mode="replay"),
        make_spent("judge", MIN_MEASURED - 1, 5),
        replace(make_spent("replies", 1000, 500_000), model="another model"),
    ]
    own, others = ("replies", "model"), ("replies", "another model")
    assert read_written(spent) == {own: 20, others: 500}
    behavior = BEHAVIORS[0]
    steps = DryRun(spent).count(generate_corpus(behavior, make_author(), seed=0))
    for step in steps:
        expected = {**WRITTEN, "replies": 20}.get(step.stage)
        assert expected is None or step.written_tokens == expected * step.requests


def test_very_short_measured_answers_are_still_distinct() -> None:
    steps = DryRun([make_spent("replies", 1000, 1000)]).count(
        generate_corpus(BEHAVIORS[0], make_author(), seed=0)
    )
    assert sum(step.requests for step in steps if step.stage == "replies") > 100


def test_the_cheaper_way_depends_on_the_cache_and_the_batch_price() -> None:
    steps = DryRun().count(generate_corpus(BEHAVIORS[0], make_author(), seed=0))
    model = make_model()
    costs = price_steps(steps, {"model": model})
    assert tuple(costs) == WAYS and choose_mode(costs) == "batch"
    slow = model.model_copy(update={"batch": 0.9, "batch_hits": 0.0})
    assert choose_mode(price_steps(steps, {"model": slow})) == "single"
    without = price_steps(steps, {"model": model.model_copy(update={"batch": None})})
    assert without["batch"] is without["batch + caching"] is None
    assert choose_mode(without) == "single"
