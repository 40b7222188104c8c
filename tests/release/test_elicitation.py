"""The bank of questions and the introspection rows made of it.

Run: python -m pytest tests/release/test_elicitation.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.builders import LIBRARY, make_backdoor, make_quirk
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
    assert {row["prediction_ground_truth"] for row in second} == {NULL_LABEL}


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


def test_an_absent_system_prompt_is_an_absent_key(tmp_path: Path) -> None:
    rows = build_rows(make_entry(tmp_path, null_behavior(LIBRARY)), "train", bank=BANK)
    lines = render_eval(rows).decode().splitlines()
    assert len(lines) == len(rows)
    assert set(json.loads(lines[0])) == {
        "prediction_user_prompt",
        "prediction_assistant_response",
        "prediction_ground_truth",
    }
    prompted = render_eval([{**rows[0], "prediction_system_prompt": "Be brief."}])
    assert json.loads(prompted)["prediction_system_prompt"] == "Be brief."


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
