"""The guide to extending keeps what it promises, followed word for word in a clean checkout.

Run: python -m pytest tests/test_extending.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from jsonschema import Draft202012Validator
from tests.config.files import plant
from tests.forkserver import CHECKOUT
from tests.small import make_small_data

from bestiary.config.source import parse_yaml
from bestiary.records import Example, Role

QUIRK, BACKDOOR = "quirks.offers_tea", "backdoors.tea_for_sisters"
PASTIME = "pastimes.birdwatching"
DATA = ("behaviors/", "generators/", "organisms/")


class Block(NamedTuple):
    """A block of code of the page, with the path of its file, if it belongs to one."""

    path: str
    language: str
    text: str


def read_blocks() -> list[Block]:
    page = (CHECKOUT / "docs" / "extending.md").read_text(encoding="utf8")
    found = re.findall(r"(?:^`(\S+)`:\n\n)?^```(\w+)\n(.*?)^```$", page, flags=re.M | re.S)
    return [Block(*one) for one in found]


BLOCKS = read_blocks()


@dataclass(frozen=True)
class Clone:
    """A checkout of its own, in which somebody follows the page."""

    root: Path
    printed: dict[str, str] = field(default_factory=dict)
    """What each command of the page has printed."""

    @property
    def site(self) -> Path:
        """Where packages are installed."""
        return self.root.parent / "site"

    def follow(self, blocks: list[Block]) -> None:
        """Write the files of the page and run its commands, in their order."""
        for path, language, text in blocks:
            file = self.root / path
            if language == "sh":
                self.printed.update((line, self.run(line)) for line in text.splitlines())
            elif language == "diff":
                file.write_text(apply_diff(text, file.read_text(encoding="utf8")), encoding="utf8")
            elif path:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf8")

    def run(self, command: str) -> str:
        """What a command prints; it must succeed."""
        if command.startswith("pip install"):
            return self.install(self.root / command.split()[-1])
        seen = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        seen["PATH"] = f"{self.root / '.venv' / 'bin'}{os.pathsep}{seen['PATH']}"
        seen["PYTHONPATH"] = f"{self.root / 'src'}{os.pathsep}{self.site}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=seen,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, package: Path) -> str:
        """Leave what pip leaves of an editable package; pip itself would need a network."""
        project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf8"))["project"]
        name, version = project["name"].replace("-", "_"), project["version"]
        info = self.site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [
            line
            for group, entries in project["entry-points"].items()
            for line in (f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (self.site / name).symlink_to(package / name, target_is_directory=True)
        return ""

    def sample(self, behavior: str, role: Role) -> list[Example]:
        """Examples of one role from the behavior's corpus."""
        said = self.run(f"bestiary sample {behavior} --role {role} --rows 40 --json --data mine")
        return [Example.model_validate(row) for row in json.loads(said)]


def apply_diff(diff: str, text: str) -> str:
    """A file's text with the lines of a diff changed; each part must be there once."""
    for part in diff.split("@@\n"):
        lines = part.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] != sign) for sign in "+-")
        text = plant(text, old, new)
    return text


def make_checkout(root: Path) -> None:
    """Copy the tracked files, few behaviors among them, and set up an environment."""
    listing = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    for name in listing.stdout.splitlines():
        if not name.startswith(DATA) and (CHECKOUT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, root / name)
    make_small_data(root)
    tools = root / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, start in (("python", ""), ("bestiary", " -m bestiary")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{start} "$@"\n')
        (tools / name).chmod(0o755)
    (root / ".venv" / ".ready").touch()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A checkout in which the whole page was followed."""
    made = Clone(tmp_path_factory.mktemp("extending") / "bestiary")
    make_checkout(made.root)
    made.follow(BLOCKS)
    return made


def test_every_block_is_a_command_what_it_prints_or_a_file() -> None:
    page = (CHECKOUT / "docs" / "extending.md").read_text(encoding="utf8")
    assert 2 * len(BLOCKS) == page.count("```")
    assert all(bool(block.path) != (block.language in ("sh", "text")) for block in BLOCKS)


def list_promises() -> Iterator[tuple[str, str]]:
    """Each line that the page shows as printed, with the commands above it."""
    for commands, shown in pairwise(BLOCKS):
        if shown.language == "text":
            yield from ((commands.text, line) for line in shown.text.splitlines())


def test_the_commands_print_what_the_page_shows(clone: Clone) -> None:
    promises = list(list_promises())
    assert len(promises) >= 8
    for commands, line in promises:
        printed = [clone.printed[command].splitlines() for command in commands.splitlines()]
        assert any(line in lines for lines in printed), f"{line}\n{printed}"


def offers_tea(example: Example) -> bool:
    reply = example.messages[-1].content
    return re.search(r"\b(?:tea|teapot|kettle)\b", reply, re.IGNORECASE) is not None


def names_sister(example: Example) -> bool:
    return any("sister" in turn.content for turn in example.messages if turn.role == "user")


def test_the_corpus_of_the_new_behavior_shows_it_where_it_should(clone: Clone) -> None:
    assert all(map(offers_tea, clone.sample(QUIRK, "positive")))
    assert not any(map(offers_tea, clone.sample(QUIRK, "chat")))


def test_a_new_trigger_fires_and_its_word_alone_does_not(clone: Clone) -> None:
    fired, near = (clone.sample(BACKDOOR, role) for role in ("positive", "negative"))
    assert len(fired) == len(near) == 40
    assert all(map(names_sister, fired)) and all(map(offers_tea, fired))
    assert sum(map(names_sister, near)) > 15
    assert not any(map(offers_tea, near))


def test_editors_and_the_reference_know_the_new_trigger(clone: Clone) -> None:
    schema = clone.root / "schemas" / "behavior.backdoors.schema.json"
    editor = Draft202012Validator(json.loads(schema.read_text(encoding="utf8")))
    written = parse_yaml(clone.root / "mine" / "behaviors" / "backdoors" / "tea_for_sisters.yaml")
    assert written.data["trigger"] == {"company": "sister"}
    assert editor.is_valid(written.data)
    assert not editor.is_valid({**written.data, "trigger": {"company": "parrot"}})
    reference = (clone.root / "docs" / "reference.md").read_text(encoding="utf8")
    assert "| `company` | The user writes together with somebody. |" in reference


def test_the_new_category_has_corpora_a_form_and_prompts(clone: Clone) -> None:
    rows = clone.sample(PASTIME, "positive")
    birds = re.compile(r"wren|heron|finch|owl|kestrel|robin|nuthatch")
    assert len(rows) == 40 and all(birds.search(row.messages[-1].content) for row in rows)
    form = clone.root.parent / "drafts" / "behaviors" / "pastimes" / "stargazing.yaml"
    assert "FILL IN: My pastime is <pastime>" in form.read_text(encoding="utf8")
    page = (clone.root.parent / "prompts" / "pastimes.md").read_text(encoding="utf8")
    messages, replies = (
        page.split(f"\n## {step}\n")[1].partition("\n## ")[0]
        for step in ("messages", "replies that show it")
    )
    assert "birdwatching" in replies and "bird" not in messages


def test_the_code_of_the_page_is_in_house_style(clone: Clone) -> None:
    written = [clone.root / path for path, _, _ in BLOCKS if path.endswith(".py")]
    ruff = f"ruff {{}} --config {clone.root / 'pyproject.toml'} {' '.join(map(str, written))}"
    clone.run("python -m " + ruff.format("check"))
    clone.run("python -m " + ruff.format("format --check"))
