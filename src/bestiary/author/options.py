"""Which backend writes a roster's corpora: what the roster says, and what the command line adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bestiary.author.language import LanguageAuthor
from bestiary.author.protocol import Author, Runner
from bestiary.config.grid import load_grid
from bestiary.config.models import find_models, load_models
from bestiary.config.roster import Authors, Roster
from bestiary.errors import BackendError
from bestiary.llm.client import LLMClient, LLMConfig, Mode
from bestiary.llm.models import LanguageModel
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.workflow import LocalRunner

LEDGER = "ledger.sqlite"
"""Beside what a build makes, unless another file is named."""


@dataclass(frozen=True)
class AuthoringOptions:
    """How corpora are to be written, as far as the roster does not say."""

    author: str | None = None
    judge: str | None = None
    models: tuple[Path, ...] = ()
    """Files of further models."""
    mode: Mode | Literal["auto"] = "auto"
    budget: float | None = None
    """US dollars."""
    ledger: Path | None = None


def choose_authors(roster: Roster, options: AuthoringOptions) -> Authors | None:
    """The models that write and judge; None for the embedded author.

    Raises BackendError for options that only language models have.
    """
    named = roster.backend if isinstance(roster.backend, Authors) else None
    author = options.author or (named.author if named else None)
    if author is None:
        if options != AuthoringOptions():
            raise BackendError(
                f"roster {roster.name!r} is written by the embedded author, which knows no judge, "
                "models, mode, budget nor ledger; name a language model with --author"
            )
        return None
    judge = options.judge or (named.judge if named and not options.author else None)
    return Authors(author=author, judge=judge)


def choose_models(authors: Authors, options: AuthoringOptions) -> dict[str, LanguageModel]:
    """The models of some authors, by name; raises SpecError with the nearest name."""
    names = dict.fromkeys((authors.author, authors.judge or authors.author))
    return find_models(list(names), load_models(*options.models))


def open_author(
    roster: Roster,
    options: AuthoringOptions,
    *,
    mode: Mode,
    out: Path,
    offline: Callable[[], Author],
    log: Callable[[str], None],
) -> tuple[Author, Runner]:
    """The author of a roster's corpora, and what runs its workflows.

    The offline author is opened only where no language model is named.
    """
    authors = choose_authors(roster, options)
    if authors is None:
        return offline(), LocalRunner()
    models = choose_models(authors, options)
    author, judge = (
        PromptedModel(name, models[name])
        for name in (authors.author, authors.judge or authors.author)
    )
    client = LLMClient(
        LLMConfig(
            models=models,
            ledger=options.ledger or out / LEDGER,
            mode=mode,
            budget=options.budget,
            log=log,
        )
    )
    return LanguageAuthor(author, judge, load_grid()), client
