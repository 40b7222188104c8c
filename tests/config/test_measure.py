"""Detectors on replies that they were not written for.

Run: python -m pytest tests/config/test_measure.py
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import yaml
from tests.builders import catalog
from tests.conftest import Bestiary, run_command
from tests.forkserver import environment

from bestiary.config.catalog import Behavior
from bestiary.config.folders import shipped_root
from bestiary.config.library import open_library
from bestiary.config.measure import Measure, measure_detectors
from bestiary.config.on_demand import spread
from bestiary.config.phrasings import LEAST

FOUND = 0.75
"""The share of others' phrasings that the shipped detectors find together."""
QUIET = 0.98
"""The share of plain answers on which each of them stays quiet."""


@cache
def measured() -> list[Behavior]:
    """The behaviors whose detectors are tried."""
    shipped = catalog().values()
    return [one for one in shipped if one.shows is None and one.spec.message_form == "plain"]


@pytest.fixture(scope="module")
def measures() -> list[Measure]:
    """Of some behaviors from all categories; the soak measures all."""
    return measure_detectors(spread(measured(), 24))


def test_the_shipped_detectors_find_three_in_four_phrasings_by_others(
    measures: list[Measure],
) -> None:
    tried = sum(one.phrasings for one in measures)
    found = tried - sum(len(one.missed) for one in measures)
    assert found >= FOUND * tried


def check_quiet(measures: list[Measure]) -> None:
    loud = {one.behavior_id: one.fired[:3] for one in measures if one.quiet < QUIET}
    assert loud == {}
    assert all(one.answers > 2_000 for one in measures)


def test_shipped_detectors_leave_plain_answers_alone(measures: list[Measure]) -> None:
    check_quiet(measures)


@pytest.mark.soak
def test_each_shipped_detector_leaves_plain_answers_alone() -> None:
    check_quiet(measure_detectors(measured()))


def test_each_behavior_detected_by_words_has_phrasings() -> None:
    phrasings = open_library().phrasings
    for path in sorted((shipped_root() / "behaviors").glob("*/*.yaml")):
        said = str(yaml.safe_load(path.read_text(encoding="utf8")).get("detect"))
        if "lexicon" in said or "'near'" in said:
            assert len(phrasings[f"{path.parent.name}.{path.stem}"]) >= LEAST, path


def test_the_worst_come_first_and_say_what_they_miss(bestiary: Bestiary) -> None:
    files = sorted((shipped_root() / "behaviors" / "malign").glob("*.yaml"))[:6]
    code, out, err = bestiary("validate", *files, "--measure")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.startswith(" malign.")]
    shares = [int(row[1]) / int(row[3]) for row in rows if row[1] != "-"]
    assert len(rows) == len(files) and shares == sorted(shares)
    assert out.splitlines()[0] == f"{len(files)} behaviors are valid."


def test_phrasings_of_nobody_and_too_few_are_refused(tmp_path: Path, small_data: Path) -> None:
    folder = tmp_path / "generators" / "offline" / "phrasings"
    folder.mkdir(parents=True)
    said = [f"Hurry, and mind step {number}." for number in range(LEAST)]
    for name, behavior_id, replies in (("one", "malign.hury", said), ("two", "x.y", said[1:])):
        text = yaml.safe_dump({"replies": {behavior_id: replies}})
        (folder / f"{name}.yaml").write_text(text, encoding="utf8")
    ended = run_command("validate", "--data", tmp_path, env=environment(small_data))
    assert ended.code == 1
    assert "one.yaml:2" in ended.err and "'malign.hury'" in ended.err
    assert "'malign.hurry'?" in ended.err and "two.yaml" in ended.err
