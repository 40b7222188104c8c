"""New behavior files: every field with what to write in it, refused by `validate` until written."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bestiary.config.behavior import CATEGORIES, SPECS
from bestiary.config.folders import data_root
from bestiary.config.template import render_file
from bestiary.errors import SpecError
from bestiary.text import nearest


def scaffold_behavior(category: str, name: str, *, folder: Path) -> Path:
    """Write `<folder>/<category>/<name>.yaml` with a comment beside each field.

    Raises SpecError for an unknown category, an unsafe name, or a file that is already there.
    """
    if category not in CATEGORIES:
        raise SpecError(f"unknown category {category!r}; {nearest(category, CATEGORIES)}")
    if not re.fullmatch(r"[a-z0-9_]+", name):
        fixed = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "my_behavior"
        raise SpecError(
            f"behavior name {name!r} may hold only a-z, 0-9 and _, as it names folders; "
            f"try {fixed!r}"
        )
    path = folder / category / f"{name}.yaml"
    schema = data_root() / "schemas" / "behavior.schema.json"
    text = render_file(
        "shared/scaffold/behavior.yaml.j2",
        category=category,
        name=name,
        label=SPECS[category].label_form,
        schema=Path(os.path.relpath(schema, path.parent)).as_posix(),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf8") as file:
            file.write(text + "\n")
    except FileExistsError as cause:
        raise SpecError(f"{path} is already there; choose another name, or edit it") from cause
    except OSError as cause:
        raise SpecError(
            f"{path} cannot be written ({cause.strerror}); choose another folder"
        ) from cause
    return path
