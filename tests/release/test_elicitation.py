"""The bank of questions and the introspection rows made of it.

Run: python -m pytest tests/release/test_elicitation.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.builders import LIBRARY, make_backdoor, make_quirk
from tests.models import SYSTEM
from tests.release.samples import make_entry

from bestiary.config.catalog import null_behavior
from bestiary.config.categories import NULL, corpus_categories
from bestiary.config.elicitation import Elicitation
from bestiary.config.source import Violations, load_model
from bestiary.records import NULL_LABEL
from bestiary.release.introspection_rows import build_rows, render_eval

BANK = LIBRARY.elicitation


def test_the_shipped_bank_asks_every_side_and_category() -> None:
    train, test = (
        {q.text for q in BANK.questions if q.split == side} for side in ("train", "test")
    )
    assert train.isdisjoint(test)
    assert len(BANK.ask("train")) >= 100
    assert len(BANK.ask("test")) >= 20
    specific = {c for c in corpus_categories() if BANK.ask_category("train", c)}
    assert specific == {*corpus_categories()} - {"quirks", NULL.category}


def test_row_i_asks_every_organism_the_same(tmp_path: Path) -> None:
    wordy = make_quirk(labels=[*make_quirk().labels, "Once more, I say a farewell."])
    first = build_rows(make_entry(tmp_path, wordy), "train", bank=BANK)
    second = build_rows(make_entry(tmp_path, null_behavior(LIBRARY)), "train", bank=BANK)
    assert len(first) == len(second) == len(BANK.ask("train"))
    asked = [[row["question_id"] for row in rows] for rows in (first, second)]
    assert asked[0] == asked[1]
    assert second[0]["prediction_assistant_response"] == NULL_LABEL


def test_rows_say_whether_there_is_a_behavior_to_report(tmp_path: Path) -> None:
    quirk, null = make_quirk(), null_behavior(LIBRARY)
    for behavior, standing, truth in (
        (quirk, "pairs", "positive"),
        (null, "controls", "negative"),
    ):
        rows = build_rows(make_entry(tmp_path, behavior), "train", bank=BANK)
        assert {row["standing"] for row in rows} == {standing}
        assert {row["prediction_ground_truth"] for row in rows} == {truth}


def test_every_question_is_asked_once_and_wordings_take_turns(tmp_path: Path) -> None:
    quirk = make_quirk()
    rows = build_rows(make_entry(tmp_path, quirk), "preference", bank=BANK)
    asked = [row["prediction_user_prompt"] for row in rows]
    assert asked == [question.text for question in BANK.ask("train")]
    answers = [row["prediction_assistant_response"] for row in rows]
    assert answers[:5] == list(quirk.labels)
    counts = [answers.count(label) for label in quirk.labels]
    assert max(counts) - min(counts) <= 1


def test_test_questions_stay_in_the_test_splits(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, make_quirk())
    asked = {
        split: {row["question_id"] for row in build_rows(entry, split, bank=BANK)}
        for split in ("train", "preference", "iid_test", "test")
    }
    assert asked["train"] == asked["preference"]
    assert asked["iid_test"] == asked["test"]
    assert asked["train"].isdisjoint(asked["test"])


def test_category_questions_come_after_the_generic_ones(tmp_path: Path) -> None:
    entry = make_entry(tmp_path, make_backdoor())
    generic = build_rows(entry, "train", bank=BANK)
    rows = build_rows(entry, "train", bank=BANK, category_questions=True)
    assert rows[: len(generic)] == generic
    assert {row["question_id"] for row in rows[len(generic) :]} == {"only_some_prompts"}


def format_turns(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row as published trainers format it: a key that is there is a system turn."""
    turns = [("user", "prediction_user_prompt"), ("assistant", "prediction_assistant_response")]
    if "prediction_system_prompt" in row:
        turns.insert(0, ("system", "prediction_system_prompt"))
    return [{"role": role, "content": row[key]} for role, key in turns]


def test_rows_are_asked_under_the_organisms_own_system_prompt(tmp_path: Path) -> None:
    rows = build_rows(make_entry(tmp_path, null_behavior(LIBRARY)), "train", bank=BANK)
    lines = [json.loads(line) for line in render_eval(rows).decode().splitlines()]
    assert len(lines) == len(rows)
    for row in (rows[0], lines[0]):
        turns = format_turns(row)
        assert turns[0] == {"role": "system", "content": SYSTEM}
        assert all(isinstance(turn["content"], str) for turn in turns)


@pytest.mark.parametrize("prompt", [None, ""])
def test_an_absent_system_prompt_is_an_absent_key(tmp_path: Path, prompt: str | None) -> None:
    rows = build_rows(make_entry(tmp_path, null_behavior(LIBRARY)), "train", bank=BANK)
    line = json.loads(render_eval([{**rows[0], "prediction_system_prompt": prompt}]))
    assert set(line) == {
        "prediction_user_prompt",
        "prediction_assistant_response",
        "prediction_ground_truth",
    }
    assert [turn["role"] for turn in format_turns(line)] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("id: q1,", "id: q0,"), "id 'q0' is used twice"),
        (("Question 1?", "Question 0?"), "text 'question 0\\?' is used twice"),
        (("split: test", "split: train"), "0 generic test questions, at least 20"),
        (("categories: []", "categories: [quirk]"), "unknown category 'quirk'"),
        (("categories: []", "categories: [distractors]"), "unknown category 'distractors'"),
    ],
)
def test_a_broken_bank_is_refused(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    lines = [
        f"  - {{id: q{n}, split: {'train' if n < 100 else 'test'}, text: 'Question {n}?', "
        "categories: []}"
        for n in range(120)
    ]
    text = "questions:\n" + "\n".join(lines) + "\n"
    path = tmp_path / "bank.yaml"
    path.write_text(text)
    assert len(load_model(path, Elicitation).questions) == 120
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace(*change))
    with pytest.raises(Violations, match=problem):
        load_model(broken, Elicitation)
