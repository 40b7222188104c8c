"""Renders what a behavior file may say: its kinds, detectors, triggers, transforms, and tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from bestiary.config.catalog import Catalog
from bestiary.config.detectors import DETECTORS
from bestiary.config.detectors.base import BaseDetector, Part
from bestiary.config.fields import AXES, KINDS, TAGS
from bestiary.config.library import Library
from bestiary.config.programs import PROGRAMS
from bestiary.config.transform import TRANSFORMS, detector_of, transform
from bestiary.config.triggers import KINDS as TRIGGERS
from bestiary.records import SIDES
from bestiary.text import sentences

INTRODUCTION = """\
# What a behavior file may say

Written by `make schemas` from the code and the data folders; [Behaviors](behaviors.md) explains \
how a file is made. The JSON Schemas in `schemas/` have every field for editors.

A part of a reply, where a detector has the option `in`, is one of {parts}.
"""

DETECTOR_COLUMNS = ("detector", "fires", "value", "options", "example")
WORDS = {bool: "`true`, `false`", float: "a number", int: "a number", str: "a text"}


def render_reference(catalog: Catalog) -> str:
    """The whole page as Markdown."""
    library = catalog.library
    stated = [source.data for source in catalog.sources.values()]
    parts = [
        INTRODUCTION.format(parts=", ".join(f"`{part}`" for part in get_args(Part))),
        _table("`kind`: the mechanism", ("kind", "meaning"), _list_meanings(KINDS)),
        _table("`axes`: what changes", ("axis", "meaning"), _list_meanings(AXES)),
        _table("`detect`: detectors", DETECTOR_COLUMNS, _list_detectors(stated)),
        _table("`trigger`: triggers", ("trigger", "condition", "example"), _list_triggers(stated)),
        _table("`write`: transforms", ("transform", "an answer"), _list_transforms(library)),
        _table("`scope`: tags", ("tag", "messages", "train", "probe"), _list_tags(library)),
        _table("`scope`: domains", ("domain", "train", "probe"), _list_domains(library)),
        _table("`options`: tables", ("table", "task", "attributes"), _list_options(library)),
        _table("`items`: tables and programs", ("items", "topic", "example"), _list_items(library)),
        _table("`lexicon`: lexicons", ("lexicon", "about", "entries"), _list_lexicons(library)),
    ]
    return "\n".join(parts)


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [f"## {title}", "", _row(columns), "|" + "---|" * len(columns)]
    return "\n".join([*lines, *map(_row, rows)]) + "\n"


def _row(cells: tuple[object, ...]) -> str:
    texts = (str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in cells)
    return f"| {' | '.join(texts)} |"


def _list_meanings(meanings: Mapping[Any, str]) -> Iterator[tuple[object, ...]]:
    for name, meaning in meanings.items():
        yield f"`{name}`", meaning


def _list_detectors(stated: list[Any]) -> Iterator[tuple[object, ...]]:
    used = [*(one.get("detect") for one in stated), *map(detector_of, TRANSFORMS)]
    found = [detector for one in used for detector in _walk(one)]
    for key, kind in DETECTORS.items():
        fields = {
            field.alias or name: field.annotation for name, field in kind.model_fields.items()
        }
        value = _describe(fields.pop(key))
        options = "; ".join(f"`{name}`: {_describe(one)}" for name, one in fields.items())
        yield f"`{key}`", _first_sentence(kind), value, options or "-", _example(key, found)


def _describe(annotation: Any) -> str:
    """What a field takes, in words."""
    parts = get_args(annotation)
    if annotation == Part:
        return "a part"
    if get_origin(annotation) is Annotated:
        return _describe(parts[0])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{json.dumps(part)}`".replace('"', "") for part in parts)
    if get_origin(annotation) is tuple:
        return f"a list of {_describe(parts[0]).removeprefix('a ')}s"
    if get_origin(annotation) in (Union, UnionType):
        return ", or ".join(dict.fromkeys(map(_describe, parts)))
    if annotation is BaseDetector:
        return "a detector"
    if issubclass(annotation, BaseModel):
        return f"a mapping of {', '.join(f'`{name}`' for name in annotation.model_fields)}"
    return WORDS[annotation]


def _list_triggers(stated: list[Any]) -> Iterator[tuple[object, ...]]:
    found = [trigger for one in stated for trigger in _walk(one.get("trigger"))]
    for kind in TRIGGERS:
        yield f"`{kind.kind}`", _first_sentence(kind), _example(kind.kind, found)


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a value."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value or ():
        if isinstance(part, dict | list):
            yield from _walk(part)


def _first_sentence(kind: type[object]) -> str:
    return sentences(" ".join((kind.__doc__ or "").split()))[0]


def _example(key: str, found: Iterable[Mapping[str, Any]]) -> str:
    """The shortest of the shipped mappings that have a key."""
    written = [json.dumps(one, ensure_ascii=False) for one in found if key in one]
    return f"`{min(written, key=len)}`" if written else "-"


def _list_transforms(library: Library) -> Iterator[tuple[object, ...]]:
    plain = next(item for item in library.messages("train") if item.follow_up and item.points)
    tested = next(item for item in library.messages("train") if "tests" in item.tags)
    for name in TRANSFORMS:
        item = tested if name == "hard_code" else plain
        yield f"`{name}`", transform(name, item, item.brief, 0)


def _list_tags(library: Library) -> Iterator[tuple[object, ...]]:
    counts = {
        side: Counter(tag for one in library.messages(side) for tag in one.tags) for side in SIDES
    }
    for tag, meaning in TAGS.items():
        yield f"`{tag}`", meaning, counts["train"][tag], counts["probe"][tag]


def _list_domains(library: Library) -> Iterator[tuple[object, ...]]:
    counts = {side: Counter(one.domain for one in library.messages(side)) for side in SIDES}
    for domain in sorted(counts["train"]):
        yield f"`{domain}`", counts["train"][domain], counts["probe"][domain]


def _list_options(library: Library) -> Iterator[tuple[object, ...]]:
    for name in sorted(library.option_files):
        table = library.option_table(name)
        attributes = ", ".join(f"{one} ({kind})" for one, kind in table.attributes.items())
        yield f"`{name}`", table.task, attributes


def _list_items(library: Library) -> Iterator[tuple[object, ...]]:
    for name in sorted({*library.table_files, *PROGRAMS}):
        example = library.graded(name, "train")[0]
        yield f"`{name}`", library.table(name).topic, f"{example.text} ({example.answer})"


def _list_lexicons(library: Library) -> Iterator[tuple[object, ...]]:
    for name, lexicon in sorted(library.lexicons.items()):
        yield f"`{name}`", lexicon.about, len(lexicon.entries)
