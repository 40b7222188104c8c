"""YAML files: their data, the line of each field, and the violations found in them.

Files are read as YAML 1.2: only `true` and `false` are booleans, dates are text, and `012` is
twelve. Tags are refused, so nothing in a file is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError
from yaml.reader import ReaderError

from bestiary.config.parsed import ParsedTexts
from bestiary.errors import PathError, SpecError
from bestiary.files import cache_folder
from bestiary.records import Record
from bestiary.text import shorten

FieldPath = tuple[str | int, ...]
UNFILLED = "FILL IN"
"""Marks every value of a scaffold that its author must write."""
PARSED = "parsed.txt"
"""The file of the cache folder that keeps what was parsed."""
MAX_DEPTH = 50
"""The deepest nesting allowed; deeper files exhaust the stack of whatever reads them."""
MAX_VALUES = 1_000_000
"""The most values allowed in a file; a few lines of aliases can expand to billions."""
Model = TypeVar("Model", bound=BaseModel)


class Violation(Record):
    """One rule that a file breaks, where it does, and how to fix it."""

    path: Path
    line: int
    field: str
    code: str
    """The rule, in kebab-case: it stays the same when the problem is reworded."""
    problem: str
    remedy: str

    @property
    def place_and_problem(self) -> str:
        """The message without its remedy."""
        return f"{self.path}:{self.line}: {self.field}: {self.problem}"

    def __str__(self) -> str:
        return f"{self.place_and_problem}; {self.remedy}"


def sort_violations(found: Iterable[Violation]) -> tuple[Violation, ...]:
    """Violations by file, line and field."""
    return tuple(sorted(found, key=lambda v: (str(v.path), v.line, v.field)))


class Violations(SpecError):
    """All violations that a check found, at least one, printed together."""

    def __init__(self, found: Sequence[Violation]) -> None:
        self.found = sort_violations(found)
        *others, last = self.found
        problem = "\n".join([*map(str, others), last.place_and_problem])
        super().__init__(problem, last.remedy, code="violations")


class _Node(NamedTuple):
    """A value of a file with its 1-based line, and the nodes inside it by key or position."""

    value: Any
    line: int
    parts: Mapping[str | int, _Node] = {}
    height: int = 0
    """How many lists and mappings are nested in it, counting itself."""


class Source:
    """A parsed YAML file that knows the line of each field."""

    def __init__(self, path: Path, text: bytes, data: object) -> None:
        self.path = path
        self.data: Any = data
        self.text = text

    @cached_property
    def _root(self) -> _Node:
        """The nodes, which know their lines: few files are asked for one."""
        return _Parser(self.path, self.text).parse()

    def line(self, field: FieldPath) -> int:
        """The 1-based line of a field, or of its nearest parent in the file."""
        node, line = self._root, 1
        for key in field:
            # A union's tag is in pydantic's path but not in the file: skip it.
            if key in node.parts:
                node = node.parts[key]
                line = node.line
        return line

    def written(self, field: FieldPath) -> FieldPath:
        """A pydantic path as the file writes it: without tags of unions and the mark of a key."""
        if field[-1:] == ("[key]",):
            field = field[:-1]
        node, kept = self.data, list[str | int]()
        for place, key in enumerate(field):
            inside = (isinstance(node, dict) and key in node) or (
                isinstance(node, list) and isinstance(key, int) and key < len(node)
            )
            if inside:
                node = node[key]
            missing = place == len(field) - 1 and isinstance(node, dict | list)
            if inside or missing:
                kept.append(key)
        return tuple(kept)

    def violation(self, field: FieldPath, problem: str, remedy: str, *, code: str) -> Violation:
        """A violation at a field of this file; `code` names the rule."""
        return Violation(
            path=self.path,
            line=self.line(field),
            field=".".join(str(part) for part in field) or "file",
            code=code,
            problem=problem,
            remedy=remedy,
        )


def parse_yaml(path: Path) -> Source:
    """Parse one file.

    Raises SpecError if the file cannot be read, and Violations if its text is not YAML as
    described above.
    """
    try:
        text = path.read_bytes()
    except OSError as cause:
        raise SpecError(
            f"{path}: cannot be read ({cause.strerror})",
            "check the path",
            code="file-unreadable",
            path=path,
        ) from cause
    known = parsed_texts()
    with suppress(KeyError):
        return Source(path, text, known.find(text))
    data = _parse(path, text)
    known.add(text, data)
    return Source(path, text, data)


@cache
def parsed_texts() -> ParsedTexts:
    """What is known of texts that were parsed before; kept in the user's cache folder."""
    try:
        path = cache_folder() / PARSED
    except PathError:
        path = None  # there is no home folder: nothing is kept
    return ParsedTexts(path, parser=Path(__file__).read_bytes())


def _parse(path: Path, text: bytes) -> object:
    """What a text says; raises Violations if it is not YAML as described above."""
    try:
        return _Parser(path, text).parse().value
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        problem = cause.problem or cause.context or "cannot be parsed"
        remedy = "fix the YAML on that line (indentation, quotes, a colon)"
        line = mark.line + 1 if mark else 1
        raise _unreadable(path, line, problem, remedy, code="yaml-invalid") from cause
    except ReaderError as cause:
        line = text.count(b"\n", 0, cause.position) + 1
        remedy = "save the file as plain UTF-8 text"
        raise _unreadable(path, line, cause.reason, remedy, code="text-not-utf8") from cause


def _unreadable(path: Path, line: int, problem: str, remedy: str, *, code: str) -> Violations:
    found = Violation(path=path, line=line, field="yaml", code=code, problem=problem, remedy=remedy)
    return Violations([found])


class _Parser:
    """Builds the nodes of a file from libyaml's events.

    Events, because composing a whole document recurses in C and crashes on deep nesting.
    """

    def __init__(self, path: Path, text: bytes) -> None:
        self._path = path
        self._next: Callable[[], Any] = yaml.CBaseLoader(text).get_event
        self._anchors: dict[str, tuple[_Node, int]] = {}
        self._values = 0

    def parse(self) -> _Node:
        """The document's root; raises Violations or a YAMLError."""
        self._next()  # the start of the stream
        first = self._next()
        if isinstance(first, yaml.StreamEndEvent):
            return _Node(None, 1)
        event = self._next()
        root = self._build(event, _line(event), depth=0, flow=False)
        self._next()  # the end of the document
        another = self._next()
        if not isinstance(another, yaml.StreamEndEvent):
            problem, remedy = "a second document begins here", "keep one document per file"
            raise self._refuse(another, problem, remedy, code="document-repeated")
        return root

    def _build(self, event: Any, line: int, *, depth: int, flow: bool) -> _Node:
        """The node that begins with an event; an alias shares the node of its anchor.

        `flow` says whether the event is inside brackets or braces.
        """
        if isinstance(event, yaml.AliasEvent):
            return self._follow(event, depth)._replace(line=line)
        if event.tag is not None:
            problem = f"uses the tag {event.tag!r}, but tags are not allowed"
            remedy = "remove the tag, and quote the value if it is text"
            raise self._refuse(event, problem, remedy, code="tag-used")
        before = self._values
        self._values += 1
        if isinstance(event, yaml.ScalarEvent):
            text = self._read_text(event, flow=flow)
            node = _Node(_read_plain(text) if event.implicit[0] else text, line)
        elif depth >= MAX_DEPTH:
            raise self._refuse_depth(event)
        else:
            is_list = isinstance(event, yaml.SequenceStartEvent)
            build = self._build_list if is_list else self._build_dict
            node = build(line, depth=depth + 1, flow=bool(event.flow_style))
        if event.anchor is not None:
            self._anchors[event.anchor] = node, self._values - before
        return node

    def _build_list(self, line: int, *, depth: int, flow: bool) -> _Node:
        parts: dict[str | int, _Node] = {}
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            parts[len(parts)] = self._build(event, _line(event), depth=depth, flow=flow)
        return _Node([part.value for part in parts.values()], line, parts, _height(parts))

    def _build_dict(self, line: int, *, depth: int, flow: bool) -> _Node:
        parts: dict[str | int, _Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                problem, remedy = "a key is not text", "quote the key"
                raise self._refuse(event, problem, remedy, code="key-not-text")
            key = self._read_text(event, flow=flow)
            if key in parts:
                problem = f"duplicate key {key!r}, first used on line {parts[key].line}"
                raise self._refuse(event, problem, "keep one of the two", code="key-repeated")
            value = self._next()
            parts[key] = self._build(value, _line(event), depth=depth, flow=flow)
        held = {key: part.value for key, part in parts.items()}
        return _Node(held, line, parts, _height(parts))

    def _read_text(self, event: yaml.ScalarEvent, *, flow: bool) -> str:
        text: str = event.value
        hidden = _UNPRINTABLE.search(text)
        if hidden:
            problem = f"{shorten(text)} contains the control character {hidden[0]!a}"
            raise self._refuse(event, problem, "remove it", code="text-unprintable")
        if flow and event.implicit[0] and "?" in text:
            # libyaml reads it, but PyYAML's own parser does not: the file would not be portable.
            problem = f"{shorten(text)} has a question mark inside brackets or braces but no quotes"
            raise self._refuse(event, problem, "quote it", code="text-unquoted")
        return text

    def _follow(self, event: yaml.AliasEvent, depth: int) -> _Node:
        """The node of an anchor above."""
        if event.anchor not in self._anchors:
            problem = f"alias {event.anchor!r} has no complete anchor above it"
            raise self._refuse(event, problem, "write the value out", code="alias-unknown")
        node, size = self._anchors[event.anchor]
        if depth + node.height > MAX_DEPTH:
            raise self._refuse_depth(event)
        self._values += size
        if self._values > MAX_VALUES:
            problem = f"more than {MAX_VALUES:,} values once aliases are expanded"
            remedy = "use fewer aliases, or split the file"
            raise self._refuse(event, problem, remedy, code="values-too-many")
        return node

    def _refuse_depth(self, event: yaml.Event) -> Violations:
        problem = f"nested more than {MAX_DEPTH} levels deep"
        return self._refuse(event, problem, "use fewer levels", code="nesting-too-deep")

    def _refuse(self, event: yaml.Event, problem: str, remedy: str, *, code: str) -> Violations:
        return _unreadable(self._path, _line(event), problem, remedy, code=code)


def _height(parts: Mapping[str | int, _Node]) -> int:
    return 1 + max((part.height for part in parts.values()), default=0)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""What no terminal shows and some file formats refuse: controls, half characters."""
_PLAIN = re.compile(
    r"(?P<null>|~|null|Null|NULL)"
    r"|(?P<bool>true|True|TRUE|false|False|FALSE)"
    r"|(?P<int>[-+]?[0-9]{1,300})"
    r"|(?P<radix>0o[0-7]{1,300}|0x[0-9a-fA-F]{1,300})"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<special>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)
"""The core schema of YAML 1.2: unquoted values that are not text."""
_READERS: Mapping[str, Callable[[str], object]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "radix": lambda text: int(text, 0),
    "float": float,
    "special": lambda text: float(text.replace(".", "")),
}


def _read_plain(text: str) -> object:
    """The value of an unquoted scalar."""
    match = _PLAIN.fullmatch(text)
    return _READERS[str(match.lastgroup)](text) if match else text


def validate_source(source: Source, model: type[Model]) -> Model:
    """Check a source against a pydantic model; raises Violations, one for each invalid value."""
    try:
        return model.model_validate(source.data)
    except ValidationError as cause:
        raise Violations(pydantic_violations(source, cause)) from cause


def load_model(
    path: Path, model: type[Model], *checks: Callable[[Source, Model], Iterable[Violation]]
) -> Model:
    """Parse and check one file; raises Violations for everything that is wrong with it.

    `checks` find what the model cannot say, and run once it is satisfied.
    """
    source = parse_yaml(path)
    loaded = validate_source(source, model)
    found = [violation for check in checks for violation in check(source, loaded)]
    if found:
        raise Violations(found)
    return loaded


def refusal(problem: str, remedy: str, *, code: str = "value-invalid") -> PydanticCustomError:
    """What a validator raises that knows the remedy: a ValueError only says to change the value."""
    return PydanticCustomError(code, "{problem}; {remedy}", {"problem": problem, "remedy": remedy})


def pydantic_violations(
    source: Source, error: ValidationError, *, inside: FieldPath = ()
) -> list[Violation]:
    """One violation for each of pydantic's errors, on the line of its field.

    `inside` is the field that holds the validated data; the whole file by default.
    """
    found = []
    errors = error.errors(include_url=False)
    places = {item["loc"][:depth] for item in errors for depth in range(len(item["loc"]))}
    for item in errors:
        if item["type"] == "too_short" and item["loc"] in places:
            continue  # it counts the sound values alone
        kind, field = item["type"], source.written((*inside, *item["loc"]))
        context = item.get("ctx", {})
        if "remedy" in context:
            problem, remedy, code = context["problem"], context["remedy"], kind
        else:
            problem, remedy, code = explain_error(kind, item["msg"], shorten(item["input"]), field)
        found.append(source.violation(field, problem, remedy, code=code))
    return found


def explain_error(kind: str, message: str, shown: str, field: FieldPath) -> tuple[str, str, str]:
    """The problem, the remedy, and the code of one of pydantic's errors."""
    name = str(field[-1]) if field else "the file"
    if kind == "missing":
        return "is missing", f"add `{name}:`", "key-missing"
    if kind == "extra_forbidden":
        return f"unknown key (value {shown})", "remove it, or fix its spelling", "key-unknown"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        remedy = "write its keys below it; docs/reference.md lists them"
        return f"is {shown} (expected a mapping)", remedy, "value-invalid"
    if kind == "too_short":
        least, entries = re.findall(r"\d+", message)
        return f"needs at least {least}, has {entries}", "add more", "value-invalid"
    problem = message.removeprefix("Value error, ").replace("Input should be", "should be")
    return f"{problem} (got {shown})", "change it", "value-invalid"


def find_unfilled(source: Source) -> list[Violation]:
    """The values of a scaffold that its author has not written yet."""
    remedy = "write it, or delete what is optional"
    return [
        source.violation(field, f"still says {text[:60]!r}", remedy, code="value-unfilled")
        for field, text in _walk(source.data, ())
        if UNFILLED in text
    ]


def _walk(node: object, field: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    """Every string in a tree, keys too, with its path."""
    if isinstance(node, str):
        yield field, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield (*field, key), key
            yield from _walk(value, (*field, key))
    elif isinstance(node, list):
        for row, value in enumerate(node):
            yield from _walk(value, (*field, row))
