"""YAML with line numbers: plain data, the line of each field, and the violations found there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bestiary.errors import SpecError
from bestiary.records import Record
from bestiary.text import nearest, shorten

FieldPath = tuple[str | int, ...]
UNFILLED = "FILL IN"
"""Stands in every value that a scaffold leaves to its author."""
Model = TypeVar("Model", bound=BaseModel)


class Violation(Record):
    """One thing wrong in one file, with what to do about it."""

    path: Path
    line: int
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.field}: {self.problem}; {self.remedy}"


class Violations(SpecError):
    """Everything found wrong, printed together."""

    def __init__(self, found: Sequence[Violation]) -> None:
        self.found = tuple(sorted(found, key=lambda v: (str(v.path), v.line, v.field)))
        super().__init__("\n".join(str(violation) for violation in self.found))


class Source:
    """A parsed YAML file that can say on which line a field stands."""

    def __init__(self, path: Path, tree: object) -> None:
        self.path = path
        self._tree = tree
        self.data: Any = _to_plain(tree)

    def line(self, field: FieldPath) -> int:
        """The 1-based line of a field, or of its nearest parent that the file has."""
        node, line = self._tree, 1
        for key in field:
            if isinstance(node, CommentedMap) and key in node:
                line = node.lc.key(key)[0] + 1
                node = node[key]
            elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
                line = node.lc.item(key)[0] + 1
                node = node[key]
            # A union's tag stands in pydantic's path but not in the file: skip it.
        return line

    def written(self, field: FieldPath) -> FieldPath:
        """A pydantic path as the file writes it: without the tags of unions."""
        node, kept = self.data, list[str | int]()
        for place, key in enumerate(field):
            inside = (isinstance(node, dict) and key in node) or (
                isinstance(node, list) and isinstance(key, int) and key < len(node)
            )
            if inside:
                node = node[key]
            if inside or place == len(field) - 1:
                kept.append(key)
        return tuple(kept)

    def violation(self, field: FieldPath, problem: str, remedy: str) -> Violation:
        """A violation at a field of this file."""
        name = ".".join(str(part) for part in field) or "file"
        return Violation(
            path=self.path, line=self.line(field), field=name, problem=problem, remedy=remedy
        )


def parse_yaml(path: Path) -> Source:
    """Parse one file with the safe subset of YAML; raises Violations naming the broken line."""
    try:
        text = path.read_text(encoding="utf8")
        tree = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        raise Violations(
            [
                Violation(
                    path=path,
                    line=mark.line + 1 if mark else 1,
                    field="yaml",
                    problem=str(cause.problem or cause.context or "cannot be parsed"),
                    remedy="mend the YAML at that line (indentation, quotes, a colon)",
                )
            ]
        ) from cause
    except (YAMLError, UnicodeDecodeError) as cause:
        remedy = "save the file as plain UTF-8 YAML"
        broken = Violation(
            path=path, line=1, field="yaml", problem=" ".join(str(cause).split()), remedy=remedy
        )
        raise Violations([broken]) from cause
    except OSError as cause:
        raise SpecError(f"{path}: cannot be read ({cause.strerror}); check the path") from cause
    return Source(path, tree)


def validate_source(source: Source, model: type[Model]) -> Model:
    """Check a source against a pydantic model; raises Violations, one for each thing wrong."""
    try:
        return model.model_validate(source.data)
    except ValidationError as cause:
        raise Violations(pydantic_violations(source, cause)) from cause


def load_model(path: Path, model: type[Model]) -> Model:
    """Parse and check one file."""
    return validate_source(parse_yaml(path), model)


def pydantic_violations(source: Source, error: ValidationError) -> list[Violation]:
    """One violation for each of pydantic's errors, at the line it concerns."""
    found = []
    for item in error.errors(include_url=False):
        field = source.written(tuple(item["loc"]))
        context = item.get("ctx", {})
        if item["type"] == "union_tag_invalid":
            tag, choices = str(context["tag"]), re.findall("'([^']+)'", context["expected_tags"])
            key = str(context["discriminator"]).strip("'")
            problem = f"unknown {key} {tag!r}"
            found.append(source.violation((*field, key), problem, nearest(tag, choices)))
            continue
        if item["type"] == "union_tag_not_found":
            key = str(context["discriminator"]).strip("'")
            found.append(source.violation((*field, key), "is missing", f"add `{key}:`"))
            continue
        problem, remedy = _explain(item["type"], item["msg"], shorten(item["input"]), field)
        found.append(source.violation(field, problem, remedy))
    return found


def _explain(kind: str, message: str, shown: str, field: FieldPath) -> tuple[str, str]:
    name = str(field[-1]) if field else "the file"
    if kind == "missing":
        return "is missing", f"add `{name}:`"
    if kind == "extra_forbidden":
        return f"unknown key (value {shown})", "remove it, or mend its spelling"
    return f"{message} (got {shown})", "mend the value"


def find_unfilled(source: Source) -> list[Violation]:
    """The values of a scaffold that nobody has written yet."""
    return [
        source.violation(field, f"still says {text[:60]!r}", "write it, or delete what is optional")
        for field, text in _walk(source.data, ())
        if UNFILLED in text
    ]


def _walk(node: object, field: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    """Every text of a tree, with its path."""
    if isinstance(node, str):
        yield field, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _walk(value, (*field, key))
    elif isinstance(node, list):
        for row, value in enumerate(node):
            yield from _walk(value, (*field, row))


def _to_plain(node: object) -> Any:
    if isinstance(node, dict):
        return {str(key): _to_plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_to_plain(value) for value in node]
    if isinstance(node, str):
        return str(node)
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, int):
        return int(node)
    if isinstance(node, float):
        return float(node)
    return node
