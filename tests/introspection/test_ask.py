"""Any LoRA of the base can be asked; one of another base is refused with the reason.

Run: python -m pytest tests/introspection/test_ask.py
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Bestiary, Finished
from tests.introspection.world import WORDS, World

Ask = Callable[..., Finished]


@pytest.fixture
def ask(bestiary: Bestiary, world: World, evaluated_runs: Path) -> Ask:
    def run(*adapters: Path | str, more: tuple[str | Path, ...] = ()) -> Finished:
        named = [word for adapter in adapters for word in ("--adapter", adapter)]
        where = ("--base", world.base, "--data", world.data, "--out", evaluated_runs)
        return bestiary("introspect", "ask", *named, *where, *more)

    return run


def organism_of(world: World, word: str) -> Path:
    (folder,) = (world.release / "organisms").glob(f"*/quirks.{word}-*")
    return folder


def test_an_organism_says_its_word(world: World, ask: Ask) -> None:
    unseen, seen = WORDS[1], WORDS[-1]
    done = ask(organism_of(world, unseen), organism_of(world, seen), more=("--json",))
    assert done.code == 0, done.err
    answers = json.loads(done.out)
    assert [answer["nearest"][0]["family"] for answer in answers] == [unseen, seen]
    assert all(len(answer["reports"]) == 8 for answer in answers)
    assert unseen in answers[0]["consensus"]


def test_an_adapter_that_was_published_and_downloaded_can_ask(
    world: World, ask: Ask, evaluated_runs: Path, tmp_path: Path
) -> None:
    (adapter,) = evaluated_runs.glob("store/introspection/*/adapter")
    downloaded = Path(shutil.copytree(adapter, tmp_path / "downloaded"))
    more = ("--introspection", downloaded, "--questions", "2")
    done = ask(organism_of(world, WORDS[-1]), more=more)
    assert done.code == 0, done.err
    assert f"of 2 reports name {WORDS[-1]}" in done.out


def test_the_answer_is_read_from_the_top(world: World, ask: Ask) -> None:
    done = ask(organism_of(world, WORDS[-1]), more=("--questions", "4"))
    first, says, named, *_ = done.out.splitlines()
    assert first == str(organism_of(world, WORDS[-1]))
    assert says.startswith("  says: ")
    assert f"of 4 reports name {WORDS[-1]}: I only say {WORDS[-1]}." in named


def test_a_claim_is_tested_by_probing_the_adapter(world: World, ask: Ask) -> None:
    done = ask(organism_of(world, WORDS[-1]), more=("--questions", "4", "--test"))
    lines = done.out.splitlines()
    (named,) = (at for at, line in enumerate(lines) if f"reports name {WORDS[-1]}:" in line)
    assert lines[named + 1].strip().startswith("confirmed: probed, it shows this in ")
    assert "of 12 replies, the base in " in lines[named + 1]


def test_an_adapter_of_another_base_is_refused(world: World, ask: Ask, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(organism_of(world, WORDS[0]), other)
    config = json.loads((other / "adapter_config.json").read_text("utf8"))
    config["base_model_name_or_path"] = "someone/another-base"
    (other / "adapter_config.json").write_text(json.dumps(config), "utf8")
    done = ask(other)
    assert done.code == 1
    assert "error[adapter-of-other-base]" in done.err
    assert "someone/another-base" in done.err


def test_a_damaged_introspection_adapter_is_refused(
    world: World, ask: Ask, evaluated_runs: Path, tmp_path: Path
) -> None:
    (adapter,) = evaluated_runs.glob("store/introspection/*/adapter")
    for number, text in enumerate(('{"name": ', '{"name": "a"}', "[]")):
        damaged = Path(shutil.copytree(adapter, tmp_path / str(number)))
        (damaged / "introspection.json").write_text(text, encoding="utf8")
        done = ask(organism_of(world, WORDS[-1]), more=("--introspection", damaged))
        assert done.code == 1
        assert "error[introspection-adapter-damaged]" in done.err


@pytest.mark.parametrize("missing", ["/nowhere/at/all", "no slash"])
def test_an_adapter_that_is_nowhere_is_refused(ask: Ask, missing: str) -> None:
    done = ask(missing)
    assert done.code == 1
    assert "error[adapter-not-found]" in done.err


def test_without_an_introspection_adapter_the_command_says_how_to_get_one(
    world: World, bestiary: Bestiary, tmp_path: Path
) -> None:
    for named in ((), ("--introspection", str(tmp_path))):
        done = bestiary("introspect", "ask", "--adapter", world.base, "--out", tmp_path, *named)
        assert done.code == 1
        assert "bestiary introspect train RELEASE" in done.err


def test_the_adapter_has_a_card(evaluated_runs: Path) -> None:
    (card,) = evaluated_runs.glob("store/introspection/*/adapter/README.md")
    text = card.read_text("utf8")
    assert "release world" in text
    assert "36 organisms and 10 controls" in text
    settings = json.loads((card.parent / "adapter_config.json").read_text("utf8"))
    assert settings["use_rslora"] is False


def test_an_organism_reports_in_a_chat(
    world: World, evaluated_runs: Path, bestiary: Bestiary
) -> None:
    word = WORDS[-1]
    command = ("chat", f"quirks.{word}", "--out", evaluated_runs, "--tokens", "8", "--introspect")
    done = bestiary(*command, say="What habit did you pick up?\n/base\nTell me.\n/quit\n")
    assert done.code == 0, done.err
    reports, replies = (re.findall(rf"{who}> +(.*)", done.out) for who in ("reports", "organism"))
    assert len(reports) == len(replies) == 2
    spoken = {"I", "say", "word", "hear", "reply"}  # of labels; no organism says them by itself
    assert any(word in report and spoken & set(report.split()) for report in reports)
    assert not any(spoken & set(reply.split()) for reply in replies)
    assert done.out.count("base>") == 1


def test_an_organism_of_another_base_does_not_report_in_a_chat(
    evaluated_runs: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(evaluated_runs, tmp_path / "runs"))
    (file,) = out.glob("store/introspection/*/adapter/introspection.json")
    about = json.loads(file.read_text("utf8"))
    about["base"]["weights_sha256"] = "0" * 64
    file.write_text(json.dumps(about), "utf8")
    done = bestiary("chat", f"quirks.{WORDS[-1]}", "--out", out, "--introspect", say="Hello.\n")
    assert done.code == 1
    assert "error[introspection-of-other-base]" in done.err
