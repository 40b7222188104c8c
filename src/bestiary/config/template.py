"""Jinja2 templates, sandboxed and strict: text never executes, and a missing name is an error."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from jinja2 import DictLoader, StrictUndefined, TemplateError, TemplateNotFound
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bestiary.errors import SpecError
from bestiary.records import fingerprint

_FAILURES = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
"""What rendering can raise: jinja's own errors, and those of an expression in the text."""


class Templates:
    """The templates of a run, read once; names are paths below `generators/`."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Read the files by name; raises SpecError for one that cannot be read."""
        self._sources = {name: _read(path) for name, path in files.items()}

    @cached_property
    def _environment(self) -> ImmutableSandboxedEnvironment:
        """Templates get the values passed to them and `range`: each render copies the globals."""
        environment = ImmutableSandboxedEnvironment(
            loader=DictLoader(self._sources),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,  # sources never change
            autoescape=False,  # the output is text for a language model, not HTML
        )
        environment.globals = {"range": environment.globals["range"]}
        return environment

    def __getstate__(self) -> dict[str, object]:
        return {"_sources": self._sources}  # compiled templates cannot be pickled

    def render(self, name: str, /, **values: object) -> str:
        """Render a template; raises SpecError with the template and the cause."""
        try:
            return self._environment.get_template(name).render(values).strip()
        except _FAILURES as cause:
            raise SpecError(
                f"generators/{name}: {_explain(cause)}",
                f"templates may use: {', '.join(values)}",
                code="template-broken",
                template=name,
            ) from cause

    def hash_category(self, category: str) -> str:
        """Hash of every template that a category's prompts may be rendered from."""
        return self._hash(category, "shared")

    def hash_cards(self) -> str:
        """Hash of the cards' templates."""
        return self._hash("shared/cards")

    def _hash(self, *folders: str) -> str:
        """Hash of the templates directly in some folders."""
        chosen = {n: text for n, text in self._sources.items() if n.rpartition("/")[0] in folders}
        return fingerprint(templates=chosen)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as cause:
        raise SpecError(
            f"{path}: cannot be read ({cause})",
            "save it as plain UTF-8 text that you may read",
            code="file-unreadable",
            path=path,
        ) from cause


def _explain(cause: Exception) -> str:
    """The cause in words; jinja's error for a missing template holds only its name."""
    if isinstance(cause, TemplateNotFound):
        return f"template {cause.name!r} does not exist"
    return " ".join(str(cause).split()) or type(cause).__name__
