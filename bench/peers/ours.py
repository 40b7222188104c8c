"""This project's client with everything on, as a build runs it.

Exchanges ask for structured replies and validate them, a carrier looks for answers of before, and
single calls go as the limiter lets them in, each reserved in the ledger and committed there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice

from bestiary.backend.exchange import Carrier, Exchange, Meter, Task
from bestiary.backend.forms import Judgement, ask_form
from bestiary.backend.ledger import Ledger
from bestiary.backend.limiter import Limiter
from bestiary.backend.price import read_price
from bestiary.backend.request import ModelRequest
from bestiary.backend.session import open_provider
from bestiary.backend.single import Clerk, Line, SingleCaller
from bestiary.errors import BestiaryError
from bestiary.records import Message
from bestiary.spec.models import LanguageModel
from peers.lap import MODEL, SYSTEM, TOKENS, Marks, Orders, run_lap

CORPUS = 100
"""Requests that one exchange asks at once."""
AT_ONCE = 32
"""Exchanges, as a build has them in single calls."""
BUDGET = 10**18
"""Picodollars: there is one, and it is never reached."""


def describe(orders: Orders) -> LanguageModel:
    """The server's model, as a user's file of models has it."""
    return LanguageModel(
        provider="openai",
        url=orders.url,
        key=None,
        input=0.15,
        output=0.6,
        cache_write=0.15,
        cache_read=0.075,
        in_flight=orders.in_flight,
    )


def list_requests(orders: Orders) -> Iterator[ModelRequest]:
    """What is asked, one by one: no list of all is kept."""
    for text in orders.list_texts():
        turn = Message(role="user", content=text)
        yield ModelRequest("openai", MODEL, SYSTEM, (turn,), TOKENS)


def judge(requests: Sequence[ModelRequest]) -> Exchange[int]:
    """How many replies fit their form."""
    forms = yield from ask_form("judge", requests, Judgement)
    return sum(isinstance(form, Judgement) for form in forms)


def list_tasks(orders: Orders, marks: Marks) -> Iterator[Task[int]]:
    """Exchanges over everything that is asked."""

    def hear(found: int | BestiaryError) -> None:
        if isinstance(found, BestiaryError):
            raise found
        marks.count(found)

    requests = list_requests(orders)
    while group := list(islice(requests, CORPUS)):
        yield Task("bench", judge(group), hear)


async def ask_all(orders: Orders) -> Marks:
    """Ask everything."""
    model, marks = describe(orders), Marks(orders.requests)
    ledger = Ledger(orders.shared / "ledger.sqlite", budget=BUDGET)
    provider = open_provider(MODEL, model)
    line = Line(MODEL, provider, read_price(model, batch=False), Limiter(most=model.in_flight))
    caller = SingleCaller({MODEL: line}, Clerk(ledger))
    try:
        carrier = Carrier(ledger, caller, at_once=AT_ONCE, meter=Meter())
        await carrier.run(list_tasks(orders, marks))
    finally:
        await caller.close()
        await provider.close()
        ledger.close()
    return marks


if __name__ == "__main__":
    run_lap(lambda orders: asyncio.run(ask_all(orders)))
