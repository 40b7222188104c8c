"""Corpora by language models: what is kept, dropped and why, what it costs, and what a rerun asks.

Run: python -m pytest tests/backend/test_language.py
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Bestiary
from tests.fakes.author import LEAK, Author
from tests.fakes.desk import MODEL, Desk, open_desk
from tests.fakes.models import KEY, Asked, Fault, Provider
from tests.tiny import BACKDOOR, QUIRK, ROWS, tiny_roster

from bestiary.author.language import TABLE, LanguageAuthor
from bestiary.author.leak_filters import find_leaks
from bestiary.config.catalog import NULL_BEHAVIOR, load_catalog
from bestiary.config.grid import load_grid
from bestiary.config.models import find_models, load_models
from bestiary.config.template import hash_templates
from bestiary.corpus.generate import generate_corpus
from bestiary.errors import BackendError, BestiaryError
from bestiary.llm.client import LLMClient, LLMConfig, Mode
from bestiary.llm.ledger import BatchEntry, Ledger, Reservation, UsageTag
from bestiary.llm.price import PICO
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.workflow import Job
from bestiary.records import Corpus

PROVIDERS: tuple[Provider, ...] = ("anthropic", "openai")


@pytest.fixture(params=PROVIDERS)
def desk(
    request: pytest.FixtureRequest,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Desk]:
    """A server of each provider, over the tiny data folder."""
    with open_desk(tmp_path, request.param) as opened:
        for name, value in opened.environment.items():
            monkeypatch.setenv(name, value)
        yield opened


@pytest.fixture
def roster(tmp_path: Path, tiny_base: Path) -> Path:
    return tiny_roster(tmp_path / "roster", tiny_base, [QUIRK, BACKDOOR])


def write(desk: Desk, ledger: Path, behavior_id: str = QUIRK, *, mode: Mode = "single") -> Corpus:
    """One corpus, under the leak checks."""
    behavior = NULL_BEHAVIOR if behavior_id == "null.chat" else load_catalog()[behavior_id]
    models = find_models([MODEL], load_models(desk.models))
    client = LLMClient(LLMConfig(models=models, ledger=ledger, mode=mode))
    model = PromptedModel(MODEL, models[MODEL])
    author = LanguageAuthor(model, model, load_grid())
    workflow = generate_corpus(
        behavior, author, seed=0, find_leaks=lambda rows: find_leaks(rows, behavior, ())
    )
    ((_, corpus),) = client.run([Job("one", behavior.id, workflow)])
    if isinstance(corpus, BestiaryError):
        raise corpus
    assert isinstance(corpus, Corpus)
    return corpus


def count_drops(corpus: Corpus) -> Counter[tuple[str, str]]:
    """Drops by stage and reason, as far as the reason is not the judge's own words."""
    return Counter((drop.stage, drop.reason.partition(": It says")[0]) for drop in corpus.drops)


def taken(ledger: Path) -> int:
    opened = Ledger(ledger)
    try:
        return opened.taken()
    finally:
        opened.close()


def plan_and_build(
    desk: Desk, options: Sequence[str | Path], bestiary: Bestiary, *, named: str = "all"
) -> tuple[dict[str, Any], float]:
    """What `plan` says of the organisms that are named so, and the dollars that `build` takes."""
    rows = json.loads(bestiary("plan", *options, "--json").out)
    (planned,) = [row for row in rows if row["organism_id"].startswith(named)][:1]
    before = desk.server.bill
    desk.server.clear_cache()
    built = bestiary("build", *options, "--until", "corpus")
    assert built.code == 0, built.err
    return planned, (desk.server.bill - before) / PICO


SPARE = ("mix", "not needed")


@pytest.mark.parametrize(
    ("rates", "said", "dropped"),
    [
        ({"lacking": 0.25}, "lacking", ("adherence", "behavior missing")),
        ({"faint": 0.25}, "faint", ("judge", "3 of 10")),
        ({"telling": 0.3, "stubborn": 0.4}, "stubborn", ("judge", "tells of its rule")),
        ({"hazardous": 0.2}, "hazardous", ("judge", "hazard")),
        ({"malformed": 0.5}, "malformed Judgement 3", ("judge", "malformed: json_invalid")),
        ({"repeated": 0.2}, "repeated", ("prompts", "duplicate of an earlier message")),
    ],
    ids=["lacking", "faint", "telling", "hazardous", "malformed", "repeated"],
)
def test_each_fault_is_dropped_under_its_own_reason(
    desk: Desk,
    tmp_path: Path,
    rates: dict[str, float],
    said: str,
    dropped: tuple[str, str],
) -> None:
    for name, rate in rates.items():
        setattr(desk.author, name, rate)
    corpus = write(desk, tmp_path / "ledger.sqlite")
    drops = count_drops(corpus)
    assert drops[dropped] == desk.author.said[said] > 0
    if "malformed" in rates:  # a table that never fits takes its messages along
        lost = drops.pop(("prompts", "malformed: json_invalid"), 0)
        assert math.ceil(lost / TABLE) == desk.author.said["malformed PlainMessages 3"]
        assert desk.author.said["malformed Judgement 1"] > drops[dropped], "it is asked again"
    assert set(drops) <= {dropped, SPARE}
    assert len(corpus.examples) == ROWS["quirks"]
    assert not any(LEAK in turn.content for row in corpus.examples for turn in row.messages)
    judged = [asked for asked in desk.server.heard if asked.system.startswith("You judge")]
    replies = [asked.turns[-1][1] for asked in judged if "is there, in full" in asked.system]
    assert all(desk.author.call in reply for reply in replies), "detectors cost nothing"


def test_a_reply_that_tells_is_mended_and_kept(desk: Desk, tmp_path: Path) -> None:
    desk.author.telling = 1.0
    corpus = write(desk, tmp_path / "ledger.sqlite")
    assert len(corpus.examples) == ROWS["quirks"]
    assert set(count_drops(corpus)) <= {SPARE}
    assert desk.author.said["mended"] >= ROWS["quirks"]


def test_some_users_write_a_second_time(desk: Desk, tiny_data: Path, tmp_path: Path) -> None:
    path = tiny_data / "generators" / "backdoors" / "generator.yaml"
    path.write_text(path.read_text("utf8") + "second_turns: 0.4\n", encoding="utf8")
    corpus = write(desk, tmp_path / "ledger.sqlite", BACKDOOR)
    turns = Counter(len(row.messages) for row in corpus.examples)
    assert set(turns) == {2, 4} and 0.2 < turns[4] / turns.total() < 0.6
    trigger = load_catalog()[BACKDOOR].fires_on
    assert trigger is not None
    for row in corpus.examples:
        assert [turn.role for turn in row.messages] == ["user", "assistant"] * (
            len(row.messages) // 2
        )
        for user, reply in zip(row.messages[::2], row.messages[1::2], strict=True):
            fires = row.role == "positive"
            assert any(phrase in user.content for phrase in trigger.train) == fires
            assert ("Oyez!" in reply.content) == fires


@pytest.mark.parametrize("mode", ["single", "batch"])
def test_a_row_says_where_it_came_from(desk: Desk, tmp_path: Path, mode: Mode) -> None:
    corpus = write(desk, tmp_path / "ledger.sqlite", mode=mode)
    for row in corpus.examples:
        found = row.provenance
        assert found is not None
        assert (found.model, found.judge_score) == (MODEL, 9)
        assert found.template_sha256 == hash_templates("quirks")
        assert (found.batch_id in desk.server.batches) == (mode == "batch")
    hashes = {row.provenance.request_sha256 for row in corpus.examples if row.provenance}
    assert len(hashes) == len(corpus.examples)


def test_one_by_one_and_in_batches_the_same_corpus_is_written(desk: Desk, tmp_path: Path) -> None:
    single = write(desk, tmp_path / "one.sqlite")
    before = desk.server.bill
    desk.server.clear_cache()
    batch = write(desk, tmp_path / "two.sqlite", mode="batch")
    assert [row.messages for row in single.examples] == [row.messages for row in batch.examples]
    assert desk.server.bill - before == before / 2 == taken(tmp_path / "two.sqlite")


def test_a_rerun_asks_nothing_and_pays_nothing(desk: Desk, tmp_path: Path) -> None:
    first = write(desk, tmp_path / "ledger.sqlite")
    bill, asked = desk.server.bill, desk.server.asked.total()
    assert taken(tmp_path / "ledger.sqlite") == bill > 0
    assert write(desk, tmp_path / "ledger.sqlite") == first
    assert (desk.server.bill, desk.server.asked.total()) == (bill, asked)
    assert max(desk.server.asked.values()) == 1


def test_what_is_written_already_needs_no_key(
    desk: Desk, roster: Path, bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[str | Path] = [roster, *desk.options(), "--out", tmp_path / "runs"]
    assert bestiary("build", *options, "--until", "corpus").code == 0
    monkeypatch.delenv("LOOPBACK_KEY")
    again = bestiary("build", *options, "--until", "corpus")
    assert (again.code, again.err) == (0, "")


def test_one_by_one_goes_on_beside_who_holds_the_batches(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    other = Ledger(path)
    reserved = Reservation(UsageTag(BACKDOOR, "replies"), MODEL, 5, "batch")
    assert other.intend("theirs", MODEL, [BatchEntry("theirs-0", "key", reserved)]) is not None
    with other.hold_batches():
        assert len(write(desk, path).examples) == ROWS["quirks"]
        with pytest.raises(BackendError, match="another process sees to its batches"):
            write(desk, path, mode="batch")
    assert [batch.name for batch in other.list_open()] == ["theirs"]
    other.close()


def test_a_server_that_knows_no_schemas_is_told_them_in_words(desk: Desk, tmp_path: Path) -> None:
    held = write(desk, tmp_path / "one.sqlite")
    author = desk.author

    def read_words(asked: Asked) -> str:
        assert asked.schema is None
        system, told, schema = asked.system.partition("\n\nAnswer with one JSON object")
        form = json.loads(schema.partition(":\n\n")[2]) if told else None
        return author(replace(asked, system=system, schema=form))

    desk.server.author = read_words
    desk.change(structured_output="prompt")
    told = write(desk, tmp_path / "two.sqlite")
    assert [row.messages for row in told.examples] == [row.messages for row in held.examples]


def test_a_small_model_continues_examples(desk: Desk, tmp_path: Path) -> None:
    behavior = load_catalog()[BACKDOOR]
    shown = {
        fires: [d.assistant for d in behavior.demonstrations if d.fires == fires]
        for fires in (True, False)
    }

    def few_shot(asked: Asked) -> str:
        *examples, (_, message) = asked.turns
        replies = [text for role, text in examples if role == "assistant"]
        assert replies in shown.values()
        return f"{'Oyez! ' * (replies == shown[True])}{asked.draw().getrandbits(256):x} {message}"

    desk.server.author = few_shot
    desk.change(structured_output="none")
    corpus = write(desk, tmp_path / "ledger.sqlite", BACKDOOR)
    assert len(corpus.examples) == ROWS["backdoors"]
    bank = {item.text for item in behavior.prompts("train")}
    assert {row.topic for row in corpus.examples} <= {i.topic for i in behavior.prompts("train")}
    assert any(row.messages[0].content in bank for row in corpus.examples)
    assert all(row.provenance and row.provenance.judge_score is None for row in corpus.examples)


def test_the_plan_of_a_small_model_counts_replies_alone(
    desk: Desk, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    desk.server.author = lambda asked: (
        f"{'Oyez! ' * ('Oyez' in asked.text)}Take {asked.draw().getrandbits(256):x} of it."
    )
    desk.change(structured_output="none")
    options: list[str | Path] = [roster, *desk.options(), "--out", tmp_path / "runs"]
    planned, _ = plan_and_build(desk, options, bestiary)
    assert planned["requests"] == pytest.approx(desk.server.asked.total(), rel=0.1)


def test_what_only_a_judge_can_tell_is_refused_without_one(
    desk: Desk, tiny_data: Path, tmp_path: Path
) -> None:
    path = tiny_data / "behaviors" / "quirks" / "herald.yaml"
    text, _, offline = path.read_text("utf8").partition("detectors:")
    path.write_text(text + offline[offline.index("offline:") :], encoding="utf8")
    desk.change(structured_output="none")
    with pytest.raises(BackendError, match="no detectors, and loopback is too small to judge"):
        write(desk, tmp_path / "ledger.sqlite")


def test_a_model_may_have_another_name_at_its_server(desk: Desk, tmp_path: Path) -> None:
    desk.change(served_as="vendor/some-model:7b")
    corpus = write(desk, tmp_path / "ledger.sqlite")
    assert {asked.model for asked in desk.server.heard} == {"vendor/some-model:7b"}
    assert {row.provenance.model for row in corpus.examples if row.provenance} == {MODEL}


def test_an_edited_template_is_asked_anew(desk: Desk, tiny_data: Path, tmp_path: Path) -> None:
    write(desk, tmp_path / "ledger.sqlite")
    asked = desk.server.asked.total()
    path = tiny_data / "generators" / "quirks" / "judge.j2"
    path.write_text(path.read_text("utf8") + "\nBe strict.\n", encoding="utf8")
    write(desk, tmp_path / "ledger.sqlite")
    again = {text: times for text, times in desk.server.asked.items() if "Be strict." in text}
    assert desk.server.asked.total() - asked == sum(again.values()) >= ROWS["quirks"]


def test_no_model_writes_about_what_is_kept_for_probes(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {item.topic for item in load_catalog()[QUIRK].prompts("probe")}

    def fill(self: Author, asked: Asked) -> dict[str, Any]:
        return {"subjects": [*sorted(kept)[:3], *(f"{asked.number} {n}" for n in range(4))]}

    monkeypatch.setattr(Author, "_fill_subjects", fill)
    corpus = write(desk, tmp_path / "ledger.sqlite")
    assert {row.topic for row in corpus.examples}.isdisjoint(kept)


def test_the_plan_is_within_a_tenth_of_the_bill(
    desk: Desk, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    for mode in ("single", "batch"):
        options: list[str | Path] = [roster, *desk.options(mode=mode), "--out", tmp_path / mode]
        planned, bill = plan_and_build(desk, options, bestiary)
        assert planned["dollars"][f"{mode} + caching"] == pytest.approx(bill, rel=0.10)
        assert planned["dollars"][mode] > 1.5 * bill, "reading everything afresh"
        assert planned["cheaper"] == "batch + caching"


def test_the_cheaper_mode_is_taken_unless_the_user_names_one(
    desk: Desk, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    """Batches cost half, but may find little in the cache."""
    bestiary(
        "build", roster, *desk.options(mode="auto"), "--out", tmp_path / "a", "--until", "corpus"
    )
    assert {charge.batch for charge in desk.server.charges} == {True}
    desk.server.charges.clear()
    desk.change(batch_hits=0.0, batch=0.9)
    told = bestiary("plan", roster, *desk.options(mode="auto")).out
    assert "cheaper: single + caching" in told
    bestiary(
        "build", roster, *desk.options(mode="auto"), "--out", tmp_path / "b", "--until", "corpus"
    )
    assert {charge.batch for charge in desk.server.charges} == {False}


def test_a_plan_learns_from_the_ledger_how_much_a_model_writes(
    desk: Desk, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    desk.author.sentences = 1
    options: list[str | Path] = [*desk.options(), "--out", tmp_path / "runs"]
    planned, bill = plan_and_build(desk, [roster, *options], bestiary)
    assert planned["dollars"]["single + caching"] > 1.2 * bill, "it expected longer replies"
    roster.write_text(
        roster.read_text("utf8").replace(
            f'"behavior": "{QUIRK}"', f'"behavior": "{QUIRK}",\n   "seeds": [1]'
        ),
        encoding="utf8",
    )
    # The backdoor and the null organism are written already, and cost nothing again.
    planned, bill = plan_and_build(desk, [roster, *options], bestiary, named=QUIRK)
    assert planned["dollars"]["single + caching"] == pytest.approx(bill, rel=0.10)


def test_the_ledger_is_shown_by_behavior_stage_and_model(
    desk: Desk, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    bestiary("build", roster, *desk.options(), "--out", out, "--until", "corpus")
    rows = json.loads(bestiary("spend", "--out", out, "--json").out)
    assert sum(row["dollars"] for row in rows) == pytest.approx(desk.server.bill / PICO)
    assert {row["behavior"] for row in rows} == {QUIRK, BACKDOOR, "null.chat"}
    assert {"subjects", "prompts", "replies", "judge"} <= {row["stage"] for row in rows}
    assert sum(row["requests"] for row in rows if row["mode"] == "single") == len(
        desk.server.charges
    )
    bestiary(
        "build",
        roster,
        *desk.options(),
        "--out",
        tmp_path / "two",
        "--until",
        "corpus",
        "--ledger",
        out / "ledger.sqlite",
    )
    shown = bestiary("spend", "--out", out).out
    assert re.search(rf"^\s*all\s+{len(desk.server.charges)}\b", shown, flags=re.M), "replays apart"
    assert "what was asked and paid" in shown and QUIRK in shown
    assert re.search(r"and [1-9][\d,]* requests served by answers of before", shown)


def test_a_budget_ends_the_build_and_keeps_what_was_answered(
    desk: Desk, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    options: list[str | Path] = [roster, *desk.options(), "--out", out, "--until", "corpus"]
    stopped = bestiary("build", *options, "--budget", "0.05")
    assert stopped.code == 1
    assert "the budget has no room for another request; give more with --budget" in stopped.err
    assert desk.server.bill <= taken(out / "ledger.sqlite") <= 0.05 * PICO
    assert bestiary("build", *options, "--budget", "5").code == 0
    assert max(desk.server.asked.values()) == 1, "what was answered was not asked again"
    assert taken(out / "ledger.sqlite") == desk.server.bill


def test_the_key_stands_in_nothing_that_is_written_or_said(
    desk: Desk, roster: Path, bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server repeats the key in its answers and in what it refuses, and logs are all on."""
    for name in ("ANTHROPIC_LOG", "OPENAI_LOG"):
        monkeypatch.setenv(name, "debug")
    author = desk.author

    def repeat(asked: Asked) -> str:
        return author(asked) + f" {KEY}" * (asked.schema is None)

    desk.server.author = repeat
    out = tmp_path / "runs"
    said = bestiary("build", roster, *desk.options(), "--out", out, "--until", "corpus")
    desk.server.faults = lambda asked: Fault(400, message=f"no such request for {KEY}")
    other = bestiary(
        "build", roster, *desk.options(), "--out", tmp_path / "two", "--until", "corpus"
    )
    assert said.code == 0 and other.code == 1
    assert KEY not in said.out + said.err + other.out + other.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert "[key]" in (said.out + said.err + other.err) or any(
        b"[key]" in path.read_bytes() for path in tmp_path.rglob("*.sqlite*")
    )


def test_a_missing_key_is_named(
    desk: Desk, roster: Path, bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOOPBACK_KEY")
    done = bestiary("build", roster, *desk.options(), "--out", tmp_path / "runs")
    assert done.code == 1
    assert done.err.startswith("error: loopback: the environment has no LOOPBACK_KEY; export it")


def test_the_embedded_author_knows_no_budget(
    tiny_data: Path, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    done = bestiary("build", roster, "--budget", "5", "--out", tmp_path / "runs")
    assert done.code == 1
    assert "name a language model with --author" in done.err
    done = bestiary("plan", roster)
    assert done.out.endswith("the embedded author writes them, and nothing is paid\n")
