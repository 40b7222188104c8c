"""Workflows: joined, their concurrent requests sent together, and without any requests.

Run: python -m pytest tests/llm/test_workflow.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.errors import CorpusError
from bestiary.llm.request import Answer, ModelRequest, Outcome, Unanswered, Usage
from bestiary.llm.workflow import Outcomes, RequestGroup, Workflow, join, run_without_models
from bestiary.records import Message

T = TypeVar("T")
Round = list[tuple[str, ...]]
"""The texts of the requests in each of the groups that were sent together."""


def make_group(*texts: str) -> RequestGroup:
    """One request per text."""
    return RequestGroup("replies", [make_request(text) for text in texts])


def make_request(text: str) -> ModelRequest:
    return ModelRequest(
        provider="openai",
        model="tiny",
        system="Answer.",
        messages=(Message(role="user", content=text),),
        max_tokens=8,
    )


def text_of(request: ModelRequest) -> str:
    return request.messages[0].content


def answer(request: ModelRequest) -> Outcome:
    """The request's text in capitals; an empty request has no answer."""
    if not text_of(request):
        return Unanswered(reason="empty request")
    text = text_of(request).upper()
    return Answer(text=text, stop="end", usage=Usage(input=1, output=1), id=text_of(request))


def show(outcome: Outcome) -> str:
    return outcome.text if isinstance(outcome, Answer) else outcome.reason


def complete(workflow: Workflow[T]) -> tuple[T, list[Round]]:
    """The result of a workflow, and the rounds of its requests."""
    rounds: list[Round] = []
    outcomes: Outcomes | None = None
    while True:
        try:
            groups = workflow.send(outcomes)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value, rounds
        rounds.append([tuple(text_of(one) for one in group.requests) for group in groups])
        outcomes = [[answer(one) for one in group.requests] for group in groups]


def follow(script: Sequence[Round]) -> Workflow[list[list[list[str]]]]:
    """Send the requests of a script, round by round; return what it received."""
    received = []
    for groups in script:
        outcomes = yield [make_group(*texts) for texts in groups]
        received.append([[show(outcome) for outcome in found] for found in outcomes])
    return received


def count_down(name: str, rounds: int) -> Workflow[str]:
    """Send one request per round; return the last answer."""
    last = f"{name} sent nothing"
    for left in range(rounds, 0, -1):
        [[outcome]] = yield [make_group(f"{name}{left}")]
        last = show(outcome)
    return last


def give_up(name: str, rounds: int) -> Workflow[str]:
    """Send one request per round, then fail."""
    yield from count_down(name, rounds)
    raise CorpusError(f"{name} found no words", "write some", code="no-words")


def test_a_workflow_without_requests_is_finished_at_once() -> None:
    assert run_without_models(count_down("a", 0)) == "a sent nothing"
    assert run_without_models(join([count_down(name, 0) for name in "ab"])) == [
        "a sent nothing",
        "b sent nothing",
    ]


def test_a_workflow_with_requests_cannot_run_without_models() -> None:
    with pytest.raises(AssertionError, match=r"no model to ask: \['replies'\]"):
        run_without_models(count_down("a", 1))


def test_an_error_passes_through_a_run_without_models() -> None:
    with pytest.raises(CorpusError, match="a found no words"):
        run_without_models(give_up("a", 0))


def test_joining_no_workflows_gives_no_results() -> None:
    assert complete(join([])) == ([], [])


def test_concurrent_requests_are_sent_together_and_answered_separately() -> None:
    results, rounds = complete(
        join(
            [
                follow([[("a", "b"), ("c",)], [("d",)]]),
                follow([[("e",)], [("f",), ("g", "", "h")]]),
            ]
        )
    )
    assert rounds == [[("a", "b"), ("c",), ("e",)], [("d",), ("f",), ("g", "", "h")]]
    assert results == [
        [[["A", "B"], ["C"]], [["D"]]],
        [[["E"]], [["F"], ["G", "empty request", "H"]]],
    ]


def test_results_come_in_order_whichever_workflow_ends_first() -> None:
    sizes = {"a": 3, "b": 0, "c": 1, "d": 2}
    results, rounds = complete(join([count_down(name, size) for name, size in sizes.items()]))
    assert results == ["A1", "b sent nothing", "C1", "D1"]
    assert rounds == [[("a3",), ("c1",), ("d2",)], [("a2",), ("d1",)], [("a1",)]]


def test_joined_workflows_can_be_joined_again() -> None:
    pairs = [join([count_down("a", 2), count_down("b", 1)]), join([count_down("c", 2)])]
    results, rounds = complete(join(pairs))
    assert results == [["A1", "B1"], ["C1"]]
    assert rounds == [[("a2",), ("b1",), ("c2",)], [("a1",), ("c1",)]]


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_workflow_that_fails_ends_those_joined_with_it(rounds: int) -> None:
    workflow = join([count_down("a", 2), give_up("b", rounds), count_down("c", 2)])
    with pytest.raises(CorpusError, match="b found no words"):
        complete(workflow)
    with pytest.raises(StopIteration):  # it is over
        next(workflow)


def test_no_answer_is_sent_to_a_workflow_that_has_ended() -> None:
    workflow = join([count_down("a", 1), give_up("b", 2)])
    assert len(next(workflow)) == 2
    groups = workflow.send([[answer(make_request("a1"))], [answer(make_request("b2"))]])
    assert [text_of(request) for group in groups for request in group.requests] == ["b1"]


TEXTS = st.lists(st.sampled_from("abc") | st.just(""), max_size=3).map(tuple)
SCRIPTS = st.lists(st.lists(TEXTS, max_size=3), max_size=4)


@given(scripts=st.lists(SCRIPTS, max_size=4))
def test_a_joined_workflow_receives_what_it_would_receive_alone(scripts: list[list[Round]]) -> None:
    results, rounds = complete(join([follow(script) for script in scripts]))
    separate = [complete(follow(script)) for script in scripts]
    assert results == [result for result, _ in separate]
    assert len(rounds) == max((len(script) for script in scripts), default=0)
    for number, sent in enumerate(rounds):
        assert sent == [
            texts for script in scripts if number < len(script) for texts in script[number]
        ]
