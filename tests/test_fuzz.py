"""Mutated settings files and random command lines: an answer or one error, never a traceback.

Run: python -m pytest tests/test_fuzz.py; 20,000 files and 2,000 command lines: add -m soak
"""

from __future__ import annotations

import faulthandler
import random
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.config.files import SampleFolders
from tests.conftest import Bestiary
from typer.core import TyperGroup
from typer.main import get_command

from bestiary.cli.app import app, format_error
from bestiary.config.catalog import load_catalog, read_catalog
from bestiary.config.folders import DataFolders, shipped_root
from bestiary.config.library import Library
from bestiary.config.tables import read_items, read_options
from bestiary.errors import BestiaryError
from bestiary.validate import find_check_violations

FILE_SECONDS = 10.0
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
    *("../../etc/passwd", "/", "~", "$HOME", "quirks.sailor_farewell", "general", "null.chat"),
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
    shipped = Library(DataFolders((shipped_root(),)))
    catalog = load_catalog(shipped)
    targets = []
    for behavior_id, source in catalog.sources.items():
        spec = catalog[behavior_id].spec
        named = [ref for ref, _ in spec.distractor_references]
        named += [spec.base_reference] if spec.base_reference else []
        beside = folder / behavior_id
        for other in (behavior_id, *(ref.behavior_id for ref in named)):
            path = beside / other.split(".")[0] / f"{other.split('.')[1]}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(catalog.sources[other].path, path)
        library = Library(SampleFolders(shipped.folders.roots, behaviors=beside))
        library.load()
        path = beside / spec.category / source.path.name
        read = partial(check_behavior, library, behavior_id)
        targets.append(Target(path, path.read_text("utf8"), read))
    for path in sorted(shipped_root().glob("*/**/*.yaml")):
        place = path.relative_to(shipped_root())
        if place.parts[0] in ("generators", "organisms"):
            copy = folder / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            # A bank reads as slowly as it is long: thirty rows have every shape.
            text = "".join(path.read_text("utf8").splitlines(True)[:30])
            targets.append(Target(copy, text, partial(read_settings, folder, copy)))
    return targets


def check_behavior(library: Library, behavior_id: str) -> None:
    """What `validate` does with a behavior; its violations are printed."""
    catalog, found = read_catalog(library)
    if behavior_id in catalog:
        found += find_check_violations(catalog, [behavior_id])
    "\n".join(map(str, found)).encode()


def read_settings(folder: Path, path: Path) -> object:
    """Read a settings file as a build does."""
    library = Library(DataFolders((folder,)))
    if path.parent.name == "recipes":
        return library.recipe(str(path))
    if path.parent.name == "rosters":
        return library.roster(str(path))
    if path.parent.name == "offline":
        return library.bank(path.stem)
    if path.parent.name == "items":
        return read_items(path)
    if path.parent.name == "options":
        return read_options(path)
    if path.parent.name == "messages":
        return library.messages
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
    run_files(tmp_path, 300, seed=1)


@pytest.mark.soak
def test_20000_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    run_files(tmp_path, 20_000, seed=2)


COMMANDS = (
    *("list", "validate", "new", "plan", "spend", "report", "export", "publish", "chat", "build"),
    *("schemas", "prompts", "biuld", ""),
)
ARGUMENTS = (
    *("starter", "starterr", "quirks", "sailor_farewell", "quirks.sailor_farewell", "~/runs"),
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
