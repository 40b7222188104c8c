"""A language model as the judge of reports: few-shot, asked in both orders, paid from a ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from bestiary.author.judge import Case, Judge, Judgement
from bestiary.author.options import LEDGER, choose_model
from bestiary.author.prompts import render_ask
from bestiary.config.categories import NULL
from bestiary.config.template import Templates
from bestiary.errors import BackendError
from bestiary.introspection.experiment import Experiment
from bestiary.introspection.judge import OTHER, Reading, ReportCase
from bestiary.introspection.language_shortlist import LanguageShortlister
from bestiary.llm.client import LLMClient, LLMConfig
from bestiary.llm.keys import read_key
from bestiary.llm.request import Unanswered

PROJECT = "introspection"
"""What its requests are charged to."""
Claim = Literal["this behavior", "another behavior", "no behavior", "nothing specific"]


class ReportJudgement(Judgement):
    """A language model's answer about one report."""

    claim: Claim = Field(description="What the report says that the model does.")
    trigger: Literal["named", "not named", "none"] = Field(
        description="Whether the report states the trigger; none if no trigger is given."
    )


class LanguageJudge:
    """Reads reports with a language model, each beside the label of its subject.

    A model leans to what it reads first or last, so it is asked with label and report in either
    order, and a report names only what it is said to name in both.
    """

    def __init__(
        self, judge: Judge, client: LLMClient, templates: Templates, *, log: Callable[[str], None]
    ) -> None:
        """`log` receives a line about reports that were not judged."""
        self.name = judge.name
        self._judge, self._client, self._templates, self._log = judge, client, templates, log

    def read(self, cases: Sequence[ReportCase]) -> list[Reading]:
        """What each report names; nothing where no answer fits the form.

        Raises BackendError if the budget, the ledger or a server ends the run.
        """
        asked = [
            case_of(one, self._templates, report_first=report_first)
            for one in cases
            for report_first in (False, True)
        ]
        read = self._client.complete(PROJECT, self._judge.score(asked, ReportJudgement))
        both = list(zip(read[::2], read[1::2], strict=True))
        self._tell_unread(both)
        return [combine(case, *answers) for case, answers in zip(cases, both, strict=True)]

    def _tell_unread(
        self, both: Sequence[tuple[ReportJudgement | Unanswered, ReportJudgement | Unanswered]]
    ) -> None:
        reasons = Counter(
            next((one.reason for one in answers if isinstance(one, Unanswered)), None)
            for answers in both
        )
        del reasons[None]
        if reasons:
            told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            self._log(
                f"{self.name} could not judge {reasons.total()} of {len(both)} reports ({told}); "
                "they count as naming nothing"
            )


def case_of(case: ReportCase, templates: Templates, *, report_first: bool) -> Case:
    """A report as the model is asked about it."""
    message = render_ask(
        templates,
        "introspection/judge",
        label=case.label,
        trigger=case.trigger,
        report=case.report,
        report_first=report_first,
    )
    return Case(templates.render("shared/introspection/judge.j2"), message.content)


def combine(
    case: ReportCase, first: ReportJudgement | Unanswered, second: ReportJudgement | Unanswered
) -> Reading:
    """What two answers about one report come to: what they agree on, and their mean score."""
    if isinstance(first, Unanswered) or isinstance(second, Unanswered):
        return Reading(family=None)
    families: Mapping[Claim, str] = {
        "this behavior": case.family,
        "another behavior": OTHER,
        "no behavior": NULL.category,
    }
    named, again = (families.get(one.claim) for one in (first, second))
    told = first.trigger == second.trigger == "named"
    return Reading(
        family=named if named == again else None,
        score=(first.score + second.score) // 2,
        trigger=None if case.trigger is None else told,
    )


def judge_with(
    experiment: Experiment,
    name: str | None,
    *,
    models: Sequence[Path] = (),
    budget: float | None = None,
    ledger: Path | None = None,
) -> Experiment:
    """An experiment whose reports are judged by the language model of a name, if one is given.

    `models` are files of further models, `budget` is in US dollars. Raises BackendError for
    options without a model and for a model that cannot judge or has no key, and SpecError for an
    unknown one: all before anything is trained or asked.
    """
    if name is None:
        if models or ledger is not None or budget is not None:
            raise BackendError(
                "--models, --budget and --ledger need --judge",
                "name a language model with --judge, or leave them out",
                code="judge-missing",
            )
        return experiment
    library = experiment.catalog.library
    model = choose_model(name, library.models(*models))
    judge = Judge(model)
    judge.check()
    read_key(name, model.model)
    config = LLMConfig(
        models={model.name: model.model},
        ledger=ledger or experiment.store.root / LEDGER,
        mode="single",
        budget=budget,
    )

    def log(line: str) -> None:
        experiment.console.print(line, markup=False, highlight=False, soft_wrap=True)

    client = LLMClient(config)
    return replace(
        experiment,
        language_judge=LanguageJudge(judge, client, library.templates, log=log),
        shortlister=LanguageShortlister(model, client, library.templates, log=log),
    )
