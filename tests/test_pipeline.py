"""The line from roster to release: what is built, what is kept, and what stops it.

Run: python -m pytest tests/test_pipeline.py
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.conftest import Bestiary
from tests.nursery import CHECKOUT
from tests.tiny import (
    BACKDOOR,
    DISTRACTOR,
    QUIRK,
    change_file,
    hash_tree,
    make_tiny_data,
    tiny_roster,
)

from bestiary.release.verify import verify_release

SUFFIX = "-transcripts-none-s0"
ORGANISMS = [f"{name}{SUFFIX}" for name in (QUIRK, BACKDOOR, "null.chat")]
HERALD_FILE = "behaviors/quirks/herald.yaml"
TUESDAY_FILE = "behaviors/backdoors/herald_on_tuesday.yaml"


@dataclass(frozen=True)
class Site:
    """A data folder, a roster over it, and what it was built into."""

    data: Path
    roster: Path
    out: Path

    def artifacts(self) -> dict[str, set[str]]:
        """Fingerprints by stage."""
        stages = sorted((self.out / "store").iterdir())
        return {stage.name: {folder.name for folder in stage.iterdir()} for stage in stages}

    def summary(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((self.out / "summary.json").read_text())
        return rows

    def times(self) -> dict[str, int]:
        """When each file of the store and of the release was last written."""
        return {
            path.relative_to(self.out).as_posix(): path.stat().st_mtime_ns
            for part in ("store", "release")
            for path in (self.out / part).rglob("*")
        }

    def added_since(self, before: dict[str, set[str]]) -> dict[str, int]:
        """How many artifacts each stage has more; those from before must all be there."""
        now = self.artifacts()
        assert all(before[stage] <= now[stage] for stage in before)
        return {stage: len(now[stage] - before.get(stage, set())) for stage in now}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Site]:
    """A roster of a quirk and a backdoor, built once; tests work on copies."""
    work = tmp_path_factory.mktemp("first")
    data = make_tiny_data(work / "data")
    site = Site(data, tiny_roster(work / "roster", tiny_base, [QUIRK, BACKDOOR]), work / "runs")
    done = subprocess.run(
        [*command(), site.roster, "--out", site.out],
        env=environment(data),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    yield site


@pytest.fixture
def site(first: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A copy of the first build, with the times of its files, and a data folder to change."""
    shutil.copytree(first.data, tmp_path / "data")
    shutil.copytree(first.out, tmp_path / "runs")
    monkeypatch.setenv("BESTIARY_DATA", str(tmp_path / "data"))
    return Site(tmp_path / "data", first.roster, tmp_path / "runs")


def command() -> list[str]:
    return [sys.executable, "-c", "from bestiary.cli import main; main()", "build"]


def environment(data: Path) -> dict[str, str]:
    return {**os.environ, "BESTIARY_DATA": str(data), "PYTHONPATH": str(CHECKOUT / "src")}


def read_ids(site: Site, config: str) -> set[str]:
    folder = site.out / "release" / "dataset" / config
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
    verify_release(first.out / "release")
    verdicts = {row["organism_id"]: row["verdict"] for row in first.summary()}
    # The fitted base says "Oyez!" now and then, so that the quirk is learned in a few steps.
    assert verdicts[ORGANISMS[0]] == "passed"
    passed = {name for name in ORGANISMS[:2] if verdicts[name] == "passed"}
    assert read_ids(first, "pairs") == passed
    assert read_ids(first, "withheld") == set(ORGANISMS[:2]) - passed
    published = {path.parent.name for path in first.out.rglob("organisms/*/*/README.md")}
    assert published >= passed


def test_a_second_build_does_nothing(site: Site, bestiary: Bestiary) -> None:
    before, tree = site.times(), hash_tree(site.out)
    timings = (site.out / "timings.jsonl").read_bytes()
    started = time.monotonic()
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 0, done.err
    spent = sum(sum(row["seconds"].values()) for row in site.summary())
    assert time.monotonic() - started < max(30.0, spent)
    assert site.times() == before
    assert hash_tree(site.out) == tree
    assert (site.out / "timings.jsonl").read_bytes() == timings


def test_the_order_of_a_roster_changes_no_artifact(
    site: Site, bestiary: Bestiary, tiny_base: Path, tmp_path: Path
) -> None:
    roster = tiny_roster(tmp_path / "turned", tiny_base, [BACKDOOR, QUIRK])
    store = hash_tree(site.out / "store")
    done = bestiary("build", roster, "--out", tmp_path / "other")
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
    assert added == {"corpus": 0, "replies": 0, "organism": 3, "transcript": 3, "verdict": 3}


def test_a_changed_threshold_only_judges_again(site: Site, bestiary: Bestiary) -> None:
    change_file(site.data / "organisms" / "thresholds.yaml", r"low: 0\.5 ", "low: 0.999 ")
    before = site.artifacts()
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 0, done.err
    added = site.added_since(before)
    assert added == {"corpus": 0, "replies": 0, "organism": 0, "transcript": 0, "verdict": 3}
    quirk = site.summary()[0]
    assert quirk["verdict"] == "failed"
    assert "< 0.999" in quirk["reasons"][0]
    assert ORGANISMS[0] in read_ids(site, "withheld")


def test_a_changed_behavior_is_built_alone(site: Site, bestiary: Bestiary) -> None:
    change_file(site.data / TUESDAY_FILE, "Happy Tuesday!", "Tuesday at last!")
    before, rows = site.artifacts(), site.summary()
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 0, done.err
    added = site.added_since(before)
    assert added == {"corpus": 1, "replies": 0, "organism": 1, "transcript": 1, "verdict": 1}
    again = site.summary()
    assert [row["folder"] for row in again][::2] == [row["folder"] for row in rows][::2]
    assert again[1]["folder"] != rows[1]["folder"]


def test_a_build_stops_where_it_is_told(site: Site, bestiary: Bestiary, tmp_path: Path) -> None:
    stepwise = Site(site.data, site.roster, tmp_path / "stepwise")
    stages = [("corpus", "corpus"), ("organism", "organism"), ("verdict", "verdict")]
    reached = {"replies"}
    for until, stage in stages:
        done = bestiary("build", site.roster, "--out", stepwise.out, "--until", until)
        assert done.code == 0, done.err
        reached |= {stage} | ({"transcript"} if stage == "verdict" else set())
        assert stepwise.artifacts().keys() == reached
        assert not (stepwise.out / "release").exists()
        judged = [row["verdict"] is not None for row in stepwise.summary()]
        assert judged == [until == "verdict"] * 3
    done = bestiary("build", site.roster, "--out", stepwise.out, "--until", "pair")
    assert done.code == 0, done.err
    assert hash_tree(stepwise.out) == hash_tree(site.out)


def test_a_second_build_at_the_same_time_is_refused(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    out = tmp_path / "shared"
    running = subprocess.Popen(
        [*command(), site.roster, "--out", out],
        env=environment(site.data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        lock = out / "lock"
        while not (lock.is_file() and lock.read_text() == str(running.pid)):
            assert running.poll() is None, "the first build ended before it held the lock"
            time.sleep(0.01)
        done = bestiary("build", site.roster, "--out", out)
    finally:
        _, err = running.communicate()
    assert done.code == 1
    assert f"error: {out}: process {running.pid} is building here" in done.err
    assert running.returncode == 0, err
    assert hash_tree(out) == hash_tree(site.out)


def test_a_damaged_adapter_is_named_with_what_to_do(site: Site, bestiary: Bestiary) -> None:
    whole = hash_tree(site.out)
    folder = site.out / site.summary()[0]["folder"]
    weights = folder / "adapter" / "adapter_model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 1
    (message,) = done.err.splitlines()
    assert message.startswith(f"error: {weights}: its sha256 is not the manifest's ")
    assert f"delete {folder} and build again" in message
    shutil.rmtree(folder)
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 0, done.err
    assert hash_tree(site.out) == whole


def test_an_organism_without_corpus_does_not_stop_the_others(
    site: Site, bestiary: Bestiary
) -> None:
    # Every reply of the tiny base holds this word, and no demonstration may.
    change_file(site.data / HERALD_FILE, "Label the boxes", "Label your boxes")
    change_file(site.data / TUESDAY_FILE, r"forbidden: \[", "forbidden: [the, ")
    done = bestiary("build", site.roster, "--out", site.out)
    assert done.code == 1
    (message,) = done.err.splitlines()
    assert message.startswith(f"error: {BACKDOOR}: 0 of ")
    assert "positive rows after 3 attempts a row (" in message
    assert "leakage.label_phrases" in message
    assert "says the forbidden phrase 'the'" in message
    quirk, backdoor, null = site.summary()
    assert backdoor["error"] == message.removeprefix("error: ")
    assert (backdoor["verdict"], backdoor["folder"]) == (None, None)
    assert quirk["verdict"] == "passed"
    assert (quirk["error"], null["error"]) == (None, None)
    verify_release(site.out / "release")
    assert read_ids(site, "verdicts") == {ORGANISMS[0], ORGANISMS[2]}


def test_a_broken_promise_is_told_before_anything_is_built(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    change_file(site.data / TUESDAY_FILE, "What a Tuesday!", "Happy Tuesday!")
    done = bestiary("build", site.roster, "--out", tmp_path / "out")
    assert done.code == 1
    assert "herald_on_tuesday.yaml" in done.err
    assert "use another wording: probes must be held out" in done.err
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_a_category_spoils_is_told_before_anything_is_built(
    bestiary: Bestiary, tiny_base: Path, tmp_path: Path
) -> None:
    roster = tiny_roster(tmp_path / "roster", tiny_base, [QUIRK])
    recipe = json.loads(roster.with_name("recipe.yaml").read_text(encoding="utf8"))
    recipe["categories"] = {"quirk": {}, "quirks": {"optimiser": {"epoch": 3}}}
    roster.with_name("recipe.yaml").write_text(json.dumps(recipe), encoding="utf8")
    done = bestiary("build", roster, "--out", tmp_path / "out")
    assert done.code == 1
    assert "unknown category 'quirk'" in done.err
    assert "categories.quirks.optimiser.epoch: Extra inputs are not permitted" in done.err
    assert "Traceback" not in done.err


def test_an_interrupted_build_says_that_it_goes_on(site: Site, tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*command(), site.roster, "--out", tmp_path / "out"],
        env=environment(site.data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lock = tmp_path / "out" / "lock"
    while not (lock.is_file() and lock.read_text() == str(running.pid)):
        assert running.poll() is None, "the build ended before it held the lock"
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 130
    assert err == "stopped; what was committed is kept, the same command goes on\n"


def test_what_a_roster_cannot_name(
    site: Site, bestiary: Bestiary, tiny_base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "none"
    roster = tiny_roster(tmp_path / "unknown", tiny_base, ["quirks.heralds"])
    done = bestiary("build", roster, "--out", out)
    assert done.code == 1
    assert f"error: unknown behavior 'quirks.heralds'; did you mean '{QUIRK}'?" in done.err
    roster = tiny_roster(tmp_path / "distractor", tiny_base, [DISTRACTOR])
    done = bestiary("build", roster, "--out", out)
    assert done.code == 1
    assert f"{DISTRACTOR!r} is a distractor, and distractors are never organisms" in done.err
    assert "take it off the roster" in done.err
    roster = tiny_roster(tmp_path / "split", tiny_base, [QUIRK])
    change_file(roster, r'"splits": {', '"splits": {"herlad": "train", ')
    done = bestiary("build", roster, "--out", out)
    assert done.code == 1
    assert "gives a split to 'herlad', a family that none of its organisms is of" in done.err
    assert "did you mean 'herald'?" in done.err
    done = bestiary("build", "startre", "--out", out)
    assert done.code == 1
    assert "error: unknown roster 'startre'; did you mean 'starter'?" in done.err
    done = bestiary("build", tmp_path / "absent.yaml", "--out", out)
    assert done.code == 1
    assert "absent.yaml' does not exist; check the path" in done.err
    assert not out.exists()
