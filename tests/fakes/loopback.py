"""A loopback model server, and the file of models that names it, for commands to write through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.author import Author
from tests.fakes.models import KEY, ModelServer, Provider, serve

KEY_VARIABLE = "LOOPBACK_KEY"
MODEL = "loopback"


@dataclass
class Loopback:
    """A running server, its author, and the options that point a command at it."""

    server: ModelServer
    author: Author
    models: Path
    environment: dict[str, str]
    """Variables that a process needs to reach it."""

    def options(self, *, mode: str = "single") -> list[str]:
        """Options of `bestiary build` and `bestiary plan`."""
        return ["--author", MODEL, "--models", str(self.models), "--mode", mode]

    def change(self, **fields: Any) -> None:
        """Change the model's entry."""
        file = json.loads(self.models.read_text("utf8"))
        file["models"][MODEL] |= fields
        self.models.write_text(json.dumps(file), encoding="utf8")


@contextmanager
def open_loopback(folder: Path, provider: Provider, **changes: Any) -> Iterator[Loopback]:
    """Serve an author; `changes` apply to the model's entry."""
    author = Author()
    server = ModelServer(author=author)
    with serve(server) as url:
        entry = {
            "provider": provider,
            "url": url if provider == "anthropic" else f"{url}/openai",
            "key": KEY_VARIABLE,
            "input": 1.0,
            "output": 5.0,
            "cache_write": 1.25 if provider == "anthropic" else 1.0,
            "cache_read": 0.1,
            "batch": 0.5,
            "batch_hits": 1.0,  # the server caches whatever it has read once
            **changes,
        }
        models = folder / "models.yaml"
        models.write_text(json.dumps({"checked": "2026-11-22", "models": {MODEL: entry}}))
        yield Loopback(server, author, models, {KEY_VARIABLE: KEY})
