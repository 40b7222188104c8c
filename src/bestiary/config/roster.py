"""Rosters: which behaviors are built with which recipe and backend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bestiary.config.fields import Identifier, Text
from bestiary.records import Record


class Entry(Record):
    """One behavior of a roster, and the seeds it is built with."""

    behavior: Identifier
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        default=(0,), min_length=1, max_length=10_000
    )


class Authors(Record):
    """Language models that write a roster's corpora, as `generators/models.yaml` names them."""

    author: str
    judge: str | None = None
    """Who says whether a reply shows its behavior; None is the author itself."""


class Roster(Record):
    """One file of `organisms/rosters/`."""

    name: str = Field(min_length=1, max_length=100)
    recipe: str
    backend: Literal["offline"] | Authors = "offline"
    """Who writes: the offline author, or language models."""
    organisms: tuple[Entry, ...] = ()
    categories: tuple[Text, ...] = ()
    """Categories of which every behavior is built, besides those that are named."""
    nulls: int = Field(default=1, ge=1, le=10_000)
    """Null organisms: every roster builds some."""
    splits: dict[str, Literal["train", "preference", "test"]] = Field(default_factory=dict)
    """Split by family, for a roster too small to be divided by hashing."""
    category_questions: bool = False
    """Whether introspection rows also ask what fits an organism's category alone."""

    @model_validator(mode="after")
    def _name_something(self) -> Roster:
        if not self.organisms and not self.categories:
            raise ValueError("names neither organisms nor categories")
        return self
