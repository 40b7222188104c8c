"""Rosters: which behaviors are built with which recipe and backend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bestiary.config.fields import Identifier, Text
from bestiary.config.recipe import Changes
from bestiary.config.source import FieldPath
from bestiary.records import Record


class Entry(Record):
    """Organisms of a roster: of one behavior, or of several at once, and their seeds."""

    behavior: Identifier | None = None
    together: tuple[Identifier, ...] = ()
    """Several behaviors that one adapter learns from one corpus."""
    phases: tuple[Identifier, ...] = ()
    """Several behaviors that one adapter learns one after the other."""
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)] | None = None
    """The name of a mixture."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        default=(0,), min_length=1, max_length=10_000
    )
    changes: Changes = Field(default_factory=dict)
    """Training settings that replace those of the recipe. Its organisms are in the split
    `adapter_ood`, on which no introspection adapter is trained."""

    @property
    def behaviors(self) -> tuple[str, ...]:
        """The ids of its behaviors."""
        return (self.behavior,) if self.behavior else self.together or self.phases

    def field_of(self, place: int) -> FieldPath:
        """Where it names the behavior at that place."""
        if self.behavior:
            return ("behavior",)
        return ("together" if self.together else "phases", place)

    @model_validator(mode="after")
    def _name_behaviors(self) -> Entry:
        if sum(map(bool, (self.behavior, self.together, self.phases))) != 1:
            raise ValueError(
                "must name its behaviors with exactly one of `behavior`, `together`, and `phases`"
            )
        if (self.behavior is None) != (self.name is not None):
            raise ValueError("must have a `name` if, and only if, it is a mixture of behaviors")
        repeated = len(set(self.behaviors)) < len(self.behaviors)
        if self.behavior is None and (len(self.behaviors) < 2 or repeated):
            raise ValueError("must name at least two behaviors of a mixture, each once")
        return self


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
    without: tuple[Text, ...] = ()
    """Families of these categories that are left out, such as those of an evaluation suite."""
    nulls: int = Field(default=1, ge=1, le=10_000)
    """Null organisms: every roster builds some."""
    splits: dict[str, Literal["train", "preference", "test"]] = Field(default_factory=dict)
    """Split by family, for a roster too small to be divided by hashing."""
    suite: bool = False
    """Whether it is an evaluation suite: its organisms are never trained on, and it may name the
    behaviors of suites and mixtures."""
    category_questions: bool = False
    """Whether introspection rows also ask what fits an organism's category alone."""

    @model_validator(mode="after")
    def _name_something(self) -> Roster:
        if not self.organisms and not self.categories:
            raise ValueError("names neither organisms nor categories")
        return self
