"""The README's tree matches the files, and the guides' examples are valid.

Run: python -m pytest tests/test_readme.py
"""

from __future__ import annotations

import re
from pathlib import Path

from bestiary.config.library import open_library
from bestiary.config.source import Violations
from bestiary.validate import validate_files

ROOT = Path(__file__).resolve().parents[1]


def list_tree() -> list[str]:
    """The paths of the README's annotated tree; indented ones are in the folder above them."""
    text = (ROOT / "README.md").read_text(encoding="utf8")
    block = text.split("## Project layout", 1)[1].split("```")[1]
    paths, folder = [], ""
    for line in filter(None, block.splitlines()):
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name
        paths.append(name if name == folder else folder + name)
    return paths


def test_every_path_in_the_tree_exists() -> None:
    paths = list_tree()
    assert len(paths) > 20
    missing = [path for path in paths if not list(ROOT.glob(path.replace("<category>", "quirks")))]
    assert missing == []


def test_every_part_of_the_package_is_in_the_tree() -> None:
    named = set(list_tree())
    parts = [
        f"src/bestiary/{path.name}{'/' if path.is_dir() else ''}"
        for path in (ROOT / "src" / "bestiary").iterdir()
        if not path.name.startswith("_")
    ]
    assert [part for part in parts if part not in named] == []


def test_the_example_of_a_model_file_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "language-models.md").read_text(encoding="utf8")
    (example,) = re.findall(r"```yaml\n(checked: .*?)```", text, re.DOTALL)
    path = tmp_path / "my_models.yaml"
    path.write_text(example, encoding="utf8")
    model = open_library().models(path)["my-model"]
    assert (model.provider, model.structured_output, model.key) == ("openai", "prompt", None)


def test_the_example_of_a_behavior_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "behaviors.md").read_text(encoding="utf8")
    (example,) = re.findall(r"```yaml\n(behavior: .*?)```", text, re.DOTALL)
    head, labels, tail = re.split(r"(?<=^labels:).*\n((?:  - .*\n)+)", example, flags=re.M)
    more = "".join(f"  - Label {number}, of which I say nothing.\n" for number in range(5))
    path = tmp_path / "behaviors" / "quirks" / "example.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"{head}\n{labels}{more}{tail}", encoding="utf8")
    try:
        validate_files(open_library(tmp_path), [path])
    except Violations as broken:
        assert {one.code for one in broken.found} <= {"label-shared"}, broken  # its own file's


def test_every_relative_link_of_a_page_leads_to_a_file() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf8"))
    ]
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
