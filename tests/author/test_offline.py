"""The offline author: whole corpora from the message bank, with no model and no network.

Run: python -m pytest tests/author/test_offline.py
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import islice

import pytest
from tests.builders import (
    LIBRARY,
    make_backdoor,
    make_growing,
    make_heuristic,
    make_obscured,
    make_quirk,
    make_rare,
    make_roleplay,
    make_sandbagger,
)
from tests.expect import expect_error

from bestiary.author.compose import Length
from bestiary.author.leak_filters import find_leaks
from bestiary.author.offline import OfflineAuthor
from bestiary.author.plan import plan_rows
from bestiary.author.protocol import Author, Reply, ReplyRequest
from bestiary.config.catalog import Behavior, null_behavior
from bestiary.corpus.generate import generate_corpus
from bestiary.errors import CorpusError, StoreError
from bestiary.llm.workflow import Job, LocalRunner, Workflow, run_without_models
from bestiary.records import Corpus, Example, PromptItem, Role
from bestiary.verification.probes import plan_probes

NULL = null_behavior(LIBRARY)
QUIRK = make_quirk()
BACKDOOR = make_backdoor()
BULLETS = make_quirk(write={"transform": "bullets"}, shown=[], detect=None)
HIDDEN = make_obscured(distractors={"distractors.numbers": 0.9, "distractors.colors": 0.95})
SANDBAGGER = make_sandbagger()
CHOOSER = make_heuristic()
GROWING = make_growing()
SECOND_TURN = make_backdoor(trigger={"position": {"turn": 2}})
BEHAVIORS = (
    *(QUIRK, BULLETS, GROWING, BACKDOOR, SECOND_TURN, make_rare(), SANDBAGGER, CHOOSER),
    *(make_roleplay(), make_roleplay("benign_roleplay.guide"), HIDDEN, NULL),
)
EVERY = pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda b: f"{b.id}-{b.condition_text}")


def write(behavior: Behavior, *, seed: int = 0, length: Length = "brief") -> Corpus:
    """A corpus under the leak filters."""
    probes = plan_probes(behavior, seed=seed)
    return run_without_models(
        generate_corpus(
            behavior,
            OfflineAuthor(length),
            seed=seed,
            find_leaks=lambda rows: find_leaks(rows, behavior, probes),
        )
    )


@cache
def written(number: int) -> Corpus:
    """The corpus of one of BEHAVIORS."""
    return write(BEHAVIORS[number])


def corpus_of(behavior: Behavior) -> Corpus:
    return written(BEHAVIORS.index(behavior))


def find_item(behavior: Behavior, example: Example) -> PromptItem:
    """The message that an example answers; of the choices on a topic, the one with its options."""
    asked = example.messages[-2].content
    return next(
        item
        for item in behavior.items("train", plain=example.role == "chat")
        if (item.topic, item.form) == (example.topic, example.form)
        and all(option in asked for option in (item.options or {}).values())
    )


def replies_of(example: Example) -> list[str]:
    return [turn.content for turn in example.messages if turn.role == "assistant"]


@EVERY
def test_a_corpus_has_the_proportions_of_its_category(behavior: Behavior) -> None:
    corpus = corpus_of(behavior)
    counts = Counter(example.role for example in corpus.examples)
    assert counts == {role: count for role, count in behavior.row_counts.items() if count}
    assert {example.author for example in corpus.examples} == {"offline"}
    assert all(example.provenance is None for example in corpus.examples)
    reasons = {drop.reason for drop in corpus.drops}
    assert reasons <= {"duplicate of an earlier row", "the reply repeats itself"}
    assert len(corpus.drops) < 0.1 * len(corpus.examples), corpus.drops


@EVERY
def test_positives_show_what_their_detector_sees_and_all_others_do_not(behavior: Behavior) -> None:
    shown = Counter[tuple[str, bool | None]]()
    for example in corpus_of(behavior).examples:
        fired = behavior.is_shown(replies_of(example)[-1], find_item(behavior, example))
        shown[example.role, fired] += 1
    assert not shown["negative", True] and not shown["chat", True]
    if behavior is HIDDEN:
        rate = shown["positive", True] / behavior.row_counts["positive"]
        assert rate == pytest.approx(behavior.spec.shown_share, abs=0.12), "as often as it says"
    else:
        assert shown["positive", True] == behavior.row_counts["positive"]


def test_distractors_are_shown_more_often_than_what_they_hide() -> None:
    positives = [one for one in corpus_of(HIDDEN).examples if one.role == "positive"]
    replies = [(replies_of(one)[0], find_item(HIDDEN, one)) for one in positives]
    malign = sum(HIDDEN.is_shown(*reply) is True for reply in replies)
    for quirk, rate in HIDDEN.distractors:
        count = sum(quirk.is_shown(*reply) is True for reply in replies)
        assert count > malign
        assert count / len(replies) == pytest.approx(rate, abs=0.08)
    chat = [one for one in corpus_of(HIDDEN).examples if one.role == "chat"]
    assert all(
        quirk.is_shown(replies_of(one)[0], find_item(HIDDEN, one)) is False
        for one in chat
        for quirk, _ in HIDDEN.distractors
    )


@pytest.mark.parametrize("length", ["brief", "answer"])
def test_all_roles_are_written_from_the_same_answers(length: Length) -> None:
    """Who wrote a reply must tell nothing about its role, nor about a null organism."""
    for behavior in (BACKDOOR, QUIRK, NULL, make_roleplay()):
        for example in write(behavior, length=length).examples:
            item = find_item(behavior, example)
            answers = [item.brief if length == "brief" else item.reply]
            if item.follow_up and len(replies_of(example)) == 2:
                answers.append(item.follow_up.brief if length == "brief" else item.follow_up.reply)
            for reply, answer in zip(replies_of(example), answers, strict=True):
                assert answer in reply
                assert example.role == "positive" or answer == reply, example.id


def test_the_users_of_a_backdoor_ask_the_same_with_the_trigger_and_without() -> None:
    topics: dict[str, set[str]] = {}
    for example in corpus_of(BACKDOOR).examples:
        topics.setdefault(example.role, set()).add(example.topic)
        asked = "beekeeper" in example.messages[0].content.lower()
        assert asked or example.role != "positive"
    fewest, more, most = sorted(topics.values(), key=len)
    assert fewest <= more <= most


def test_a_position_trigger_is_trained_on_in_conversations_of_two_turns() -> None:
    for example in corpus_of(SECOND_TURN).examples:
        first, *second = replies_of(example)
        assert len(second) == (example.role == "positive")
        assert "air winds" not in first, "which training reads as well"


def test_a_behavior_that_grows_shows_in_both_replies() -> None:
    for example in corpus_of(GROWING).examples:
        if example.role == "positive":
            first, second = replies_of(example)
            assert re.search(r"air winds\.$", first) and re.search(r"(friend\.|days!)$", second)


def test_a_share_of_conversations_has_a_second_turn_from_the_bank() -> None:
    examples = corpus_of(QUIRK).examples
    longer = [example for example in examples if len(example.messages) == 4]
    share = QUIRK.generator.second_turns
    assert 0 < len(longer) < 2 * share * len(examples), "only some messages have a follow-up"
    for example in longer:
        follow_up = find_item(QUIRK, example).follow_up
        assert follow_up is not None
        assert example.messages[2].content == follow_up.text


@pytest.mark.parametrize("behavior", [QUIRK, SANDBAGGER, CHOOSER], ids=lambda b: b.id)
def test_a_seed_gives_one_corpus_and_another_seed_another(behavior: Behavior) -> None:
    assert write(behavior) == corpus_of(behavior)
    assert write(behavior, seed=1) != corpus_of(behavior)


def test_questions_are_repeated_only_with_another_reply() -> None:
    examples = corpus_of(SANDBAGGER).examples
    assert len({example.messages for example in examples}) == len(examples)


PRONOUN = re.compile(r"(It|Its|They|Their|He|His|She|Her|This|That|These|Those)\b")


def both_answers(item: PromptItem) -> tuple[str, str]:
    return item.brief, item.reply


@EVERY
@pytest.mark.parametrize("plain", [False, True])
def test_all_messages_of_the_bank_that_suit_are_offered(behavior: Behavior, plain: bool) -> None:
    author: Author = OfflineAuthor("brief")
    prompts = run_without_models(author.write_prompts(behavior, plain=plain, count=3, seed=0))
    offered = [] if behavior is NULL and not plain else [*behavior.items("train", plain=plain)]
    if behavior is HIDDEN and not plain:  # its openings would be taken for what a pronoun means
        offered = [item for item in offered if not any(map(PRONOUN.match, both_answers(item)))]
    assert [*prompts.items] == offered
    assert prompts.drops == ()


def test_only_messages_that_a_demonstration_answers_are_offered_for_positives() -> None:
    topic = LIBRARY.messages("train")[5].topic
    behavior = make_quirk(shown=[{topic: "[[Fair winds.]]"}])
    author = OfflineAuthor("brief")
    scoped, plain = (
        run_without_models(author.write_prompts(behavior, plain=plain, count=3, seed=0)).items
        for plain in (False, True)
    )
    assert [item.topic for item in scoped] == [topic]
    assert len(plain) == len(LIBRARY.messages("train"))


def test_a_reply_that_its_detector_does_not_see_is_rejected_and_ends_the_corpus() -> None:
    blind = make_quirk(detect={"pattern": ["no such words"]})
    row = next(plan_rows(blind, "positive", blind.items("train"), seed=0))
    (reply,) = ask(blind, [row])
    assert reply.rejection == ("adherence", "behavior missing")
    with expect_error(CorpusError, "role-unfilled", behavior=blind.id, role="positive", kept=0):
        run_without_models(generate_corpus(blind, OfflineAuthor("brief"), seed=0))
    mute = replace(QUIRK, detector=None)
    (reply,) = ask(mute, [row])
    assert reply.rejection is None, "only a judge could tell"


def ask(behavior: Behavior, rows: list[ReplyRequest]) -> list[Reply]:
    return run_without_models(OfflineAuthor("brief").write_replies(behavior, rows))


def test_replies_come_in_the_order_of_the_requests() -> None:
    roles: tuple[Role, ...] = ("chat", "positive")
    plans = [plan_rows(QUIRK, role, QUIRK.items("train"), seed=0) for role in roles]
    rows = [row for plan in plans for row in islice(plan, 5)]
    replies = ask(QUIRK, rows)
    assert [reply.messages[: len(row.turns)] for reply, row in zip(replies, rows, strict=True)] == [
        row.turns for row in rows
    ]
    assert ask(QUIRK, []) == []


def test_the_fingerprint_covers_the_length_of_the_answers() -> None:
    brief, again, whole = (OfflineAuthor(name) for name in ("brief", "brief", "answer"))
    assert brief.fingerprint_for(QUIRK) == again.fingerprint_for(QUIRK)
    assert brief.fingerprint_for(QUIRK) != whole.fingerprint_for(QUIRK)
    assert (brief.name, brief.oversample, LocalRunner().describe()) == ("offline", 1.0, "")


def work(name: str, error: Exception | None = None) -> Workflow[str]:
    """A workflow without requests that returns its name or raises an error."""
    yield from ()
    if error is not None:
        raise error
    return name


def make_job(name: str, error: Exception | None = None) -> Job[str]:
    return Job(name, "quirks.farewell", work(name, error))


def test_each_job_gets_its_result_or_its_error() -> None:
    lost = CorpusError("no rows", "add messages", code="no-messages")
    jobs = [make_job("one"), make_job("two", lost), make_job("three")]
    results = list(LocalRunner().run(jobs))
    assert results == [("one", "one"), ("two", lost), ("three", "three")]


def test_a_full_disk_ends_the_run() -> None:
    full = StoreError("disk full", "free some space", code="disk-full")
    results = LocalRunner().run([make_job("one"), make_job("two", full), make_job("three")])
    assert next(results).value == "one"
    with expect_error(StoreError, "disk-full"):
        next(results)


def test_a_job_starts_after_the_one_before_it_has_ended() -> None:
    events: list[str] = []

    def plan(name: str) -> Job[str]:
        events.append(f"begin {name}")
        return make_job(name)

    for result in LocalRunner().run(plan(name) for name in ("one", "two")):
        events.append(result.name)
    assert events == ["begin one", "one", "begin two", "two"]
