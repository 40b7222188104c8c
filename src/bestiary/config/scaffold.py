"""New behavior files: every field with what to write in it, refused by `validate` until written."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from bestiary.config.categories import load_categories
from bestiary.config.folders import shipped_root
from bestiary.config.library import Library
from bestiary.config.spec_file import suggest_name
from bestiary.errors import SpecError
from bestiary.text import nearest


def scaffold_behavior(library: Library, category: str, name: str, *, data: Path) -> Path:
    """Write `<data>/behaviors/<category>/<name>.yaml` with a comment beside each field.

    Raises SpecError for an unknown category, an unsafe name, or a file that exists already.
    """
    categories = load_categories()
    if category not in categories:
        raise SpecError(
            f"unknown category {category!r}",
            nearest(category, categories),
            code="category-unknown",
            category=category,
        )
    fixed = suggest_name(name)
    if fixed != name:
        raise SpecError(
            f"behavior name {name!r} becomes a folder name and may hold only a-z, 0-9 and _",
            f"try {fixed!r}",
            code="name-unsafe",
            name=name,
            suggestion=fixed,
        )
    path = data / "behaviors" / category / f"{name}.yaml"
    schema = shipped_root() / "schemas" / f"behavior.{category}.schema.json"
    text = library.templates.render(
        f"shared/scaffold/{category}.yaml.j2",
        command=validate_command(path, data=data),
        label=categories[category].label_form,
        schema=Path(os.path.relpath(schema, path.parent)).as_posix(),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf8") as file:
            file.write(text + "\n")
    except FileExistsError as cause:
        raise SpecError(
            f"{path} exists already",
            "choose another name, or edit it",
            code="file-exists",
            path=path,
        ) from cause
    except OSError as cause:
        raise SpecError(
            f"{path} cannot be written ({cause.strerror})",
            "choose another folder",
            code="file-not-writable",
            path=path,
        ) from cause
    return path


def validate_command(path: Path, *, data: Path) -> str:
    """The command that checks a behavior file of a data folder."""
    shipped = data.resolve() == shipped_root().resolve()
    return shlex.join(
        ["bestiary", "validate", str(path), *([] if shipped else ["--data", str(data)])]
    )
