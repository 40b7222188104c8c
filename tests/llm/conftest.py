"""Fixtures of the language model tests: a loopback server, a ledger, and short pauses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.models import ModelServer, serve
from tests.llm.calls import open_ledger

from bestiary.llm import online
from bestiary.llm.ledger import Ledger


@pytest.fixture
def server() -> ModelServer:
    return ModelServer()


@pytest.fixture
def url(server: ModelServer) -> Iterator[str]:
    """The URL of the server."""
    with serve(server) as address:
        yield address


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries."""
    monkeypatch.setattr(online, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(online, "LONGEST_PAUSE", 0.05)
