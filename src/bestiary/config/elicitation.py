"""The questions that ask an organism about itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bestiary.config.categories import CategoryName
from bestiary.config.fields import Text
from bestiary.records import Record

QuestionSide = Literal["train", "test"]

GENERIC_QUESTIONS: dict[QuestionSide, int] = {"train": 100, "test": 20}
"""The fewest of each side: published sets have 100 rows an organism, each another question."""


class Question(Record):
    """One way of asking a model what it has learned."""

    id: Text
    text: Text
    split: QuestionSide
    categories: tuple[CategoryName, ...] = ()
    """Categories that it fits; a generic question, with none, is asked of all."""


class Elicitation(Record):
    """The shipped bank: training and test organisms are asked different questions."""

    questions: tuple[Question, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _suffice(self) -> Elicitation:
        for field in ("id", "text"):
            values = [getattr(question, field).casefold() for question in self.questions]
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(
                    f"{field} {repeated[0]!r} is used twice; every question needs its own"
                )
        for side, needed in GENERIC_QUESTIONS.items():
            count = len(self.ask(side))
            if count < needed:
                raise ValueError(f"{count} generic {side} questions, at least {needed} are needed")
        return self

    def ask(self, side: QuestionSide) -> tuple[Question, ...]:
        """The generic questions of one side, in file order."""
        return tuple(q for q in self.questions if q.split == side and not q.categories)

    def ask_category(self, side: QuestionSide, category: str) -> tuple[Question, ...]:
        """The questions of one side that fit only one category."""
        return tuple(q for q in self.questions if q.split == side and category in q.categories)
