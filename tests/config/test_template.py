"""The template sandbox.

Run: python -m pytest tests/config/test_template.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.expect import expect_error

from bestiary.config.library import open_library
from bestiary.config.template import Templates
from bestiary.errors import SpecError

SHIPPED = open_library().templates.hash_category("backdoors")


def render(folder: Path, text: str, **values: object) -> str:
    """What a template with this text says."""
    path = folder / "tea.j2"
    path.write_text(text, encoding="utf8")
    return Templates({"shared/tea.j2": path}).render("shared/tea.j2", **values)


def test_values_are_filled_in_and_never_rendered_themselves(tmp_path: Path) -> None:
    said = render(tmp_path, "On {{ topic }}: yes.", topic="{{ 7 * 7 }}")
    assert said == "On {{ 7 * 7 }}: yes."


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ topic.__init__.__globals__ }}", "access to attribute '__init__'"),
        ("{{ topik }}", "'topik' is undefined"),
        ("{{ topic.colour }}", "has no attribute 'colour'"),
        ("{{ range(10 ** 9) }}", "Range too big"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ topic", "unexpected end of template"),
        ("{% include 'absent.j2' %}", "template 'absent.j2' does not exist"),
        ("{% include '../../pyproject.toml' %}", "does not exist"),
    ],
)
def test_what_may_not_run_is_an_error_with_its_cause(tmp_path: Path, text: str, cause: str) -> None:
    with expect_error(SpecError, "template-broken", template="shared/tea.j2") as caught:
        render(tmp_path, text, topic="tea")
    assert cause in caught.error.problem
    assert "topic" in caught.error.remedy


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tea.j2"
    path.write_bytes(b"Tea \xff")
    with expect_error(SpecError, "file-unreadable", path=path):
        Templates({"shared/tea.j2": path})


def test_a_missing_file_is_named() -> None:
    with expect_error(SpecError, "template-broken", template="quirks/rep.j2"):
        open_library().templates.render("quirks/rep.j2", topic="tea")


def test_the_hash_covers_a_categorys_own_prompts_and_the_shared_ones(data: Path) -> None:
    kept = (
        open_library().templates.hash_category("quirks"),
        open_library().templates.hash_category("backdoors"),
    )
    (data / "generators" / "quirks" / "reply.j2").write_text("Reply.", encoding="utf8")
    assert open_library().templates.hash_category("quirks") != kept[0]
    assert open_library().templates.hash_category("backdoors") == kept[1] == SHIPPED
    (data / "generators" / "shared" / "plain.j2").write_text("Plainly.", encoding="utf8")
    assert open_library().templates.hash_category("backdoors") != kept[1]
