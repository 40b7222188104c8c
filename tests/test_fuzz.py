"""Mutated settings files and random command lines: an answer or one error, never a traceback.

Run: python -m pytest tests/test_fuzz.py; 20,000 files and 2,000 command lines: add -m soak
"""

from __future__ import annotations

import faulthandler
import random
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.config.files import library_of, write_behavior
from tests.conftest import Bestiary
from typer.core import TyperGroup
from typer.main import get_command

from bestiary.cli.app import app
from bestiary.cli.output import format_error
from bestiary.config.catalog import Catalog, read_catalog
from bestiary.config.folders import DataFolders, shipped_root
from bestiary.config.lexicon import read_lexicon
from bestiary.config.library import Library
from bestiary.config.messages import read_messages
from bestiary.config.phrasings import Phrasings
from bestiary.config.source import load_model
from bestiary.config.tables import read_items, read_options
from bestiary.config.triggers import read_wordings
from bestiary.errors import BestiaryError
from bestiary.validate import validate_files

FILE_SECONDS = 10.0
LINES = 80
"""How much of a settings file is mutated and read."""
MEMORY_BYTES = 2**30
VALUES = (
    *("2026-02-30", "2026-11-28T10:00:00Z", "12:30:45", "!!int abc", "!!python/object:os.system x"),
    *("&a [*a]", "*nowhere", "&a x", "<<: *a", ".nan", "-.inf", "1e999", "0x" + "f" * 400),
    *("9" * 30, "-1", "0", "0.1", "1e-400", "null", "~", "true", "no", "''", '""', '"\\ud83d"'),
    *(
        '"\\ud83e\\udd5a"',
        '"\\x00"',
        '"\\uFEFFtext"',
        '"\\e[31m"',
        "\u202e",
        "e\u0301",
        "\U0001f95a",
    ),
    *(
        "[]",
        "{}",
        "[[[[]]]]",
        "{a: {b: {c: {}}}}",
        "[" * 300,
        "{a: " * 300,
        "? x",
        "- ",
        ": ",
        "? ",
    ),
    *(
        "| \n  text",
        "> \n  text",
        "%YAML 1.1",
        "---",
        "...",
        "\t",
        "#",
        "@",
        "`",
        "'",
        '"',
        "x" * 9000,
    ),
    *(
        "{{ message }}",
        "{message}",
        "{MESSAGE}",
        "{",
        "}",
        "{0}",
        "{{",
        "(",
        "[a-",
        "(?P<a",
        "(a+)+$",
    ),
    *("[[", "]]", "[[{answer}]]", "{answer} [[x", "{the}", "[any: {answer}]", "any", "{any: []}"),
    *("{judge: true}", "{not: {not: {pattern: [x]}}}", "{lexicon: nothing}", "{near: shown}"),
    *("{phrase: x}", "{word: a b, not: []}", "{topic: {tags: [code]}}", "{password: x}"),
    *("{least: year, most: year}", "{is: {year: 1}}", "{transform: none}", "{first: x}"),
    *("../../etc/passwd", "/", "~", "$HOME", "quirks.bullet_lists", "capitals", "null.chat"),
)
"""What may stand where something else should."""


def mutate(text: str, others: list[str], draw: random.Random) -> bytes:
    """One to four changes: of a line, a value, a character, or a byte."""
    for _ in range(draw.randint(1, 4)):
        lines = text.split("\n")
        at = draw.randrange(len(lines))
        kind = draw.randrange(9)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[draw.randrange(len(lines))])
        elif kind == 2:
            lines[at] = draw.choice((" ", "  ", "\t", "- ")) + lines[at]
        elif kind == 3:
            lines[at] = lines[at].lstrip()
        elif kind in (4, 5) and ":" in lines[at]:
            key, _, _ = lines[at].partition(":")
            lines[at] = f"{key}: {draw.choice(VALUES)}"
        elif kind == 6:
            lines.insert(at, draw.choice(draw.choice(others).split("\n")))
        else:
            place = draw.randrange(len(lines[at]) + 1)
            cut = place + draw.choice((0, 0, 1, 3))
            lines[at] = lines[at][:place] + draw.choice(VALUES) + lines[at][cut:]
        text = "\n".join(lines)
    data = bytearray(text, "utf8", "surrogatepass")
    if draw.random() < 0.2 and data:
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


@dataclass(frozen=True)
class Target:
    """A settings file, and what reads it."""

    path: Path
    text: str
    read: Callable[[], object]


def list_targets(folder: Path) -> list[Target]:
    """A copy of each shipped file in a folder; behaviors stand beside those that they name."""
    catalog, _ = read_catalog(Library(DataFolders((shipped_root(),))))
    targets = [copy_behavior(folder, catalog, behavior_id) for behavior_id in catalog]
    for path in sorted(shipped_root().glob("*/**/*.yaml")):
        place = path.relative_to(shipped_root())
        if place.parts[0] in ("generators", "organisms"):
            copy = folder / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            # A table reads as slowly as it is long: these lines have every shape.
            text = "".join(path.read_text("utf8").splitlines(True)[:LINES])
            targets.append(Target(copy, text, partial(read_settings, folder, copy)))
    return targets


def copy_behavior(folder: Path, catalog: Catalog, behavior_id: str) -> Target:
    """A behavior in a folder with those that it names."""
    spec, beside = catalog[behavior_id].spec, folder / behavior_id
    named = [reference.behavior_id for reference, _ in spec.distractor_references]
    named += [spec.base_reference.behavior_id] if spec.base_reference else []
    for name in (*named, behavior_id):
        path = write_behavior(beside, name, catalog.sources[name].path.read_text("utf8"))
    read = partial(validate_files, library_of(beside), [path])
    return Target(path, path.read_text("utf8"), read)


READERS: Mapping[str, Callable[[Library, Path], object]] = {
    "recipes": lambda library, path: library.recipe(str(path)),
    "rosters": lambda library, path: library.roster(str(path)),
    "introspection": lambda library, path: library.introspection(str(path)),
    "sweeps": lambda library, path: library.sweep(str(path)),
    "items": lambda library, path: read_items(path),
    "options": lambda library, path: read_options(path),
    "messages": lambda library, path: read_messages([path]),
    "lexicons": lambda library, path: read_lexicon(path),
    "triggers": lambda library, path: read_wordings(path),
    "phrasings": lambda library, path: load_model(path, Phrasings),
}
"""What reads the files of a folder, as a build does."""


def read_settings(folder: Path, path: Path) -> object:
    """Read a settings file as a build does."""
    library = Library(DataFolders((folder,)))
    if path.parent.name in READERS:
        return READERS[path.parent.name](library, path)
    if path.stem == "generator":
        return library.generator(path.parent.name)
    return library.models() if path.stem == "models" else getattr(library, path.stem)


def check_file(target: Target, others: list[str], draw: random.Random) -> None:
    """Mutate a file, read it, and put it back."""
    target.path.write_bytes(mutate(target.text, others, draw))
    started = time.monotonic()
    try:
        target.read()
    except BestiaryError as error:
        format_error(error).encode()
    finally:
        target.path.write_text(target.text, "utf8")
    assert time.monotonic() - started < FILE_SECONDS


def run_files(folder: Path, count: int, *, seed: int) -> None:
    targets, draw = list_targets(folder), random.Random(seed)
    texts = [target.text for target in targets]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        faulthandler.dump_traceback_later(2 * FILE_SECONDS, exit=True)
        try:
            check_file(targets[number % len(targets)], texts, draw)
        finally:
            faulthandler.cancel_dump_traceback_later()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MEMORY_BYTES


def test_a_mutated_file_is_read_or_refused(tmp_path: Path) -> None:
    run_files(tmp_path, 150, seed=1)


@pytest.mark.soak
def test_20000_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    run_files(tmp_path, 20_000, seed=2)


COMMANDS = (
    *("list", "validate", "new", "plan", "spend", "report", "export", "publish", "chat", "build"),
    *("schemas", "prompts", "biuld", ""),
)
ARGUMENTS = (
    *("starter", "starterr", "quirks", "bullet_lists", "quirks.bullet_lists", "~/runs"),
    *("$NOT_SET_HERE", "~nobody_at_all/x", "", " ", "-1", "0", "1e9", "nan", "inf", "0.5", "3"),
    *("single", "batch", "auto", "corpus", "claude-haiku-5-5", "gpt-x", "me/data", "a b", "/proc"),
    *(
        "/dev/null",
        "/proc/version",
        ".",
        "..",
        "no.yaml",
        "x" * 5000,
        "\u202e",
        "\udc80",
        "é\n",
        "*",
    ),
)


def draw_line(draw: random.Random, options: Mapping[str, Sequence[str]]) -> list[str]:
    """A command line, most of whose options exist; it trains nothing."""
    command = draw.choice(COMMANDS)
    known = options.get(command, ())
    words = [command, *draw.choices(ARGUMENTS, k=draw.randint(0, 2))]
    for _ in range(draw.randint(0, 4)):
        words += [draw.choice(known or ARGUMENTS)] if draw.random() < 0.9 else ["--no-such"]
        words += [draw.choice(ARGUMENTS)] if draw.random() < 0.8 else []
    # Nothing is built: the one roster that exists is left out.
    return [word for word in words if command != "build" or word != "starter"]


def run_lines(bestiary: Bestiary, count: int, *, seed: int) -> None:
    draw = random.Random(seed)
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    options = {
        name: [flag for option in command.params for flag in option.opts if flag.startswith("-")]
        for name, command in group.commands.items()
    }
    for _ in range(count):
        words = draw_line(draw, options)
        said = bestiary(*words)
        assert said.code in (0, 1, 2), words
        assert "Traceback" not in said.err, words
        assert said.code == 0 or said.err, words


def in_empty_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)


@pytest.mark.usefixtures("small_data")
def test_a_random_command_line_is_run_or_refused(
    bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_empty_folder(tmp_path, monkeypatch)
    run_lines(bestiary, 60, seed=1)


@pytest.mark.soak
def test_2000_random_command_lines_are_run_or_refused(
    bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_empty_folder(tmp_path, monkeypatch)
    run_lines(bestiary, 2000, seed=2)
