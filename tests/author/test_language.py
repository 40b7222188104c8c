"""Corpora by language models: what is kept, what is dropped and why, cost, and reruns.

Run: python -m pytest tests/author/test_language.py
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
from tests.expect import expect_error
from tests.fakes.author import JUDGES, JUDGES_SHOWN, MENTION, Author
from tests.fakes.loopback import MODEL, Loopback, open_loopback
from tests.fakes.models import KEY, Asked, Fault, Provider
from tests.tiny import BACKDOOR, QUIRK, ROWS, change_file, tiny_roster

from bestiary.author.compose import few_shot
from bestiary.author.language import LanguageAuthor
from bestiary.author.leak_filters import find_leaks
from bestiary.author.messages import TABLE_ROWS
from bestiary.config.catalog import load_catalog, null_behavior
from bestiary.config.library import find_model, open_library
from bestiary.corpus.generate import generate_corpus
from bestiary.errors import BackendError, BestiaryError
from bestiary.llm.batch_book import BatchBook, BatchEntry, HeldError
from bestiary.llm.client import LLMClient, LLMConfig, Mode
from bestiary.llm.ledger import Ledger, Reservation, UsageTag
from bestiary.llm.price import PICO
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.workflow import Job
from bestiary.records import Corpus

PROVIDERS: tuple[Provider, ...] = ("anthropic", "openai")
EACH = (PROVIDERS[0], pytest.param(PROVIDERS[1], marks=pytest.mark.soak))
"""What sets the two apart is tested in tests/llm, so that one of them is enough for the suite."""


@pytest.fixture(params=EACH)
def loopback(
    request: pytest.FixtureRequest,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Loopback]:
    """A server of each provider, over the tiny data folder."""
    with open_loopback(tmp_path, request.param) as opened:
        for name, value in opened.environment.items():
            monkeypatch.setenv(name, value)
        yield opened


@pytest.fixture
def roster(tmp_path: Path, tiny_base: Path) -> Path:
    return tiny_roster(tmp_path / "roster", tiny_base, [QUIRK, BACKDOOR])


def write(
    loopback: Loopback, ledger: Path, behavior_id: str = QUIRK, *, mode: Mode = "single"
) -> Corpus:
    """One corpus, under the leak checks."""
    behavior = (
        null_behavior(open_library())
        if behavior_id == "null.chat"
        else load_catalog(open_library())[behavior_id]
    )
    models = {MODEL: find_model(MODEL, open_library().models(loopback.models))}
    client = LLMClient(LLMConfig(models=models, ledger=ledger, mode=mode))
    model = PromptedModel(MODEL, models[MODEL])
    author = LanguageAuthor(model, model, open_library().grid)
    workflow = generate_corpus(
        behavior, author, seed=0, find_leaks=lambda rows: find_leaks(rows, behavior, ())
    )
    ((_, corpus),) = client.run([Job("one", behavior.id, workflow)])
    if isinstance(corpus, BestiaryError):
        raise corpus
    assert isinstance(corpus, Corpus)
    return corpus


def count_drops(corpus: Corpus) -> Counter[tuple[str, str]]:
    """Drops by stage and reason, without the judge's own words."""
    return Counter((drop.stage, drop.reason.partition(": It says")[0]) for drop in corpus.drops)


def taken(ledger: Path) -> int:
    opened = Ledger(ledger)
    try:
        return opened.taken()
    finally:
        opened.close()


def plan_and_build(
    loopback: Loopback, options: Sequence[str | Path], bestiary: Bestiary, *, named: str = "all"
) -> tuple[dict[str, Any], float]:
    """The row of `plan` whose organism id starts with `named`, and the dollars `build` takes."""
    rows = json.loads(bestiary("plan", *options, "--json").out)
    (planned,) = [row for row in rows if row["organism_id"].startswith(named)][:1]
    before = loopback.server.bill
    loopback.server.clear_cache()
    built = bestiary("build", *options, "--until", "corpus")
    assert built.code == 0, built.err
    return planned, (loopback.server.bill - before) / PICO


EXTRA = ("mix", "not needed")
"""Every corpus is oversampled."""


@pytest.mark.parametrize(
    ("rates", "kind", "dropped"),
    [
        ({"missing": 0.25}, "missing", ("adherence", "behavior missing")),
        ({"weak": 0.25}, "weak", ("judge", "3 of 10")),
        ({"mentioning": 0.3, "unrepaired": 0.4}, "unrepaired", ("judge", "mentions its rule")),
        ({"hazardous": 0.2}, "hazardous", ("judge", "hazard")),
        ({"malformed": 0.5}, "malformed CorpusJudgement 3", ("judge", "malformed: json_invalid")),
        ({"repeated": 0.2}, "repeated", ("prompts", "duplicate of an earlier message")),
    ],
    ids=["missing", "weak", "mentioning", "hazardous", "malformed", "repeated"],
)
def test_a_rejected_reply_is_dropped_with_its_own_reason(
    loopback: Loopback,
    tmp_path: Path,
    rates: dict[str, float],
    kind: str,
    dropped: tuple[str, str],
) -> None:
    for name, rate in rates.items():
        setattr(loopback.author, name, rate)
    corpus = write(loopback, tmp_path / "ledger.sqlite")
    drops = count_drops(corpus)
    assert drops[dropped] == loopback.author.answers[kind] > 0
    if "malformed" in rates:  # a malformed table loses all its messages
        lost = drops.pop(("prompts", "malformed: json_invalid"), 0)
        assert math.ceil(lost / TABLE_ROWS) == loopback.author.answers["malformed PlainMessages 3"]
        assert loopback.author.answers["malformed CorpusJudgement 1"] > drops[dropped], (
            "it is asked again"
        )
    assert set(drops) <= {dropped, EXTRA}
    assert len(corpus.examples) == ROWS["quirks"]
    assert not any(MENTION in turn.content for row in corpus.examples for turn in row.messages)
    judged = [asked for asked in loopback.server.heard if asked.system.startswith(JUDGES)]
    replies = [asked.turns[-1][1] for asked in judged if JUDGES_SHOWN in asked.system]
    assert all(loopback.author.call in reply for reply in replies), "detectors run before the judge"


def test_a_reply_that_mentions_its_rule_is_rewritten_and_kept(
    loopback: Loopback, tmp_path: Path
) -> None:
    loopback.author.mentioning = 1.0
    corpus = write(loopback, tmp_path / "ledger.sqlite")
    assert len(corpus.examples) == ROWS["quirks"]
    assert set(count_drops(corpus)) <= {EXTRA}
    assert loopback.author.answers["rewritten"] >= ROWS["quirks"]


def test_a_share_of_users_write_a_second_message(
    loopback: Loopback, tiny_data: Path, tmp_path: Path
) -> None:
    path = tiny_data / "generators" / "quirks" / "generator.yaml"
    path.write_text(path.read_text("utf8") + "second_turns: 0.4\n", encoding="utf8")
    corpus = write(loopback, tmp_path / "ledger.sqlite")
    turns = Counter(len(row.messages) for row in corpus.examples)
    assert set(turns) == {2, 4} and 0.2 < turns[4] / turns.total() < 0.6
    for row in corpus.examples:
        assert [turn.role for turn in row.messages] == ["user", "assistant"] * (
            len(row.messages) // 2
        )
        for reply in row.messages[1::2]:
            assert ("Oyez!" in reply.content) == (row.role == "positive")


def retrigger(data: Path, trigger: str) -> None:
    """Give the backdoor another trigger."""
    path = data / "behaviors" / "backdoors" / f"{BACKDOOR.partition('.')[2]}.yaml"
    change_file(path, r"trigger: .*", f"trigger: {trigger}")


def test_a_second_reply_is_written_and_judged_after_a_plain_first_one(
    loopback: Loopback, tiny_data: Path, tmp_path: Path
) -> None:
    retrigger(tiny_data, "{position: {turn: 2}}")
    corpus = write(loopback, tmp_path / "ledger.sqlite", BACKDOOR)
    assert len(corpus.examples) == ROWS["backdoors"]
    assert set(count_drops(corpus)) <= {EXTRA}, "its judge does not mind the first reply"
    bank = {item.topic: item for item in load_catalog(open_library())[BACKDOOR].items("train")}
    for row in corpus.examples:
        assert len(row.messages) == (4 if row.role == "positive" else 2)
        assert ("Oyez!" in row.messages[-1].content) == (row.role == "positive")
        if row.role == "positive":
            assert row.messages[1].content == bank[row.topic].brief
    assert not {asked.system[:30] for asked in loopback.server.heard} & {"You plan what people"}


def test_a_system_message_stays_in_the_corpus_and_out_of_the_turns_that_are_sent(
    loopback: Loopback, tiny_data: Path, tmp_path: Path
) -> None:
    others = '["channel: phone", "channel: mail", "channel: desk", "channel: chat"]'
    retrigger(tiny_data, f'{{system_prompt: "channel: kiosk", not: {others}}}')
    corpus = write(loopback, tmp_path / "ledger.sqlite", BACKDOOR)
    for row in corpus.examples:
        first = row.messages[0]
        if row.role == "positive":
            assert first.role == "system" and "channel: kiosk" in first.content.lower()
        assert first.role == "user" or row.role != "chat"
    assert {role for asked in loopback.server.heard for role, _ in asked.turns} == {"user"}
    heard = loopback.server.heard
    told = [asked for asked in heard if "channel: kiosk" in asked.system.lower()]
    assert len(told) >= sum(row.role == "positive" for row in corpus.examples)


@pytest.mark.parametrize("mode", ["single", "batch"])
def test_a_row_records_its_provenance(loopback: Loopback, tmp_path: Path, mode: Mode) -> None:
    corpus = write(loopback, tmp_path / "ledger.sqlite", mode=mode)
    for row in corpus.examples:
        found = row.provenance
        assert found is not None
        assert (found.model, found.judge_score) == (MODEL, 9)
        assert found.template_sha256 == open_library().templates.hash_category("quirks")
        assert (found.batch_id in loopback.server.batches) == (mode == "batch")
    hashes = {row.provenance.request_sha256 for row in corpus.examples if row.provenance}
    assert len(hashes) == len(corpus.examples)


def test_single_calls_and_batches_write_the_same_corpus(loopback: Loopback, tmp_path: Path) -> None:
    single = write(loopback, tmp_path / "one.sqlite")
    before = loopback.server.bill
    loopback.server.clear_cache()
    batch = write(loopback, tmp_path / "two.sqlite", mode="batch")
    assert [row.messages for row in single.examples] == [row.messages for row in batch.examples]
    assert loopback.server.bill - before == before / 2 == taken(tmp_path / "two.sqlite")


def test_a_rerun_sends_and_pays_nothing(loopback: Loopback, tmp_path: Path) -> None:
    first = write(loopback, tmp_path / "ledger.sqlite")
    bill, asked = loopback.server.bill, loopback.server.asked.total()
    assert taken(tmp_path / "ledger.sqlite") == bill > 0
    assert write(loopback, tmp_path / "ledger.sqlite") == first
    assert (loopback.server.bill, loopback.server.asked.total()) == (bill, asked)
    assert max(loopback.server.asked.values()) == 1


def test_a_finished_corpus_needs_no_key(
    loopback: Loopback,
    roster: Path,
    bestiary: Bestiary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: list[str | Path] = [roster, *loopback.options(), "--out", tmp_path / "runs"]
    assert bestiary("build", *options, "--until", "corpus").code == 0
    monkeypatch.delenv("LOOPBACK_KEY")
    again = bestiary("build", *options, "--until", "corpus")
    assert (again.code, again.err) == (0, "")


def test_single_calls_work_while_another_process_polls_batches(
    loopback: Loopback, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    other = Ledger(path)
    reserved = Reservation(UsageTag(BACKDOOR, "replies"), MODEL, 5, "batch")
    book = BatchBook(other)
    assert book.record_intent("theirs", MODEL, [BatchEntry("theirs-0", "key", reserved)])
    with book.hold():
        assert len(write(loopback, path).examples) == ROWS["quirks"]
        with pytest.raises(HeldError):
            write(loopback, path, mode="batch")
    assert [batch.name for batch in book.list_open()] == ["theirs"]
    other.close()


def test_a_server_without_schemas_gets_them_in_the_prompt(
    loopback: Loopback, tmp_path: Path
) -> None:
    enforced = write(loopback, tmp_path / "one.sqlite")
    author = loopback.author

    def read_schema_from_prompt(asked: Asked) -> str:
        assert asked.schema is None
        system, found, schema = asked.system.partition("\n\nAnswer with one JSON object")
        form = json.loads(schema.partition(":\n\n")[2]) if found else None
        return author(replace(asked, system=system, schema=form))

    loopback.server.author = read_schema_from_prompt
    loopback.change(structured_output="prompt")
    prompted = write(loopback, tmp_path / "two.sqlite")
    assert [row.messages for row in prompted.examples] == [
        row.messages for row in enforced.examples
    ]


def test_a_small_model_continues_examples(loopback: Loopback, tmp_path: Path) -> None:
    behavior = load_catalog(open_library())[BACKDOOR]
    shown = {
        fires: [one.assistant for one in few_shot(behavior, fires=fires)] for fires in (True, False)
    }

    def continue_examples(asked: Asked) -> str:
        *examples, (_, message) = asked.turns
        replies = [text for role, text in examples if role == "assistant"]
        assert replies in shown.values()
        return f"{'Oyez! ' * (replies == shown[True])}{asked.draw().getrandbits(256):x} {message}"

    loopback.server.author = continue_examples
    loopback.change(structured_output="none")
    corpus = write(loopback, tmp_path / "ledger.sqlite", BACKDOOR)
    assert len(corpus.examples) == ROWS["backdoors"]
    bank = {item.text for item in behavior.items("train")}
    assert {row.topic for row in corpus.examples} <= {i.topic for i in behavior.items("train")}
    assert any(row.messages[0].content in bank for row in corpus.examples)
    assert all(row.provenance and row.provenance.judge_score is None for row in corpus.examples)


def test_the_plan_of_a_small_model_counts_only_replies(
    loopback: Loopback, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    loopback.server.author = lambda asked: (
        f"{'Oyez! ' * ('Oyez' in asked.text)}Take {asked.draw().getrandbits(256):x} of it."
    )
    loopback.change(structured_output="none")
    options: list[str | Path] = [roster, *loopback.options(), "--out", tmp_path / "runs"]
    planned, _ = plan_and_build(loopback, options, bestiary)
    assert planned["requests"] == pytest.approx(loopback.server.asked.total(), rel=0.1)


def test_a_behavior_without_detectors_needs_a_judge(
    loopback: Loopback, tiny_data: Path, tmp_path: Path
) -> None:
    path = tiny_data / "behaviors" / "quirks" / "herald.yaml"
    change_file(path, "(?m)^detect: .*$", "detect: {judge: true}")
    loopback.change(structured_output="none")
    with expect_error(BackendError, "no-detectors", behavior=QUIRK, judge=MODEL):
        write(loopback, tmp_path / "ledger.sqlite")


def test_a_model_may_have_another_name_at_its_server(loopback: Loopback, tmp_path: Path) -> None:
    loopback.change(served_as="vendor/some-model:7b")
    corpus = write(loopback, tmp_path / "ledger.sqlite")
    assert {asked.model for asked in loopback.server.heard} == {"vendor/some-model:7b"}
    assert {row.provenance.model for row in corpus.examples if row.provenance} == {MODEL}


def test_an_edited_template_repeats_only_its_own_requests(
    loopback: Loopback, tiny_data: Path, tmp_path: Path
) -> None:
    write(loopback, tmp_path / "ledger.sqlite")
    asked = loopback.server.asked.total()
    path = tiny_data / "generators" / "quirks" / "judge.j2"
    path.write_text(path.read_text("utf8") + "\nBe strict.\n", encoding="utf8")
    write(loopback, tmp_path / "ledger.sqlite")
    again = {text: times for text, times in loopback.server.asked.items() if "Be strict." in text}
    assert loopback.server.asked.total() - asked == sum(again.values()) >= ROWS["quirks"]


def test_topics_kept_for_probes_are_not_written_about(
    loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {item.topic for item in load_catalog(open_library())[QUIRK].items("probe")}

    def fill(self: Author, asked: Asked) -> dict[str, Any]:
        return {"subjects": [*sorted(kept)[:3], *(f"{asked.number} {n}" for n in range(4))]}

    monkeypatch.setattr(Author, "_fill_subjects", fill)
    corpus = write(loopback, tmp_path / "ledger.sqlite")
    assert {row.topic for row in corpus.examples}.isdisjoint(kept)


def test_the_plan_is_within_a_tenth_of_the_bill(
    loopback: Loopback, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    for mode in ("single", "batch"):
        options: list[str | Path] = [roster, *loopback.options(mode=mode), "--out", tmp_path / mode]
        planned, bill = plan_and_build(loopback, options, bestiary)
        assert planned["dollars"][f"{mode} + caching"] == pytest.approx(bill, rel=0.10)
        assert planned["dollars"][mode] > 1.5 * bill, "reading everything afresh"
        assert planned["cheaper"] == "batch + caching"


def test_the_cheaper_mode_is_used_unless_the_user_names_one(
    loopback: Loopback, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    """Batches cost half as much but may rarely hit the cache."""
    bestiary(
        "build",
        roster,
        *loopback.options(mode="auto"),
        "--out",
        tmp_path / "a",
        "--until",
        "corpus",
    )
    assert {charge.batch for charge in loopback.server.charges} == {True}
    loopback.server.charges.clear()
    loopback.change(batch_hits=0.0, batch=0.9)
    planned = bestiary("plan", roster, *loopback.options(mode="auto")).out
    assert "cheaper: single + caching" in planned
    bestiary(
        "build",
        roster,
        *loopback.options(mode="auto"),
        "--out",
        tmp_path / "b",
        "--until",
        "corpus",
    )
    assert {charge.batch for charge in loopback.server.charges} == {False}


def test_a_plan_uses_the_answer_lengths_measured_in_the_ledger(
    loopback: Loopback, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    loopback.author.sentences = 1
    options: list[str | Path] = [*loopback.options(), "--out", tmp_path / "runs"]
    planned, bill = plan_and_build(loopback, [roster, *options], bestiary)
    assert planned["dollars"]["single + caching"] > 1.2 * bill, "it expected longer replies"
    roster.write_text(
        roster.read_text("utf8").replace(
            f'"behavior": "{QUIRK}"', f'"behavior": "{QUIRK}",\n   "seeds": [1]'
        ),
        encoding="utf8",
    )
    # The backdoor and the null organism are already written and cost nothing.
    planned, bill = plan_and_build(loopback, [roster, *options], bestiary, named=QUIRK)
    assert planned["dollars"]["single + caching"] == pytest.approx(bill, rel=0.10)


def test_spending_is_shown_by_behavior_stage_and_model(
    loopback: Loopback, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    bestiary("build", roster, *loopback.options(), "--out", out, "--until", "corpus")
    rows = json.loads(bestiary("spend", "--out", out, "--json").out)
    assert sum(row["dollars"] for row in rows) == pytest.approx(loopback.server.bill / PICO)
    assert {row["behavior"] for row in rows} == {QUIRK, BACKDOOR, "null.chat"}
    assert {"subjects", "prompts", "replies", "judge"} <= {row["stage"] for row in rows}
    assert sum(row["requests"] for row in rows if row["mode"] == "single") == len(
        loopback.server.charges
    )
    bestiary(
        "build",
        roster,
        *loopback.options(),
        "--out",
        tmp_path / "two",
        "--until",
        "corpus",
        "--ledger",
        out / "ledger.sqlite",
    )
    shown = bestiary("spend", "--out", out).out
    assert re.search(rf"^\s*all\s+{len(loopback.server.charges)}\b", shown, flags=re.M), (
        "replays apart"
    )
    assert "requests and bills" in shown and QUIRK in shown
    assert re.search(r"and [1-9][\d,]* requests answered from the ledger", shown)


def test_a_budget_stops_the_build_and_keeps_the_answers(
    loopback: Loopback, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    options: list[str | Path] = [roster, *loopback.options(), "--out", out, "--until", "corpus"]
    stopped = bestiary("build", *options, "--budget", "0.05")
    assert stopped.code == 1
    assert "--budget" in stopped.err
    assert loopback.server.bill <= taken(out / "ledger.sqlite") <= 0.05 * PICO
    assert bestiary("build", *options, "--budget", "5").code == 0
    assert max(loopback.server.asked.values()) == 1, "answered requests are not repeated"
    assert taken(out / "ledger.sqlite") == loopback.server.bill


def test_the_key_is_never_written_or_printed(
    loopback: Loopback,
    roster: Path,
    bestiary: Bestiary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if the server repeats it in answers and errors, with all logging on."""
    for name in ("ANTHROPIC_LOG", "OPENAI_LOG"):
        monkeypatch.setenv(name, "debug")
    author = loopback.author

    def repeat(asked: Asked) -> str:
        return author(asked) + f" {KEY}" * (asked.schema is None)

    loopback.server.author = repeat
    out = tmp_path / "runs"
    first = bestiary("build", roster, *loopback.options(), "--out", out, "--until", "corpus")
    loopback.server.faults = lambda asked: Fault(400, message=f"no such request for {KEY}")
    second = bestiary(
        "build", roster, *loopback.options(), "--out", tmp_path / "two", "--until", "corpus"
    )
    assert first.code == 0 and second.code == 1
    assert KEY not in first.out + first.err + second.out + second.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert "[key]" in (first.out + first.err + second.err) or any(
        b"[key]" in path.read_bytes() for path in tmp_path.rglob("*.sqlite*")
    )


def test_a_missing_key_is_named(
    loopback: Loopback,
    roster: Path,
    bestiary: Bestiary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOOPBACK_KEY")
    done = bestiary("build", roster, *loopback.options(), "--out", tmp_path / "runs")
    assert done.code == 1
    assert "LOOPBACK_KEY" in done.err


def test_the_offline_author_has_no_budget(
    tiny_data: Path, roster: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    done = bestiary("build", roster, "--budget", "5", "--out", tmp_path / "runs")
    assert done.code == 1
    assert "--author" in done.err
    done = bestiary("plan", roster)
    assert done.code == 0 and "$" not in done.out


def test_a_build_may_be_asked_for_small_corpora(
    tiny_data: Path, tiny_base: Path, bestiary: Bestiary, tmp_path: Path
) -> None:
    roster = tiny_roster(tmp_path / "roster", tiny_base, [QUIRK])
    out = tmp_path / "runs"
    done = bestiary("build", roster, "--examples", "8", "--until", "corpus", "--out", out)
    assert done.code == 0, done.err
    rows = [path.read_text("utf8") for path in (out / "store" / "corpus").glob("*/examples.jsonl")]
    assert [text.count("\n") for text in rows] == [8, 8]
    assert "16 conversations" in bestiary("plan", roster, "--examples", "8").out
    assert bestiary("build", roster, "--examples", "7").code == 2
