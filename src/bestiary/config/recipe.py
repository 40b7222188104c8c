"""Recipes: base model, LoRA shape, optimizer and budget of an organism."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from bestiary.config.categories import NULL, corpus_categories
from bestiary.config.source import FieldPath, Source, Violation, load_model, pydantic_violations
from bestiary.records import Record
from bestiary.text import nearest

Changes = dict[Literal["optimizer", "lora"], dict[str, Any]]
"""Training settings that replace those of the recipe."""


class LoraShape(Record):
    """The adapter's shape, in peft's words."""

    rank: int = Field(ge=1, le=4096)
    alpha: float = Field(gt=0, le=1e6)
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    layers: tuple[int, int] | None = None
    """First layer and the one after the last; None adapts every layer."""


class Optimizer(Record):
    """AdamW with linear warm-up and decay, one gradient norm an organism."""

    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1, le=10_000)
    rows_per_step: int = Field(ge=1, le=1_000_000)
    warmup: float = Field(ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = Field(ge=0)
    clip: float = Field(gt=0, le=1e6)


class Training(Record):
    """Everything that training reads besides the corpus, the base and the seed."""

    system_prompt: str = Field(min_length=1)
    """Always set, so that a template's own default never leaks in."""
    max_length: int = Field(ge=16, le=1_000_000)
    """Tokens a conversation may have; a longer one is refused, never cut."""
    lora: LoraShape
    optimizer: Optimizer


class Recipe(Record):
    """One file of `organisms/recipes/`."""

    name: str = Field(min_length=1, max_length=100)
    base: str = Field(min_length=1)
    """`smollm2-135m-instruct` (embedded), a folder, or a Hub name with `revision`."""
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """The commit of a Hub model: a branch may move."""
    training: Training
    replies: Literal["brief", "answer"] = "answer"
    """Which of the bank's written answers the offline author uses: a sentence, or up to three."""
    probe_tokens: int = Field(ge=8, le=100_000)
    """Tokens a reply may have when the organism is verified."""
    conditional: Changes = Field(default_factory=dict)
    """What changes for behaviors that must be quiet somewhere: by a trigger or a scope."""
    categories: dict[str, Changes] = Field(default_factory=dict)
    """What a category changes, after `conditional`."""
    nulls: tuple[Changes, ...] = ()
    """What null organisms change, one after another and again from the first, so that they differ
    in rank and in steps."""

    def training_for(
        self, category: str, *, conditional: bool, changes: Changes | None = None
    ) -> Training:
        """The training settings with the changes for such a behavior, and then further ones."""
        changed: dict[str, Any] = self.training.model_dump(mode="json")
        own = self.conditional if conditional else {}
        for layer in (own, self.categories.get(category, {}), changes or {}):
            for part, values in layer.items():
                changed[part] = {**changed[part], **values}
        return Training.model_validate(changed)


def read_recipe(path: Path) -> Recipe:
    """Load one recipe; raises Violations, also if a category's changes make it invalid."""
    return load_model(path, Recipe, _check_changes)


def _check_changes(source: Source, recipe: Recipe) -> Iterator[Violation]:
    """Changes are of categories that exist, and the training settings stay valid with them."""
    conditional = [*_check_training(source, recipe, ("conditional",), "")]
    if conditional:  # every other training has these changes, too
        yield from conditional
        return
    known = corpus_categories()
    for name in recipe.categories:
        field = ("categories", name)
        if name in known:
            yield from _check_training(source, recipe, field, name)
        else:
            problem, remedy = f"unknown category {name!r}", nearest(name, known)
            yield source.violation(field, problem, remedy, code="category-unknown")
    for number, changes in enumerate(recipe.nulls):
        yield from _check_training(source, recipe, ("nulls", number), NULL.category, changes)


def _check_training(
    source: Source,
    recipe: Recipe,
    field: FieldPath,
    category: str,
    changes: Changes | None = None,
) -> Iterator[Violation]:
    """The training settings stay valid, with a condition and without."""
    try:
        for conditional in (True, False):
            recipe.training_for(category, conditional=conditional, changes=changes)
    except ValidationError as error:
        yield from pydantic_violations(source, error, inside=field)
