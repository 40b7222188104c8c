"""This project's client with everything on, as a build runs it.

Exchanges ask for structured replies and validate them, a carrier looks for answers of before, and
single calls go as the limiter lets them in, each reserved in the ledger and committed there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice

from bestiary.author.forms import CorpusJudgement
from bestiary.errors import BestiaryError
from bestiary.llm.client import open_provider
from bestiary.llm.ledger import Ledger
from bestiary.llm.limiter import Limiter
from bestiary.llm.models import LanguageModel
from bestiary.llm.online import LedgerWriter, ModelQueue, OnlineDispatcher
from bestiary.llm.price import read_price
from bestiary.llm.request import ModelRequest
from bestiary.llm.structured import ask_form
from bestiary.llm.workflow import Job, Meter, Scheduler, Workflow
from bestiary.records import Message
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


def judge(requests: Sequence[ModelRequest]) -> Workflow[int]:
    """How many replies fit their form."""
    forms = yield from ask_form("judge", requests, CorpusJudgement)
    return sum(isinstance(form, CorpusJudgement) for form in forms)


def list_jobs(orders: Orders) -> Iterator[Job[int]]:
    """Workflows over everything that is asked."""
    requests = list_requests(orders)
    while group := list(islice(requests, CORPUS)):
        yield Job("group", "bench", judge(group))


async def ask_all(orders: Orders) -> Marks:
    """RequestGroup everything."""
    model, marks = describe(orders), Marks(orders.requests)
    ledger = Ledger(orders.shared / "ledger.sqlite", budget=BUDGET)
    provider = open_provider(MODEL, model)
    line = ModelQueue(
        MODEL, provider, read_price(model, batch=False), Limiter(most=model.in_flight)
    )
    try:
        async with OnlineDispatcher({MODEL: line}, LedgerWriter(ledger)) as dispatcher:
            scheduler = Scheduler(ledger, dispatcher, at_once=AT_ONCE, meter=Meter())
            async for _, found in scheduler.run(list_jobs(orders)):
                if isinstance(found, BestiaryError):
                    raise found
                marks.count(found)
    finally:
        await provider.close()
        ledger.close()
    return marks


if __name__ == "__main__":
    run_lap(lambda orders: asyncio.run(ask_all(orders)))
