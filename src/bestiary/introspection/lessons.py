"""The training rows of subjects: a question with one wording of what it ought to report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bestiary.config.elicitation import Question
from bestiary.introspection.subjects import Subject
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow, tokenize_row
from bestiary.records import Message

if TYPE_CHECKING:
    from bestiary.model.packing import Rows

MAX_LENGTH = 1024
"""Tokens of a question with its answer, as in the published training."""


def list_lessons(
    subject: Subject, questions: Sequence[Question], *, count: int, wordings: int
) -> list[tuple[str, str]]:
    """`count` pairs of a question and its answer: each question once before any comes again.

    The first `wordings` of the label take turns, and a question meets another one each time it
    comes.
    """
    labels = subject.labels[:wordings]
    return [
        (
            questions[row % len(questions)].text,
            labels[(row + row // len(questions)) % len(labels)],
        )
        for row in range(count)
    ]


def tokenize_pairs(base: Base, pairs: Sequence[tuple[str, str]], system_prompt: str) -> Rows:
    """Questions with their answers as rows that supervise the answer."""
    from bestiary.model.packing import divide_rows

    return divide_rows([tokenize_pair(base, pair, system_prompt) for pair in pairs])


def tokenize_pair(base: Base, pair: tuple[str, str], system_prompt: str) -> TokenRow:
    """One question with its answer."""
    messages = (
        Message(role="user", content=pair[0]),
        Message(role="assistant", content=pair[1]),
    )
    return tokenize_row(
        base.tokenizer, messages, system_prompt=system_prompt, max_length=MAX_LENGTH
    )
