"""The judge: any text under any rubric, and what happens to answers that do not fit the form.

Run: python -m pytest tests/author/test_judge.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from tests.expect import expect_error

from bestiary.author.judge import Case, Judge, Judgement
from bestiary.errors import BackendError
from bestiary.llm.models import LanguageModel, StructuredOutput
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered, Usage
from bestiary.llm.structured import schema_of
from bestiary.llm.workflow import Workflow, run_without_models

CASES = [Case("Is it polite?", "Thanks!"), Case("Is it polite?", "No."), Case("Is it long?", "Yes")]


class DetailedJudgement(Judgement):
    """With a field of the caller's own."""

    language: str


def make_judge(structured_output: StructuredOutput = "schema") -> Judge:
    model = LanguageModel(
        provider="openai",
        key=None,
        structured_output=structured_output,
        **dict.fromkeys(("input", "output", "cache_write", "cache_read"), 1.0),
    )
    return Judge(PromptedModel("judge", model))


def answer(text: str) -> Answer:
    return Answer(text=text, stop="end", usage=Usage(input=1, output=1), id="answer")


def judged(score: int, **fields: str) -> Answer:
    return answer(json.dumps({"reason": "as it says", "score": score, **fields}))


def run(
    workflow: Workflow[list[Judgement | Unanswered]], rounds: Sequence[Sequence[Outcome]]
) -> tuple[list[Judgement | Unanswered], list[list[ModelRequest]]]:
    """The judgements, and the requests of each round, which gets these outcomes."""
    asked: list[list[ModelRequest]] = []
    (group,) = next(workflow)
    for outcomes in rounds:
        assert group.stage == "judge"
        asked.append(list(group.requests))
        try:
            (group,) = workflow.send([list(outcomes)])
        except StopIteration as end:
            return end.value, asked
    raise AssertionError("the workflow asks for more")


def test_each_text_is_judged_under_its_own_rubric() -> None:
    workflow = make_judge().score(CASES, Judgement)
    found, (requests,) = run(workflow, [[judged(score) for score in (9, 2, 1)]])
    assert [one.score for one in found if isinstance(one, Judgement)] == [9, 2, 1]
    assert [(r.system, r.messages[0].content) for r in requests] == CASES
    assert all(request.reply_schema == schema_of(Judgement) for request in requests)


def test_a_score_out_of_range_is_asked_again_then_unanswered() -> None:
    bad = judged(11)
    workflow = make_judge().score(CASES[:2], Judgement)
    found, rounds = run(workflow, [[bad, bad], [judged(10), bad], [bad]])
    assert isinstance(found[0], Judgement) and found[0].score == 10
    assert isinstance(found[1], Unanswered)
    assert [[request.sample for request in requests] for requests in rounds] == [
        [0, 0],
        [1, 1],
        [2],
    ]


def test_a_form_may_have_further_fields() -> None:
    workflow = make_judge().score(CASES[:1], DetailedJudgement)
    (group,) = next(workflow)
    with pytest.raises(StopIteration) as end:
        workflow.send([[judged(5, language="en")]])
    assert end.value.value == [DetailedJudgement(reason="as it says", score=5, language="en")]
    assert group.requests[0].reply_schema == schema_of(DetailedJudgement)


def test_the_schema_states_no_bounds_that_a_provider_might_refuse() -> None:
    assert not {"minimum", "maximum"} & set(json.dumps(schema_of(Judgement)).split('"'))


def test_a_model_that_follows_no_instructions_cannot_judge() -> None:
    judge = make_judge("none")
    assert not judge.available
    with expect_error(BackendError, "judge-too-small", judge="judge"):
        run_without_models(judge.score(CASES, Judgement))
