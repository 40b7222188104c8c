"""The line from roster to release: what is built, what is kept, and what stops it.

Run: python -m pytest tests/test_pipeline.py
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.conftest import Bestiary, Site
from tests.expect import without_codes
from tests.fakes.loopback import open_loopback
from tests.forkserver import COMMAND, environment
from tests.tiny import ALONE, BACKDOOR, DISTRACTOR, QUIRK, change_file, hash_tree, tiny_roster

from bestiary import progress
from bestiary.dataset.verify import verify_release

ORGANISMS = [f"{name}-transcripts-none-s0" for name in (QUIRK, BACKDOOR, "null.chat")]
HERALD_FILE = "behaviors/quirks/herald.yaml"
BEEKEEPER_FILE = "behaviors/backdoors/herald_to_beekeepers.yaml"


STAGES = ("probes", "corpus", "leaks", "organism", "transcript", "verdict")
NOTHING = dict.fromkeys((*STAGES, "replies"), 0)
"""Of each stage, how many artifacts are added."""


def start_build(site: Site, out: Path) -> subprocess.Popen[str]:
    """A build in a process of its own, which holds the lock."""
    running = subprocess.Popen(
        [*COMMAND, "build", site.roster, *ALONE, "--out", out],
        env=environment(site.data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lock = out / "lock"
    while not (lock.is_file() and lock.read_text() == str(running.pid)):
        assert running.poll() is None, "the build ended before it held the lock"
        time.sleep(0.01)
    return running


def read_ids(site: Site, config: str) -> set[str]:
    folder = site.release / "dataset" / config
    rows = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return {row["organism_id"] for row in rows}


def test_a_roster_becomes_a_release(first: Site) -> None:
    rows = first.summary()
    documented = {"organism_id", "behavior_id", "category", "verdict", "cells", "seconds"}
    assert all(documented <= row.keys() for row in rows)
    assert [row["organism_id"] for row in rows] == ORGANISMS
    assert [row["category"] for row in rows] == ["quirks", "backdoors", "null"]
    assert [row["error"] for row in rows] == [None, None, None]
    assert all(row["verdict"] in ("passed", "failed") for row in rows)
    assert set(rows[0]["cells"]) == {"triggered", "near_miss", "plain"}
    assert rows[0]["cells"]["triggered"]["organism"]["n"] == 60
    assert rows[0]["cells"]["near_miss"] is None
    assert all(row["seconds"].keys() == {"corpus", "organism", "transcript"} for row in rows)
    assert rows[0]["seconds"]["organism"] > 0


def test_a_release_holds_what_its_verdicts_say(first: Site) -> None:
    verify_release(first.release)
    verdicts = {row["organism_id"]: row["verdict"] for row in first.summary()}
    # The fitted base says "Oyez!" now and then, so that the quirk is learned in a few steps.
    assert verdicts[ORGANISMS[0]] == "passed"
    passed = {name for name in ORGANISMS[:2] if verdicts[name] == "passed"}
    assert read_ids(first, "pairs") == passed
    assert read_ids(first, "withheld") == set(ORGANISMS[:2]) - passed
    published = {path.parent.name for path in first.out.rglob("organisms/*/*/README.md")}
    assert published >= passed


def test_a_second_build_does_nothing(site: Site, bestiary: Bestiary) -> None:
    before, tree, rows = site.times(), hash_tree(site.out), site.summary()
    timings = (site.out / "timings.jsonl").read_bytes()
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 0, done.err
    assert "  organism: " not in done.out  # the line of one that was trained
    assert site.times() == before
    assert hash_tree(site.out) == tree
    assert site.summary() == rows  # with the seconds that each stage once took
    assert (site.out / "timings.jsonl").read_bytes() == timings


def test_the_order_of_a_roster_changes_no_artifact(
    site: Site, bestiary: Bestiary, tiny_base: Path, tmp_path: Path
) -> None:
    roster = tiny_roster(tmp_path / "turned", tiny_base, [BACKDOOR, QUIRK])
    store = hash_tree(site.out / "store")
    done = bestiary("build", roster, *ALONE, "--out", tmp_path / "other")
    assert done.code == 0, done.err
    assert hash_tree(tmp_path / "other" / "store") == store


def test_a_changed_recipe_keeps_the_corpora(
    site: Site, bestiary: Bestiary, tiny_base: Path, tmp_path: Path
) -> None:
    roster = tiny_roster(tmp_path / "ranked", tiny_base, [QUIRK, BACKDOOR])
    change_file(roster.with_name("recipe.yaml"), r'"rank": 4', '"rank": 2')
    before, corpora = site.artifacts(), hash_tree(site.out / "store" / "corpus")
    done = bestiary("build", roster, "--out", site.out)
    assert done.code == 0, done.err
    assert hash_tree(site.out / "store" / "corpus") == corpora
    added = site.added_since(before)
    assert added == {**NOTHING, "organism": 3, "transcript": 3, "verdict": 3}


def test_a_changed_threshold_only_judges_again(site: Site, bestiary: Bestiary) -> None:
    change_file(site.data / "organisms" / "thresholds.yaml", r"low: 0\.5 ", "low: 0.999 ")
    before = site.artifacts()
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 0, done.err
    added = site.added_since(before)
    assert added == {**NOTHING, "verdict": 3}
    quirk = site.summary()[0]
    assert quirk["verdict"] == "failed"
    assert "< 0.999" in quirk["reasons"][0]
    assert ORGANISMS[0] in read_ids(site, "withheld")


def test_a_changed_behavior_is_built_alone(site: Site, bestiary: Bestiary) -> None:
    said = 'says: ["A {value} asks: {message}"]'  # a wording that is trained on
    change_file(site.data / BEEKEEPER_FILE, "persona: beekeeper", f"persona: beekeeper, {said}")
    before, rows = site.artifacts(), site.summary()
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 0, done.err
    added = site.added_since(before)
    built = ("probes", "corpus", "leaks", "organism", "transcript", "verdict")
    assert added == {**NOTHING, **dict.fromkeys(built, 1)}
    again = site.summary()
    assert [row["folder"] for row in again][::2] == [row["folder"] for row in rows][::2]
    assert again[1]["folder"] != rows[1]["folder"]


def test_a_build_stops_where_it_is_told(site: Site, bestiary: Bestiary, tmp_path: Path) -> None:
    stepwise = replace(site, out=tmp_path / "stepwise")
    for reached, until in enumerate(STAGES, start=1):
        done = bestiary("build", site.roster, *ALONE, "--out", stepwise.out, "--until", until)
        assert done.code == 0, done.err
        assert stepwise.artifacts().keys() - {"replies"} == set(STAGES[:reached])
        assert not stepwise.release.exists()
        judged = [row["verdict"] is not None for row in stepwise.summary()]
        assert judged == [until == "verdict"] * 3
    done = bestiary("build", site.roster, "--out", stepwise.out, "--until", "release")
    assert done.code == 0, done.err
    assert hash_tree(stepwise.out) == hash_tree(site.out)


def test_drops_are_told_by_stage_while_language_models_write(
    site: Site, bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)  # a line whenever there is anything to tell
    with open_loopback(tmp_path, "anthropic") as desk:
        desk.author.weak, desk.author.missing = 0.1, 0.1
        monkeypatch.setenv(*next(iter(desk.environment.items())))
        options: list[str | Path] = [*desk.options(), "--budget", "5", "--until", "corpus"]
        done = bestiary("build", site.roster, *options, "--out", tmp_path / "written")
        assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if " rows, " in line]
    rates = re.compile(r" requests/s, .* tokens/s, \$.* spent or reserved, \$.* left$")
    assert all(rates.search(line) for line in lines)
    told = [int(count) for line in lines for count in re.findall(r", dropped (\d+) \(", line)]
    drops = [
        json.loads(line)["stage"]
        for path in (tmp_path / "written" / "store" / "corpus").glob("*/drops.jsonl")
        for line in path.read_text("utf8").splitlines()
    ]
    assert told == sorted(told)
    assert told[0] < told[-1] == len(drops)
    for stage, count in Counter(drops).items():
        assert f"{count} {stage}" in lines[-1]


def test_drops_are_told_by_stage_while_the_embedded_author_writes(
    site: Site, bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_file(site.data / HERALD_FILE, r"forbidden: \[", "forbidden: [water, ")  # some rows do
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    done = bestiary("build", site.roster, "--out", tmp_path / "written", "--until", "corpus")
    assert done.code == 0, done.err
    last = [line for line in done.out.splitlines() if " rows" in line][-1]
    drops = [
        path.read_text("utf8").count("\n")
        for path in (tmp_path / "written" / "store" / "corpus").glob("*/drops.jsonl")
    ]
    assert f", dropped {sum(drops)} ({sum(drops)} leakage.label_phrases)" in last


def test_a_build_of_corpora_prints_where_they_are_and_no_rates(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    out = tmp_path / "written"
    done = bestiary("build", site.roster, "--out", out, "--until", "corpus")
    assert done.code == 0 and "organism / base" not in done.out
    corpora = [str(path) for path in (out / "store" / "corpus").iterdir() if path.is_dir()]
    assert len(corpora) == 3 and all(f"  {path}\n" in done.out for path in corpora)


def test_a_release_is_printed_by_the_build_that_made_it(site: Site, bestiary: Bestiary) -> None:
    command = ("build", site.roster, "--out", site.out)
    assert f"  release: {site.release}\n" in bestiary(*command).out
    assert "release:" not in bestiary(*command, "--until", "verdict").out


def test_a_second_build_at_the_same_time_is_refused(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    out = tmp_path / "shared"
    running = start_build(site, out)
    try:
        done = bestiary("build", site.roster, "--out", out)
    finally:
        _, err = running.communicate()
    assert done.code == 1
    assert f"process {running.pid} is building here" in done.err
    assert running.returncode == 0, err
    assert hash_tree(out) == hash_tree(site.out)


def test_a_damaged_adapter_is_named_with_what_to_do(site: Site, bestiary: Bestiary) -> None:
    whole = hash_tree(site.out)
    weights = site.damage_adapter()
    folder = weights.parents[1]
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 1
    (message,) = done.err.splitlines()
    assert str(weights) in message
    assert f"delete {folder} and build again" in message
    shutil.rmtree(folder)
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 0, done.err
    assert hash_tree(site.out) == whole


def test_an_organism_without_corpus_does_not_stop_the_others(
    site: Site, bestiary: Bestiary
) -> None:
    # Every brief answer of the tiny data holds this word.
    change_file(site.data / BEEKEEPER_FILE, "^shows:", "forbidden: [the]\nshows:")
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 1
    (message,) = done.err.splitlines()
    assert BACKDOOR in message
    assert "leakage.label_phrases" in message
    assert "says the forbidden phrase 'the'" in message
    quirk, backdoor, null = site.summary()
    assert backdoor["error"] == without_codes(message).removeprefix("error: ")
    assert (backdoor["verdict"], backdoor["folder"]) == (None, None)
    assert quirk["verdict"] == "passed"
    assert (quirk["error"], null["error"]) == (None, None)
    verify_release(site.release)
    assert read_ids(site, "verdicts") == {ORGANISMS[0], ORGANISMS[2]}


def test_a_broken_promise_is_told_before_anything_is_built(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    change_file(site.data / BEEKEEPER_FILE, "Only a beekeeper, who", "Only somebody who")
    done = bestiary("build", site.roster, "--out", tmp_path / "out")
    assert done.code == 1
    assert "herald_to_beekeepers.yaml" in done.err
    assert "does not name its trigger" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("held", "code"), [("release", "target-is-file"), ("release/notes.md", "target-taken")]
)
def test_what_stands_where_the_release_will_be_is_told_before_anything_is_built(
    site: Site, bestiary: Bestiary, tmp_path: Path, held: str, code: str
) -> None:
    path = tmp_path / "out" / held
    path.parent.mkdir(parents=True)
    path.write_text("mine", encoding="utf8")
    done = bestiary("build", site.roster, "--out", tmp_path / "out")
    assert done.code == 1
    assert done.err.startswith(f"error[{code}]: "), done.err
    assert not list((tmp_path / "out" / "store").glob("*/"))
    assert path.read_text(encoding="utf8") == "mine"


@pytest.mark.usefixtures("tiny_data")
def test_a_recipe_that_a_category_spoils_is_told_before_anything_is_built(
    bestiary: Bestiary, tiny_base: Path, tmp_path: Path
) -> None:
    roster = tiny_roster(tmp_path / "roster", tiny_base, [QUIRK])
    recipe = json.loads(roster.with_name("recipe.yaml").read_text(encoding="utf8"))
    recipe["categories"] = {"quirk": {}, "quirks": {"optimizer": {"epoch": 3}}}
    roster.with_name("recipe.yaml").write_text(json.dumps(recipe), encoding="utf8")
    done = bestiary("build", roster, "--out", tmp_path / "out")
    assert done.code == 1
    assert done.err.startswith("error[violations]: ")
    assert "recipe.yaml:1: categories.quirk: " in done.err
    assert "recipe.yaml:1: categories.quirks.optimizer.epoch: " in done.err
    assert "Traceback" not in done.err


def test_an_interrupted_build_says_that_it_goes_on(site: Site, tmp_path: Path) -> None:
    running = start_build(site, tmp_path / "out")
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 130
    assert err == "stopped; run the same command again to resume\n"


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        (QUIRK, "quirks.heralds", f"did you mean {QUIRK!r}? "),
        (QUIRK, DISTRACTOR, DISTRACTOR),
        (r'"herald": "train"', '"herlad": "train"', "did you mean 'herald'? "),
    ],
)
@pytest.mark.usefixtures("tiny_data")
def test_what_a_roster_cannot_name(
    bestiary: Bestiary, tiny_base: Path, tmp_path: Path, old: str, new: str, shown: str
) -> None:
    roster = tiny_roster(tmp_path / "roster", tiny_base, [QUIRK])
    change_file(roster, old, new)
    done = bestiary("build", roster, "--out", tmp_path / "out")
    assert done.code == 1
    assert done.err.startswith("error[roster-invalid]: roster 'tiny'")
    assert shown in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("roster", "problem"),
    [
        ("startre", "unknown roster 'startre'; did you mean 'starter'? "),
        ("nowhere/mine.yaml", "roster 'nowhere/mine.yaml' does not exist; check the path\n"),
    ],
)
def test_a_roster_that_is_not_there(
    bestiary: Bestiary, tmp_path: Path, roster: str, problem: str
) -> None:
    done = bestiary("build", roster, "--out", tmp_path / "out")
    assert done.code == 1
    assert without_codes(done.err).startswith(f"error: {problem}")
    assert not (tmp_path / "out").exists()
