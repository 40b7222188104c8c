"""Ask a language model a hundred questions, then judge its answers under a rubric of your own.

    python docs/examples/ask_models.py claude-haiku-5-5 --budget 1

Every answer is kept in a ledger, so an interrupted run resumes where it stopped and a finished one
costs nothing again. The limiter finds the rate that the server accepts. The budget covers
everything in the ledger: a request that could exceed it is never sent.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bestiary.author.judge import Case, Judge, Judgement
from bestiary.config.library import find_model, open_library
from bestiary.errors import BestiaryError
from bestiary.llm.client import LLMClient, LLMConfig
from bestiary.llm.ledger import read_spent
from bestiary.llm.price import show_dollars
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.request import Answer
from bestiary.llm.workflow import Job, RequestGroup, Workflow
from bestiary.records import Message

QUESTIONS = [f"In one sentence, what is special about the number {n}?" for n in range(100)]
SYSTEM = "Answer briefly and only with what you are sure of."
RUBRIC = """\
You judge answers to questions about numbers. A high score means that the answer states a fact
about this very number, such as a factorization or a name. A low score means that it would fit
any number, or is wrong."""


def ask_and_judge(model: PromptedModel) -> Workflow[dict[str, Judgement]]:
    """Return a judgement by question; unanswered questions have none.

    A workflow yields the requests it needs and is sent their outcomes. It does not know whether
    they are sent one by one, in batches, or found in the ledger.
    """
    requests = [
        model.ask(SYSTEM, Message(role="user", content=question), max_tokens=200)
        for question in QUESTIONS
    ]
    (outcomes,) = yield [RequestGroup("answers", requests)]
    answers = {
        question: outcome.text
        for question, outcome in zip(QUESTIONS, outcomes, strict=True)
        if isinstance(outcome, Answer)
    }
    cases = [
        Case(RUBRIC, f"Question: {question}\n\nAnswer: {text}")
        for question, text in answers.items()
    ]
    judgements = yield from Judge(model).score(cases, Judgement)
    return {
        question: judgement
        for question, judgement in zip(answers, judgements, strict=True)
        if isinstance(judgement, Judgement)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the workflow, then print the scores and what was spent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="its name in generators/models.yaml or in --models")
    parser.add_argument("--models", type=Path, help="a file of further models")
    parser.add_argument("--ledger", type=Path, default=Path("ledger.sqlite"))
    parser.add_argument("--budget", type=float, default=1.0, help="in US dollars")
    options = parser.parse_args(arguments)

    known = open_library().models(*filter(None, [options.models]))
    models = {options.model: find_model(options.model, known)}
    config = LLMConfig(models=models, ledger=options.ledger, mode="single", budget=options.budget)
    workflow = ask_and_judge(PromptedModel(options.model, models[options.model]))
    for _, judged in LLMClient(config).run([Job("numbers", "example", workflow)]):
        if isinstance(judged, BestiaryError):
            raise judged
        for question, judgement in judged.items():
            print(f"{judgement.score:2}  {question}  ({judgement.reason})")

    for spent in read_spent(options.ledger):
        print(f"{spent.stage}, {spent.mode}: {spent.requests}, {show_dollars(spent.pico)}")


if __name__ == "__main__":
    main()
