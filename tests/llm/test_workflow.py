"""Exchanges: several as one, what comes at the same time asked together, and one that asks nobody.

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
"""Of each ask that came at the same time, what its requests say."""


def make_ask(*texts: str) -> RequestGroup:
    """One request a text."""
    return RequestGroup("replies", [make_request(text) for text in texts])


def make_request(text: str) -> ModelRequest:
    return ModelRequest(
        provider="openai",
        model="tiny",
        system="Answer.",
        messages=(Message(role="user", content=text),),
        max_tokens=8,
    )


def says(request: ModelRequest) -> str:
    return request.messages[0].content


def answer(request: ModelRequest) -> Outcome:
    """What was said, aloud; a request that says nothing has no answer."""
    if not says(request):
        return Unanswered(reason="nothing was asked")
    text = says(request).upper()
    return Answer(text=text, stop="end", usage=Usage(input=1, output=1), id=says(request))


def tell(outcome: Outcome) -> str:
    return outcome.text if isinstance(outcome, Answer) else outcome.reason


def carry(exchange: Workflow[T]) -> tuple[T, list[Round]]:
    """What an exchange comes to, and the rounds in which it asked."""
    rounds: list[Round] = []
    outcomes: Outcomes | None = None
    while True:
        try:
            asks = exchange.send(outcomes)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value, rounds
        rounds.append([tuple(says(request) for request in ask.requests) for ask in asks])
        outcomes = [[answer(request) for request in ask.requests] for ask in asks]


def interview(script: Sequence[Round]) -> Workflow[list[list[list[str]]]]:
    """Asks as its script says, a round after the other; returns what it was told."""
    told = []
    for asks in script:
        outcomes = yield [make_ask(*texts) for texts in asks]
        told.append([[tell(outcome) for outcome in found] for found in outcomes])
    return told


def count_down(name: str, rounds: int) -> Workflow[str]:
    """Asks so many times, and hands on the last answer."""
    last = f"{name} asked nobody"
    for left in range(rounds, 0, -1):
        [[outcome]] = yield [make_ask(f"{name}{left}")]
        last = tell(outcome)
    return last


def give_up(name: str, rounds: int) -> Workflow[str]:
    """Asks so many times, and fails."""
    yield from count_down(name, rounds)
    raise CorpusError(f"{name} found no words", "write some", code="no-words")


def test_an_exchange_that_asks_nobody_is_finished_at_once() -> None:
    assert run_without_models(count_down("a", 0)) == "a asked nobody"
    assert run_without_models(join([count_down(name, 0) for name in "ab"])) == [
        "a asked nobody",
        "b asked nobody",
    ]


def test_nobody_is_there_to_ask_where_an_exchange_is_finished() -> None:
    with pytest.raises(AssertionError, match=r"no model to ask: \['replies'\]"):
        run_without_models(count_down("a", 1))


def test_an_error_passes_through_finish() -> None:
    with pytest.raises(CorpusError, match="a found no words"):
        run_without_models(give_up("a", 0))


def test_nothing_joined_comes_to_nothing() -> None:
    assert carry(join([])) == ([], [])


def test_what_comes_at_the_same_time_is_asked_together_and_told_apart() -> None:
    told, rounds = carry(
        join(
            [
                interview([[("a", "b"), ("c",)], [("d",)]]),
                interview([[("e",)], [("f",), ("g", "", "h")]]),
            ]
        )
    )
    assert rounds == [[("a", "b"), ("c",), ("e",)], [("d",), ("f",), ("g", "", "h")]]
    assert told == [
        [[["A", "B"], ["C"]], [["D"]]],
        [[["E"]], [["F"], ["G", "nothing was asked", "H"]]],
    ]


def test_results_come_in_order_whichever_exchange_ends_first() -> None:
    sizes = {"a": 3, "b": 0, "c": 1, "d": 2}
    told, rounds = carry(join([count_down(name, size) for name, size in sizes.items()]))
    assert told == ["A1", "b asked nobody", "C1", "D1"]
    assert rounds == [[("a3",), ("c1",), ("d2",)], [("a2",), ("d1",)], [("a1",)]]


def test_joined_exchanges_are_joined_again() -> None:
    pairs = [join([count_down("a", 2), count_down("b", 1)]), join([count_down("c", 2)])]
    told, rounds = carry(join(pairs))
    assert told == [["A1", "B1"], ["C1"]]
    assert rounds == [[("a2",), ("b1",), ("c2",)], [("a1",), ("c1",)]]


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_an_exchange_that_fails_ends_those_beside_it(rounds: int) -> None:
    exchange = join([count_down("a", 2), give_up("b", rounds), count_down("c", 2)])
    with pytest.raises(CorpusError, match="b found no words"):
        carry(exchange)
    with pytest.raises(StopIteration):  # it is over
        next(exchange)


def test_no_answer_is_sent_to_an_exchange_that_has_ended() -> None:
    exchange = join([count_down("a", 1), give_up("b", 2)])
    assert len(next(exchange)) == 2
    asks = exchange.send([[answer(make_request("a1"))], [answer(make_request("b2"))]])
    assert [says(request) for ask in asks for request in ask.requests] == ["b1"]


TEXTS = st.lists(st.sampled_from("abc") | st.just(""), max_size=3).map(tuple)
SCRIPTS = st.lists(st.lists(TEXTS, max_size=3), max_size=4)


@given(scripts=st.lists(SCRIPTS, max_size=4))
def test_a_joined_exchange_hears_what_it_would_hear_alone(scripts: list[list[Round]]) -> None:
    told, rounds = carry(join([interview(script) for script in scripts]))
    alone = [carry(interview(script)) for script in scripts]
    assert told == [heard for heard, _ in alone]
    assert len(rounds) == max((len(script) for script in scripts), default=0)
    for number, asked in enumerate(rounds):
        assert asked == [
            texts for script in scripts if number < len(script) for texts in script[number]
        ]
