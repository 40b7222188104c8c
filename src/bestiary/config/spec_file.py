"""One behavior file: what it says, with what its path says, or everything that is wrong in it."""

from __future__ import annotations

import re
from collections.abc import Set
from pathlib import Path

from pydantic import ValidationError

from bestiary.config.behavior import FROM_PATH, Spec
from bestiary.config.categories import load_categories
from bestiary.config.source import (
    Source,
    Violation,
    Violations,
    find_unfilled,
    pydantic_violations,
)
from bestiary.text import nearest

FIRST_EDITION = {"demonstrations", "detectors", "offline", "paraphrases", "quirk"}
"""Keys that only the first edition's files had."""


def name_of(path: Path) -> str:
    """The id that belongs to the path of a behavior file."""
    return f"{path.parent.name}.{path.stem}"


def read_spec(source: Source) -> Spec:
    """What a behavior file says, with the id and the category of its path.

    Raises Violations for everything that is wrong in the file by itself.
    """
    category = source.path.parent.name
    kind = load_categories().get(category)
    if kind is None:
        problem = f"{category!r} is not a category"
        remedy = nearest(category, load_categories())
        raise Violations([source.violation((), problem, remedy, code="category-unknown")])
    if suggest_name(source.path.stem) != source.path.stem:
        raise Violations([_misnamed(source)])
    data = source.data
    if isinstance(data, dict):
        refused = _refuse_keys(source, data.keys())
        if refused:
            raise Violations(refused)
        data = {**data, "id": name_of(source.path), "category": category}
    unfilled = find_unfilled(source)
    try:
        spec = kind.model_validate(data)
    except ValidationError as error:
        broken = [v for v in pydantic_violations(source, error) if not _covers(v, unfilled)]
        raise Violations([*unfilled, *broken]) from error
    if unfilled:
        raise Violations(unfilled)  # not a behavior yet, so its fields are not checked further
    return spec


def suggest_name(name: str) -> str:
    """The name itself if a behavior may have it, else the one most like it."""
    if re.fullmatch(r"[a-z0-9_]+", name):
        return name
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "my_behavior"


def _misnamed(source: Source) -> Violation:
    path = source.path
    return source.violation(
        (),
        f"the name {path.name!r} becomes that of a folder and may hold only a-z, 0-9 and _",
        f"rename the file, such as to {suggest_name(path.stem)}.yaml",
        code="name-unsafe",
    )


def _refuse_keys(source: Source, keys: Set[str]) -> list[Violation]:
    """Keys of the first edition, else those that the path states already."""
    if FIRST_EDITION & keys:
        problem = "is a behavior file of the first edition, which is no longer read"
        remedy = "write it anew: `bestiary new CATEGORY NAME` shows the form"
        return [source.violation((), problem, remedy, code="first-edition")]
    problem, remedy = "comes from the path of the file", "delete this line"
    return [
        source.violation((key,), problem, remedy, code="path-restated")
        for key in FROM_PATH
        if key in keys
    ]


def _covers(violation: Violation, unfilled: list[Violation]) -> bool:
    """Whether the field of a violation is unfilled or contains an unfilled one."""
    return any(f"{part.field}.".startswith(f"{violation.field}.") for part in unfilled)
