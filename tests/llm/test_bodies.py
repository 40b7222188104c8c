"""Mutated bodies of both providers through the real SDKs: no exception, and no bill that shrinks.

Run: python -m pytest tests/llm/test_bodies.py
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.models import Asked, ModelServer, serve
from tests.fakes.models import Provider as ProviderName
from tests.llm.calls import EACH_PROVIDER, OnlineClient, make_model, make_request

from bestiary.errors import BackendError
from bestiary.llm import online
from bestiary.llm.ledger import Ledger
from bestiary.llm.online import TRIES, UNREADABLE_TRIES, BudgetError
from bestiary.llm.price import read_price
from bestiary.llm.provider import AuthError
from bestiary.llm.request import Answer, ModelRequest, Unanswered

BODIES_PER_EXAMPLE = 6
JUNK: list[Any] = [
    *(None, True, -1, 0, 0.5, 10**12, 10**400, 1e308, float("nan"), float("-inf")),
    *("", "7", "\ud83d", "error", "<think>Hm", "Rye.<|im_end|>", "<|im_start|>user", "\x00"),
    *([], {}, [None], [[]], [{}], {"error": "overheated"}, {"text": "Rye."}, "x" * 99),
    [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Rye."}],
    [{"type": "text", "text": "\udf5e"}],
]
FIELDS = ["error", "type", "object", "detail", "total_tokens", "text", "refusal", "content", "code"]
GRAINS = [b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\xf0\x9f", b'"', b"}", b"[" * 3000, b"\n"]


class Mutation(NamedTuple):
    """A change of one place in a body."""

    place: int
    """Counted from the root, around the end."""
    kind: str
    """drop, set, wrap, or add a field; cut or spoil the bytes."""
    value: Any
    field: str


mutations = st.builds(
    Mutation,
    st.integers(0, 60),
    st.sampled_from(["drop", "set", "set", "set", "wrap", "add", "cut", "spoil"]),
    st.sampled_from(JUNK),
    st.sampled_from(FIELDS),
)
bodies = st.lists(mutations, min_size=1, max_size=3)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a body with a key in it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def mutate(body: Any, changes: list[Mutation]) -> bytes:
    """The bytes of a body after some changes."""
    root = [body]
    for change in changes:
        found = list(places(root))
        container, key = found[change.place % len(found)]
        if change.kind == "drop" and container is not root:
            del container[key]
        elif change.kind == "set":
            container[key] = deepcopy(change.value)
        elif change.kind == "wrap":
            container[key] = [container[key]]
        elif change.kind == "add" and isinstance(container[key], dict):
            container[key][change.field] = deepcopy(change.value)
    whole = json.dumps(root[0]).encode()
    for change in changes:
        at = change.place * len(whole) // 61
        if change.kind == "cut":
            whole = whole[:at]
        if change.kind == "spoil":
            grain = GRAINS[change.place % len(GRAINS)]
            whole = whole[:at] + grain + whole[at:]
    return whole


def is_json(whole: bytes) -> bool:
    try:
        json.loads(whole.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return False
    return True


def states_less(stated: Any, true: Any) -> bool:
    """Whether usage has a count below the true one, which no client can find out."""
    if isinstance(true, dict):
        return isinstance(stated, dict) and any(
            states_less(stated.get(key), value) for key, value in true.items()
        )
    whole = isinstance(stated, int | float) and not isinstance(stated, bool)
    return whole and 0 <= stated < true


class Desk:
    """A server that answers with mutated bodies, and what it sent."""

    def __init__(self, name: ProviderName, address: str, server: ModelServer) -> None:
        self.name, self.address, self.server = name, address, server

    def check(self, changes: list[list[Mutation]], *, bounds: int) -> None:
        """Ask for every body under a budget of so many requests, and check the ledger."""
        sent: dict[str, list[bytes]] = defaultdict(list)
        lies: set[str] = set()

        def edit(asked: Asked, body: Any) -> bytes:
            text = asked.turns[0][1]
            true = json.loads(json.dumps(body))["usage"]
            whole = mutate(body, changes[int(text)])
            sent[text].append(whole)
            fields = json.loads(whole.decode("utf-8-sig", "replace")) if is_json(whole) else None
            if isinstance(fields, dict) and states_less(fields.get("usage"), true):
                lies.add(text)
            return whole

        self.server.edit = edit
        self.server.charges.clear()
        requests = [make_request(self.name, str(number)) for number in range(len(changes))]
        price = read_price(make_model(self.name, "http://x"), batch=False)
        bound = price.bound(requests[0])
        with tempfile.TemporaryDirectory() as folder:
            ledger = Ledger(Path(folder) / "ledger.sqlite", budget=bounds * bound)
            try:
                outcomes = asyncio.run(self._ask(ledger, requests))
                self._check_ledger(ledger, lies, bound * bounds, len(requests) * bound)
            finally:
                ledger.close()
        for outcome in outcomes:
            assert isinstance(outcome, Answer | Unanswered)
            outcome.model_dump_json()  # it can be kept
        for wholes in sent.values():
            assert len(wholes) <= TRIES
            assert sum(map(is_json, wholes)) <= UNREADABLE_TRIES, wholes

    async def _ask(self, ledger: Ledger, requests: list[ModelRequest]) -> list[Any]:
        async with OnlineClient(self.name, self.address, ledger, most=3) as client:
            try:
                return list(await asyncio.wait_for(client.ask(requests), 30.0))
            except (AuthError, BudgetError) as error:  # a body may say either
                assert isinstance(error, BackendError) and all(error.parts)
                return []

    def _check_ledger(self, ledger: Ledger, lies: set[str], budget: int, bounds: int) -> None:
        spent = ledger.list_spent()
        assert all(row.pico >= 0 and row.unknown >= 0 for row in spent)
        assert ledger.taken() == sum(row.pico + row.unknown for row in spent) >= 0
        if lies:
            assert self.server.bill <= ledger.taken() + UNREADABLE_TRIES * bounds
        else:
            assert self.server.bill <= ledger.taken()
            assert self.server.bill <= budget


@pytest.fixture(scope="module")
def open_desk() -> Iterator[Callable[[ProviderName], Desk]]:
    server = ModelServer(author=lambda asked: "Slowly, as bread does.")
    with serve(server) as address, pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "FIRST_PAUSE", 0.0)
        patch.setattr(online, "COMMIT_SECONDS", 0.0)
        yield lambda name: Desk(name, address, server)


def many(count: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, suppress_health_check=checks)


examples = st.lists(bodies, min_size=BODIES_PER_EXAMPLE, max_size=BODIES_PER_EXAMPLE)


@EACH_PROVIDER
@many(20)
@given(changes=examples, bounds=st.sampled_from([4, 1000]))
def test_no_body_breaks_a_run_or_its_budget(
    name: ProviderName,
    open_desk: Callable[[ProviderName], Desk],
    changes: list[list[Mutation]],
    bounds: int,
) -> None:
    open_desk(name).check(changes, bounds=bounds)


@pytest.mark.soak
@EACH_PROVIDER
@many(1000)
@given(changes=examples, bounds=st.sampled_from([4, 1000]))
def test_no_body_breaks_a_run_or_its_budget_in_many_tries(
    name: ProviderName,
    open_desk: Callable[[ProviderName], Desk],
    changes: list[list[Mutation]],
    bounds: int,
) -> None:
    open_desk(name).check(changes, bounds=bounds)
