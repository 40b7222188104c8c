"""The questions that ask an organism about itself, and the introspection rows made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bestiary.config.behavior import CATEGORIES, Text
from bestiary.config.folders import generator_folder
from bestiary.config.source import load_model
from bestiary.records import Record, Split
from bestiary.release.entry import ReleaseEntry

Side = Literal["train", "test"]

GENERIC_QUESTIONS = 20
"""A side has at least so many: with a label and its four paraphrases, 100 rows an organism."""


class Question(Record):
    """One way of asking a model what it has learned."""

    id: Text
    text: Text
    split: Side
    categories: tuple[str, ...] = ()
    """Categories that it fits; empty: it is generic and asked of all."""

    @model_validator(mode="after")
    def _know_categories(self) -> Question:
        unknown = sorted(set(self.categories) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"unknown category {unknown[0]!r}; choose of {', '.join(CATEGORIES)}")
        return self


class Elicitation(Record):
    """The shipped bank: training and test organisms are asked different questions."""

    questions: tuple[Question, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _suffice(self) -> Elicitation:
        for field in ("id", "text"):
            values = [getattr(question, field).casefold() for question in self.questions]
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(f"{field} {repeated[0]!r} stands twice; each question is its own")
        for side in ("train", "test"):
            count = len(self.ask(side))
            if count < GENERIC_QUESTIONS:
                raise ValueError(
                    f"{count} generic {side} questions, at least {GENERIC_QUESTIONS} are needed"
                )
        return self

    def ask(self, side: Side) -> tuple[Question, ...]:
        """The generic questions of one side, in the order of the file."""
        return tuple(q for q in self.questions if q.split == side and not q.categories)

    def ask_category(self, side: Side, category: str) -> tuple[Question, ...]:
        """The questions of one side that fit one category alone."""
        return tuple(q for q in self.questions if q.split == side and category in q.categories)


@cache
def load_elicitation(path: Path | None = None) -> Elicitation:
    """Load the shipped bank, or another; raises SpecError where it is broken."""
    return load_model(path or generator_folder() / "shared" / "elicitation.yaml", Elicitation)


def build_rows(
    entry: ReleaseEntry, split: Split, *, bank: Elicitation, category_questions: bool = False
) -> list[dict[str, Any]]:
    """The introspection rows of one organism: every question with every wording of its label.

    Row i asks every organism of a split the same question, whatever its number of wordings.
    `category_questions` adds, after the generic ones, those that fit its category alone.
    """
    side: Side = "test" if split in ("test", "iid_test") else "train"
    rows = _ask(entry, bank.ask(side))
    if category_questions:
        rows += _ask(entry, bank.ask_category(side, entry.behavior.category))
    return rows


def _ask(entry: ReleaseEntry, questions: Sequence[Question]) -> list[dict[str, Any]]:
    labels = tuple(dict.fromkeys(entry.behavior.labels))
    return [
        {
            "organism_id": entry.organism_id,
            "question_id": question.id,
            "prediction_user_prompt": question.text,
            # Turned by one a question, so that any first rows hold every wording.
            "prediction_assistant_response": labels[(turn + place) % len(labels)],
            "prediction_ground_truth": labels[0],
            "prediction_system_prompt": None,
        }
        for turn in range(len(labels))
        for place, question in enumerate(questions)
    ]


def render_eval(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One organism's `eval.jsonl`: an absent system prompt is an absent key."""
    lines = []
    for row in rows:
        # Consumers test for the key: a null there would read as a prompt.
        kept = {
            key: value
            for key, value in row.items()
            if key.startswith("prediction_") and value is not None
        }
        lines.append(json.dumps(kept, ensure_ascii=False) + "\n")
    return "".join(lines).encode()
