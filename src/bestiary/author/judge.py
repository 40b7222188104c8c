"""A judge: a language model that scores texts, each under the rubric its caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeVar

from pydantic import AfterValidator, Field

from bestiary.errors import BackendError
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.request import Unanswered
from bestiary.llm.structured import Form, ask_form
from bestiary.llm.workflow import Workflow
from bestiary.records import Message

LOWEST, HIGHEST = 1, 10
MAX_TOKENS = 300
"""Of a judge's answer."""


def _check_score(score: int) -> int:
    # Not a bound of the schema: some providers refuse schemas with bounds.
    if not LOWEST <= score <= HIGHEST:
        raise ValueError(f"a score is {LOWEST} to {HIGHEST}, not {score}")
    return score


class Judgement(Form):
    """A judge's answer about one text; subclass it to ask for further fields."""

    reason: str = Field(description="One sentence that quotes what decides the score.")
    score: Annotated[int, AfterValidator(_check_score)] = Field(
        description="1 (the rubric does not apply at all) to 10 (it applies beyond doubt)."
    )


AnyJudgement = TypeVar("AnyJudgement", bound=Judgement)


class Case(NamedTuple):
    """A text to judge, and the rubric to judge it under."""

    rubric: str
    """The judge's system prompt. Cases that share a rubric share its place in a prompt cache."""
    text: str


class Judge:
    """Scores texts with one model."""

    def __init__(self, model: PromptedModel) -> None:
        self._model = model
        self.name = model.name

    @property
    def available(self) -> bool:
        """Whether the model follows instructions, so that it can judge at all."""
        return self._model.follows_instructions

    def check(self) -> None:
        """Raise BackendError (judge-too-small) if the model does not follow instructions."""
        if not self.available:
            raise BackendError(
                f"{self.name} does not follow instructions and cannot judge",
                "name a larger model",
                code="judge-too-small",
                judge=self.name,
            )

    def score(
        self, cases: Sequence[Case], form: type[AnyJudgement], *, stage: str = "judge"
    ) -> Workflow[list[AnyJudgement | Unanswered]]:
        """Return one judgement per case, in order; `Unanswered` if no attempt fits the form.

        `form` is Judgement or a subclass; `stage` tags the requests in the ledger. Raises
        BackendError (judge-too-small) if the model does not follow instructions.
        """
        if cases:
            self.check()
        requests = [
            self._model.ask(
                case.rubric,
                Message(role="user", content=case.text),
                max_tokens=MAX_TOKENS,
                form=form,
            )
            for case in cases
        ]
        return (yield from ask_form(stage, requests, form))
