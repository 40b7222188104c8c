"""What the tests of language models share: a server on loopback, a ledger, short pauses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.models import ModelServer, serve
from tests.llm.calls import open_ledger

from bestiary.llm import online as single
from bestiary.llm.ledger import Ledger


@pytest.fixture
def server() -> ModelServer:
    return ModelServer()


@pytest.fixture
def url(server: ModelServer) -> Iterator[str]:
    """Where the server listens."""
    with serve(server) as address:
        yield address


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tries."""
    monkeypatch.setattr(single, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(single, "LONGEST_PAUSE", 0.05)
