"""Who writes a roster's corpora: what the roster says, and what the command line adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bestiary.author.language import LanguageAuthor
from bestiary.author.offline import OfflineAuthor
from bestiary.author.protocol import Author, Runner
from bestiary.config.library import find_model
from bestiary.config.plan import Plan
from bestiary.config.roster import Authors, Roster
from bestiary.errors import BackendError
from bestiary.files import expand_path
from bestiary.llm.client import LLMClient, LLMConfig, Mode
from bestiary.llm.exchange import PREFIX, describe_folder
from bestiary.llm.models import LanguageModel
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.workflow import LocalRunner

LEDGER = "ledger.sqlite"
"""In the build's folder, unless another file is named."""


@dataclass(frozen=True)
class AuthoringOptions:
    """How to write corpora, where the roster does not say."""

    author: str | None = None
    judge: str | None = None
    mode: Mode | Literal["auto"] = "auto"
    budget: float | None = None
    """US dollars."""
    ledger: Path | None = None


def choose_authors(roster: Roster, options: AuthoringOptions) -> Authors | None:
    """The models that write and judge; None for the offline author.

    Raises BackendError for options that need a language model.
    """
    named = roster.backend if isinstance(roster.backend, Authors) else None
    author = options.author or (named.author if named else None)
    if author is None:
        if options != AuthoringOptions():
            raise BackendError(
                f"roster {roster.name!r} is written by the offline author, which has no judge, "
                "models, mode, budget or ledger",
                "name a language model with --author",
                code="author-missing",
                roster=roster.name,
            )
        return None
    judge = options.judge or (named.judge if named and not options.author else None)
    return Authors(author=author, judge=judge)


def choose_models(authors: Authors, plan: Plan) -> tuple[PromptedModel, PromptedModel]:
    """The author and the judge; raises as `choose_model`."""
    author = choose_model(authors.author, plan.models)
    judge = choose_model(authors.judge or authors.author, plan.models)
    if author.name == judge.name and author.model != judge.model:
        raise BackendError(
            f"{author.model.url} and {judge.model.url} are two models of one name",
            "give the folders different names, or name one of them for both",
            code="models-mixed",
            models=[author.name],
        )
    return author, judge


def choose_model(name: str, models: Mapping[str, LanguageModel]) -> PromptedModel:
    """A named model, or `file:FOLDER`, whose requests others answer.

    Raises SpecError, with the nearest name, for an unknown one, and PathError for a folder whose
    path cannot be expanded.
    """
    if name.startswith(PREFIX):
        return describe_folder(expand_path(name.removeprefix(PREFIX)))
    return PromptedModel(name, find_model(name, models))


def open_author(
    plan: Plan, options: AuthoringOptions, *, mode: Mode, out: Path, log: Callable[[str], None]
) -> tuple[Author, Runner]:
    """The author of a roster's corpora, and what runs its workflows."""
    authors = choose_authors(plan.roster, options)
    if authors is None:
        return OfflineAuthor(plan.recipe.replies), LocalRunner()
    author, judge = choose_models(authors, plan)
    client = LLMClient(
        LLMConfig(
            models={one.name: one.model for one in (author, judge)},
            ledger=options.ledger or out / LEDGER,
            mode=mode,
            budget=options.budget,
            log=log,
        )
    )
    return LanguageAuthor(author, judge, plan.library.grid), client
