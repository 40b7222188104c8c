"""Which backend writes a roster's corpora: what the roster says, and what the command line adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bestiary.backend import Backend
from bestiary.backend.session import LanguageBackend, Mode, Terms
from bestiary.errors import BackendError
from bestiary.spec.models import LanguageModel, find_models, load_models
from bestiary.spec.roster import Authors, Roster

LEDGER = "ledger.sqlite"
"""Beside what a build makes, unless another file is named."""


@dataclass(frozen=True)
class Writing:
    """How corpora are to be written, as far as the roster does not say."""

    author: str | None = None
    judge: str | None = None
    models: tuple[Path, ...] = ()
    """Files of further models."""
    mode: Mode | Literal["auto"] = "auto"
    budget: float | None = None
    """US dollars."""
    ledger: Path | None = None


def choose_authors(roster: Roster, writing: Writing) -> Authors | None:
    """The models that write and judge; None for the embedded author.

    Raises BackendError for options that only language models have.
    """
    named = roster.backend if isinstance(roster.backend, Authors) else None
    author = writing.author or (named.author if named else None)
    if author is None:
        if writing != Writing():
            raise BackendError(
                f"roster {roster.name!r} is written by the embedded author, which knows no judge, "
                "models, mode, budget nor ledger; name a language model with --author"
            )
        return None
    judge = writing.judge or (named.judge if named and not writing.author else None)
    return Authors(author=author, judge=judge)


def choose_models(authors: Authors, writing: Writing) -> dict[str, LanguageModel]:
    """The models of some authors, by name; raises SpecError with the nearest name."""
    names = dict.fromkeys((authors.author, authors.judge or authors.author))
    return find_models(list(names), load_models(*writing.models))


def open_backend(
    roster: Roster,
    writing: Writing,
    *,
    mode: Mode,
    out: Path,
    offline: Callable[[], Backend],
    tell: Callable[[str], None],
    beat: Callable[[], None],
) -> Backend:
    """The backend of a roster; the embedded author is opened only where it is asked for."""
    authors = choose_authors(roster, writing)
    if authors is None:
        return offline()
    models = choose_models(authors, writing)
    return LanguageBackend(
        Terms(
            author=authors.author,
            judge=authors.judge or authors.author,
            models=models,
            ledger=writing.ledger or out / LEDGER,
            mode=mode,
            budget=writing.budget,
            tell=tell,
            beat=beat,
        )
    )
