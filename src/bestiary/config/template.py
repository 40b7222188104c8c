"""Jinja2 templates, sandboxed and strict: text never executes, a missing name is an error."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateError, TemplateNotFound
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bestiary.config.folders import generator_folder
from bestiary.errors import SpecError
from bestiary.records import sha256_bytes

_FAILURES = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
"""What rendering can raise: jinja's own errors, and those of an expression in the text."""


def _explain(cause: Exception) -> str:
    """The cause in words; jinja's errors about a missing template hold nothing but its name."""
    if isinstance(cause, TemplateNotFound):
        return f"template {cause.name!r} does not exist"
    return " ".join(str(cause).split()) or type(cause).__name__


@cache
def _environment(folder: Path) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the output is text for a language model, not HTML
    )


@lru_cache(maxsize=4096)  # corpora draw the same few openings and closings again and again
def _compile(folder: Path, text: str) -> Template:
    return _environment(folder).from_string(text)


def render_file(name: str, /, **values: object) -> str:
    """Render `generators/<name>`; raises SpecError naming the template and the cause."""
    try:
        return _environment(generator_folder()).get_template(name).render(values).strip()
    except _FAILURES as cause:
        raise SpecError(
            f"generators/{name}: {_explain(cause)}; templates may use: {', '.join(values)}"
        ) from cause


def render_text(text: str, /, **values: object) -> str:
    """Render a template that stands in a behavior file."""
    try:
        return _compile(generator_folder(), text).render(values).strip()
    except _FAILURES as cause:
        raise SpecError(
            f"{text!r}: {_explain(cause)}; openings and closings may use: {', '.join(values)}"
        ) from cause


def hash_templates(category: str) -> str:
    """Hash of every template that a category's corpus may be rendered from."""
    root = generator_folder()
    paths = sorted([*(root / category).glob("*.j2"), *(root / "shared").glob("*.j2")])
    return _hash_files(root, paths)


def hash_cards() -> str:
    """Hash of the cards' templates and of the elicitation questions."""
    root = generator_folder() / "shared"
    return _hash_files(root, sorted([*(root / "cards").glob("*.j2"), root / "elicitation.yaml"]))


def _hash_files(root: Path, paths: Sequence[Path]) -> str:
    return sha256_bytes(
        b"".join(path.relative_to(root).as_posix().encode() + path.read_bytes() for path in paths)
    )
