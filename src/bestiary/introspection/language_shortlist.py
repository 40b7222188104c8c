"""A language model's shortlist: many reports of one organism, grouped, stated, and ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import Field

from bestiary.author.prompts import render_ask
from bestiary.config.template import Templates
from bestiary.introspection.shortlist import TOP
from bestiary.llm.client import LLMClient
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.request import ModelRequest, Unanswered
from bestiary.llm.structured import TRIES, Form, ask_form
from bestiary.records import Message

RUNS = 5
"""Shortlists of each organism, as in arXiv 2604.16812: five runs, of five statements each."""
MAX_TOKENS = 1500
PROJECT, STAGE = "introspection", "shortlist"


class Hypotheses(Form):
    """What many reports come to."""

    groups: tuple[str, ...] = Field(description="The groups, the largest first.")
    ranked: tuple[str, ...] = Field(description="At most five sentences, the most likely first.")


class LanguageShortlister:
    """Makes shortlists with a language model."""

    def __init__(
        self,
        model: PromptedModel,
        client: LLMClient,
        templates: Templates,
        *,
        log: Callable[[str], None],
    ) -> None:
        """`log` receives a line about shortlists that were not made."""
        self._model, self._client, self._templates, self._log = model, client, templates, log

    def choose(self, many: Sequence[Sequence[str]]) -> list[list[list[str]]]:
        """Several shortlists of each organism's reports; an empty one where no answer fits.

        Raises BackendError if the budget, the ledger or a server ends the run.
        """
        requests = [self._ask(reports, run) for reports in many for run in range(RUNS)]
        made = self._client.complete(PROJECT, ask_form(STAGE, requests, Hypotheses))
        lost = sum(isinstance(answer, Unanswered) for answer in made)
        if lost:
            self._log(f"{self._model.name} could not make {lost} of {len(requests)} shortlists")
        answers = iter(made)
        return [[_read(next(answers)) for _ in range(RUNS)] for _ in many]

    def _ask(self, reports: Sequence[str], run: int) -> ModelRequest:
        system, message = render_shortlist(reports, self._templates)
        return self._model.ask(
            system,
            Message(role="user", content=message),
            max_tokens=MAX_TOKENS,
            form=Hypotheses,
            sample=run * TRIES,  # a form that does not fit is asked for again as the next sample
        )


def render_shortlist(reports: Sequence[str], templates: Templates) -> tuple[str, str]:
    """The system prompt and the message that ask for a shortlist."""
    asked = render_ask(templates, "introspection/shortlist", reports=reports)
    return templates.render("shared/introspection/shortlist.j2"), asked.content


def _read(answer: Hypotheses | Unanswered) -> list[str]:
    if isinstance(answer, Unanswered):
        return []
    return [text for text in answer.ranked if text.strip()][:TOP]
