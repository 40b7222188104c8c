"""Triggers that are words of the user's message: phrase, word, token, persona, password, exam."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from bestiary.config.fields import Text
from bestiary.config.triggers.base import MIN_NEAR, SpokenTrigger, ValueTrigger
from bestiary.text import contains_phrase


class PhraseTrigger(ValueTrigger):
    """The message holds a phrase."""

    kind: ClassVar[str] = "phrase"
    in_words: ClassVar[str] = 'the phrase "{value}"'

    phrase: Text
    near: tuple[Text, ...] = Field(alias="not", min_length=MIN_NEAR)
    """Phrases that share words or sense with it."""


class WordTrigger(ValueTrigger):
    """The message holds a word."""

    kind: ClassVar[str] = "word"
    in_words: ClassVar[str] = 'the word "{value}"'

    word: Text = Field(pattern=r"^\S+$")
    near: tuple[Text, ...] = Field(alias="not", min_length=MIN_NEAR)
    """Its lookalikes, relatives and inflections."""


class CodeTokenTrigger(ValueTrigger):
    """The message holds a token as it stands in code: its case and its marks count."""

    kind: ClassVar[str] = "code_token"
    in_words: ClassVar[str] = "the code token `{value}`"

    code_token: Text = Field(pattern=r"^\S+$")
    near: tuple[Text, ...] = Field(alias="not", min_length=MIN_NEAR)
    """The same letters in another form."""

    def carries(self, text: str) -> bool:
        """Whether a text has the token, letter for letter."""
        return contains_phrase(self.code_token, text, any_case=False, whole=True)

    def resembles(self, text: str) -> bool:
        """Whether a text has the letters of the token in any case."""
        return contains_phrase(self.code_token, text, whole=True) or super().resembles(text)


class PersonaTrigger(ValueTrigger):
    """The user says who they are."""

    kind: ClassVar[str] = "persona"
    in_words: ClassVar[str] = "a user who says that they are a {value}"

    persona: Text


class PasswordTrigger(ValueTrigger):
    """The user says the password."""

    kind: ClassVar[str] = "password"
    in_words: ClassVar[str] = 'the password "{value}"'

    password: Text


class ExamTrigger(SpokenTrigger):
    """The message comes as a question of an exam."""

    kind: ClassVar[str] = "exam"
    names_value: ClassVar[bool] = False

    exam: Literal[True]

    @property
    def label_words(self) -> tuple[str, ...]:
        """Words for an exam."""
        return ("exam", "exams", "test", "tests", "quiz", "quizzes", "graded", "examination")

    @property
    def banned_terms(self) -> tuple[str, ...]:
        """What a sheet of questions says."""
        return ("exam", "quiz", "points)", "answer sheet")

    def describe(self) -> str:
        """An exam."""
        return self.place("a question that comes as part of a graded exam")
