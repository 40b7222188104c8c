"""Recipes of introspection adapters: shape, optimizer, controls, and how reports are sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from bestiary.config.categories import CategoryName
from bestiary.config.recipe import LoraShape, Optimizer
from bestiary.config.source import Source, Violation, load_model, pydantic_violations
from bestiary.records import Decoding, Record

MadeControl = Literal["zero_b", "gaussian"]


class SharedShape(LoraShape):
    """The shape of an introspection adapter."""

    vector: bool = False
    """Whether each target has one trained vector instead of two matrices, added to its output
    whatever enters it: with one target in one layer, a steering vector."""

    @model_validator(mode="after")
    def _check_rank(self) -> Self:
        if self.vector and self.rank != 1:
            raise ValueError(f"a vector has rank 1, not {self.rank}: set rank to 1")
        return self


class Controls(Record):
    """Adapters with nothing to report: their share of the subjects that are trained on.

    Without them, an introspection adapter learns to claim a behavior whatever it is attached to.
    """

    zero_b: float = Field(ge=0, lt=0.5)
    """Fresh adapters, which change nothing."""
    random: float = Field(ge=0, lt=0.5)
    """Random adapters as large as a trained one."""

    def count(self, others: int) -> dict[MadeControl, int]:
        """How many of each kind beside so many other subjects; one at least of a kind in use."""
        rest = 1 - self.zero_b - self.random
        shares: dict[MadeControl, float] = {"zero_b": self.zero_b, "gaussian": self.random}
        return {
            kind: max(1, round(others * share / rest)) for kind, share in shares.items() if share
        }


class Reports(Record):
    """How subjects are asked to report when an introspection adapter is evaluated."""

    questions: int = Field(ge=1, le=1000)
    """Test questions that each subject is asked."""
    max_new_tokens: int = Field(ge=4, le=1000)
    temperature: float = Field(ge=0, le=2)
    sampled: int = Field(default=0, ge=0, le=1000)
    """Reports that each organism also gives at temperature 1, from which a shortlist is made."""

    @property
    def decoding(self) -> Decoding:
        """The decoding of reports."""
        return Decoding(max_new_tokens=self.max_new_tokens, temperature=self.temperature)


class Preference(Record):
    """Direct preference optimization on the preference split, after supervised training."""

    reports: int = Field(ge=2, le=64)
    """Reports that each organism gives, at temperature 1, to be scored."""
    learning_rate: float = Field(gt=0)
    beta: float = Field(gt=0, le=10)
    chosen_score: int = Field(ge=1, le=10)
    """The lowest score, of ten, of a chosen report."""
    margin: int = Field(ge=1, le=9)
    """How much lower a rejected report scores."""


class IntrospectionRecipe(Record):
    """One file of `organisms/introspection/`."""

    name: str = Field(min_length=1, max_length=100)
    seed: int = Field(default=0, ge=0, le=1_000_000)
    """Of the initial weights, the schedule, and the control adapters."""
    lora: SharedShape
    optimizer: Optimizer
    """Its `rows_per_step` are the rows of each organism in a step."""
    organisms_per_step: int = Field(ge=1, le=4096)
    rows_per_organism: int = Field(ge=1, le=10_000)
    """The same for every organism; each is a question with one wording of the label."""
    wordings: int = Field(default=1, ge=1, le=20)
    """How many wordings of a label take turns: the label, then its paraphrases. Judges know a
    behavior by its paraphrases, so those that are taught are easier to name."""
    share: float = Field(default=1, gt=0, le=1)
    """Share of the training families that is trained on, chosen by a hash."""
    leave_out: tuple[CategoryName, ...] = ()
    """Categories that are not trained on, so that all of their organisms are unseen."""
    strength: float = Field(default=1.0, gt=0, le=10)
    """A factor on the adapters of all organisms, in training and where they are evaluated."""
    controls: Controls
    reports: Reports
    preference: Preference | None = None

    def change(self, name: str, changes: Mapping[str, Any]) -> IntrospectionRecipe:
        """The recipe of another name with some values changed, parts of it value by value."""
        merged: dict[str, Any] = self.model_dump(mode="json") | {"name": name}
        for field, value in changes.items():
            old = merged.get(field)
            if isinstance(old, dict) and isinstance(value, Mapping):
                value = {**old, **value}
            merged[field] = value
        return IntrospectionRecipe.model_validate(merged)


class Sweep(Record):
    """One file of `organisms/introspection/sweeps/`: a recipe, and what is changed in it."""

    name: str = Field(min_length=1, max_length=100)
    recipe: str
    """An introspection recipe, by name or path; the first run is the recipe as it is."""
    folds: int = Field(default=0, ge=0, le=100)
    runs: dict[str, dict[str, Any]] = Field(min_length=1)
    """Changed values of the recipe by the run's name."""

    @field_validator("folds")
    @classmethod
    def _leave_families(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("1 fold leaves no family to train on; 0 takes the release's splits")
        return folds


def read_sweep(path: Path, find_recipe: Callable[[str], IntrospectionRecipe]) -> Sweep:
    """Load one sweep; raises Violations, also if a run's changes make its recipe invalid."""

    def check_runs(source: Source, sweep: Sweep) -> Iterator[Violation]:
        recipe = find_recipe(sweep.recipe)
        for name, changes in sweep.runs.items():
            try:
                recipe.change(name, changes)
            except ValidationError as error:
                yield from pydantic_violations(source, error, inside=("runs", name))

    return load_model(path, Sweep, check_runs)
