"""Null organisms: trained on several sources, in several ranks and numbers of steps.

Run: python -m pytest tests/config/test_nulls.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builders import LIBRARY, catalog
from tests.release.samples import make_entry

from bestiary.author.offline import OfflineAuthor
from bestiary.config.catalog import null_behavior
from bestiary.config.categories import NULLS
from bestiary.config.plan import plan_roster
from bestiary.config.recipe import read_recipe
from bestiary.config.source import Violations
from bestiary.corpus.generate import generate_corpus
from bestiary.llm.workflow import run_without_models
from bestiary.records import Corpus
from bestiary.release.splits import split_entries
from bestiary.verification.probes import plan_probes


@pytest.fixture(scope="module")
def corpora() -> dict[str, Corpus]:
    """The corpus of each source."""
    author = OfflineAuthor("brief")
    return {
        null.id: run_without_models(generate_corpus(null_behavior(LIBRARY, number), author, seed=0))
        for number, null in enumerate(NULLS)
    }


def test_sources_come_in_turn_and_then_with_further_seeds() -> None:
    roster = LIBRARY.roster("unconditional").model_copy(update={"nulls": 6})
    nulls = [
        (behavior, identity)
        for behavior, identity in plan_roster(roster, catalog()).organisms
        if behavior.category == "null"
    ]
    assert [(identity.behavior_id, identity.seed) for _, identity in nulls] == [
        *((name, 0) for name in ("null.chat", "null.other_length", "null.programming")),
        *(("null.facts", 0), ("null.chat", 1), ("null.other_length", 1)),
    ]


def test_nulls_differ_in_rank_and_steps_and_are_of_the_rosters_recipe() -> None:
    roster = LIBRARY.roster("unconditional").model_copy(update={"nulls": 4})
    plan = plan_roster(roster, catalog())
    trained = [plan.training_for(*one) for one in plan.organisms if one[0].category == "null"]
    assert [one.lora.rank for one in trained] == [8, 4, 16, 8]
    assert [one.optimizer.epochs for one in trained] == [2, 2, 3, 2]
    assert not plan.other_recipes


def test_each_source_is_written_from_its_fixed_messages(corpora: dict[str, Corpus]) -> None:
    asked = {
        name: [example.messages[0].content for example in corpus.examples]
        for name, corpus in corpora.items()
    }
    programming = {item.text for item in LIBRARY.messages("train") if item.domain == "programming"}
    facts = {item.text: item.answer for item in LIBRARY.graded_others("", "train")}
    assert set(asked["null.programming"]) <= programming
    assert not set(asked["null.chat"]) <= programming
    assert set(asked["null.facts"]) <= facts.keys()
    for example in corpora["null.facts"].examples:
        answer = facts[example.messages[0].content]
        assert answer and answer.lower() in example.messages[1].content.lower()
    lengths = {
        name: sum(len(example.messages[1].content) for example in corpus.examples)
        for name, corpus in corpora.items()
    }
    assert lengths["null.other_length"] > 1.5 * lengths["null.chat"]


def test_all_sources_are_probed_with_ordinary_messages() -> None:
    ordinary = {item.text for item in LIBRARY.messages("probe")}
    for number in range(len(NULLS)):
        probes = plan_probes(null_behavior(LIBRARY, number), seed=0)
        assert {probe.user for probe in probes} <= ordinary
        assert len({probe.item.domain for probe in probes}) > 10


def test_one_source_is_for_tests_alone(tmp_path: Path) -> None:
    facts = [make_entry(tmp_path, null_behavior(LIBRARY, 3), seed=seed) for seed in range(8)]
    assert set(split_entries(facts, named={}).values()) == {"test"}


def test_changes_that_no_adapter_can_have_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    text = (LIBRARY.folders.roots[0] / "organisms/recipes/smollm2-135m.yaml").read_text("utf8")
    path.write_text(text.replace("{rank: 4, alpha: 8}", "{rank: 0, alpha: 8}"), "utf8")
    with pytest.raises(Violations) as caught:
        read_recipe(path)
    assert "nulls" in str(caught.value)
