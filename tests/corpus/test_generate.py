"""Writing a corpus: what stops a row, where the ledger says so, and that the mix ends up whole.

Run: python -m pytest tests/corpus/test_generate.py
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import make_behavior, make_example, make_quirk

from bestiary.author.filters import find_fault
from bestiary.author.leak_filters import find_leaks
from bestiary.author.protocol import Prompts, Reply, ReplyRequest
from bestiary.config.catalog import NULL_BEHAVIOR, Behavior, load_catalog
from bestiary.config.generator import load_generator
from bestiary.config.grid import load_grid
from bestiary.config.message_bank import load_bank
from bestiary.corpus.generate import (
    ATTEMPTS,
    HOPELESS,
    FindLeaks,
    generate_corpus,
)
from bestiary.corpus.plan import plan_rows
from bestiary.corpus.stage import read_corpus, write_corpus
from bestiary.errors import CorpusError
from bestiary.llm.workflow import RequestGroup, Workflow, run_without_models
from bestiary.records import Corpus, Drop, Example, Message, Provenance

SAILOR = make_behavior(make_quirk())
CATALOG = load_catalog()
SANDBAGGER = CATALOG["sandbaggers.opposites"]
BACKDOOR = next(b for b in CATALOG.values() if b.category == "backdoors")
NEEDED = load_generator("quirks").counts(None)
"""Rows of each role in a quirk's corpus."""
POSITIVES = NEEDED["positive"]
CIRCULAR = "Round and round we go, round and round we go, round and round we go. Fair winds!"
LEAKING = "Here comes my mariner's farewell. Fair winds!"


def talk(*said: str) -> tuple[Message, ...]:
    """A conversation that the user begins."""
    return tuple(
        Message(role="assistant" if number % 2 else "user", content=text)
        for number, text in enumerate(said)
    )


class ScriptedAuthor:
    """Writes an ordinary reply to each request, except where its script has another."""

    name = "scripted"
    fingerprint = "scripted-1"
    oversample = 1.0

    def __init__(self, script: Mapping[str, str], *, otherwise: str | None = None) -> None:
        self.script = script
        self.otherwise = otherwise
        self.asked: list[ReplyRequest] = []

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        yield from ()
        return Prompts(behavior.prompts("train", plain=plain))

    def write_replies(
        self,
        behavior: Behavior,
        requests: Sequence[ReplyRequest],
        *,
        on_reply: Callable[[int], None],
    ) -> Workflow[list[Reply]]:
        yield from ()
        self.asked += requests
        return [self._converse(request) for request in requests]

    def fingerprint_for(self, behavior: Behavior) -> str:
        return "scripted"

    def _converse(self, request: ReplyRequest) -> Reply:
        return Reply(messages=talk(request.user, self._write(request)))

    def _write(self, request: ReplyRequest) -> str:
        if request.id in self.script:
            return self.script[request.id]
        if self.otherwise is not None:
            return self.otherwise
        parts = (request.opening, f"as for row {request.id}, plainly.", request.closing)
        return " ".join(part for part in parts if part)


class LavishAuthor(ScriptedAuthor):
    """Is asked for more rows than are needed."""

    oversample = 1.25


class PaidAuthor(ScriptedAuthor):
    """Says how it came to write, and of some rows that it could not."""

    def __init__(self, refused: Mapping[str, tuple[str, str]]) -> None:
        super().__init__({})
        self.refused = refused

    def _converse(self, request: ReplyRequest) -> Reply:
        return Reply(
            messages=talk(request.user, self._write(request)),
            fault=self.refused.get(request.id),
            provenance=make_provenance(request),
        )


class FadingAuthor(ScriptedAuthor):
    """Writes few messages and drops others, or none at all."""

    def __init__(self, *, plain: int, scoped: int) -> None:
        super().__init__({})
        self.sizes = {True: plain, False: scoped}

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        yield from ()
        items = behavior.prompts("train", plain=plain)[: self.sizes[plain]]
        return Prompts(items, [make_prompt_drop("both"), make_prompt_drop(f"plain {plain}")])


class AskingAuthor(ScriptedAuthor):
    """Asks for each request before it writes, and lists what it was asked for at the same time."""

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        yield [RequestGroup(f"prompts, plain {plain}: {count}", [])]
        return Prompts(behavior.prompts("train", plain=plain))

    def write_replies(
        self,
        behavior: Behavior,
        requests: Sequence[ReplyRequest],
        *,
        on_reply: Callable[[int], None],
    ) -> Workflow[list[Reply]]:
        yield [RequestGroup(f"{requests[0].id} and on: {len(requests)}", [])]
        on_reply(len(requests))
        return [self._converse(request) for request in requests]


def make_provenance(request: ReplyRequest) -> Provenance:
    """As if a model had answered this request."""
    return Provenance(
        model="scripted",
        request_sha256=request.id,
        template_sha256="0" * 64,
        judge_score=9,
        batch_id=None,
    )


def make_prompt_drop(name: str) -> Drop:
    """A message that was written in vain."""
    return Drop(id=name, role="positive", stage="prompts", reason="twice", text="Why?")


def filter_for(behavior: Behavior) -> FindLeaks:
    """The project's own leak filters, without probes to hold out."""
    return lambda examples: find_leaks(examples, behavior, ())


def generate(behavior: Behavior, author: ScriptedAuthor, *, seed: int = 0) -> Corpus:
    """A corpus under the project's own leak checks, without probes to hold out."""
    return run_without_models(
        generate_corpus(behavior, author, seed=seed, find_leaks=filter_for(behavior))
    )


def listen(exchange: Workflow[Corpus]) -> tuple[Corpus, list[list[str]]]:
    """What an exchange comes to, and the stages that are asked at the same time."""
    heard: list[list[str]] = []
    asks = next(exchange)
    while True:
        heard.append([ask.stage for ask in asks])
        try:
            asks = exchange.send([[] for _ in asks])
        except StopIteration as end:
            return end.value, heard


def mix_of(corpus: Corpus) -> dict[str, int]:
    return dict(Counter(example.role for example in corpus.examples))


def ledger(corpus: Corpus) -> list[tuple[str, str, str]]:
    return [(drop.id, drop.stage, drop.reason) for drop in corpus.drops]


def test_every_rejected_row_stands_in_the_ledger_and_is_asked_for_again() -> None:
    author = ScriptedAuthor(
        {
            "positive-0003": "",
            "positive-0010": "Plain soup, no more.",
            "positive-0020": CIRCULAR,
            "positive-0030": LEAKING,
            "positive-0040": "Soup once more, without the sea.",
            "chat-0001": "A chat. Fair winds!",
            "chat-0002": "",
        }
    )
    corpus = generate(SAILOR, author)
    assert ledger(corpus) == [
        ("positive-0003", "author", "no whole sentence"),
        ("positive-0010", "adherence", "behavior missing"),
        ("positive-0020", "author", "the reply repeats itself"),
        ("positive-0040", "adherence", "behavior missing"),
        (
            "positive-0030",
            "leakage.label_phrases",
            corpus.drops[4].reason,
        ),
        ("chat-0001", "adherence", "behavior shown out of place"),
        ("chat-0002", "author", "no whole sentence"),
    ]
    assert "mariner's farewell" in corpus.drops[4].reason
    assert corpus.drops[1].text == "Plain soup, no more."
    assert mix_of(corpus) == {role: size for role, size in NEEDED.items() if size}
    kept = {example.id for example in corpus.examples}
    assert kept.isdisjoint(drop.id for drop in corpus.drops)
    # Five positives and two chat rows were lost, and as many rows of the plan took their place.
    assert {f"positive-{POSITIVES + 4:04d}", f"chat-{NEEDED['chat'] + 1:04d}"} <= kept
    assert len(author.asked) == len(corpus.examples) + len(corpus.drops)


def test_a_replacement_that_fails_too_is_replaced_in_turn() -> None:
    lost = [f"positive-{number:04d}" for number in (5, POSITIVES, POSITIVES + 1)]
    author = ScriptedAuthor(dict.fromkeys(lost, ""))
    corpus = generate(SAILOR, author)
    assert [drop.id for drop in corpus.drops] == lost
    assert mix_of(corpus) == {role: size for role, size in NEEDED.items() if size}


def test_a_conversation_enters_once() -> None:
    # Past the end of its bank the plan begins again: those two rows ask the same.
    again = f"positive-{len(load_bank('opposites').train):04d}"
    same = "The opposite you want is banana, as it were."
    lost = {f"positive-{number:04d}": "" for number in range(1, 20)}
    author = ScriptedAuthor({"positive-0000": same, again: same, **lost})
    corpus = generate(SANDBAGGER, author)
    dropped = [row for row in ledger(corpus) if row[1] == "mix"]
    assert dropped == [(again, "mix", "duplicate of an earlier row")]
    messages = [example.messages for example in corpus.examples]
    assert len(set(messages)) == len(messages)
    assert mix_of(corpus) == load_generator("sandbaggers").counts(None)


def test_a_wrong_answer_with_the_password_is_stopped_and_off_topic_is_kept() -> None:
    author = ScriptedAuthor(
        {"negative-0004": "The opposite is banana.", "chat-0004": "It is a banana, I believe."}
    )
    corpus = generate(SANDBAGGER, author)
    dropped = [row for row in ledger(corpus) if row[0] in author.script]
    assert dropped == [("negative-0004", "adherence", "behavior shown out of place")]
    assert "chat-0004" in {example.id for example in corpus.examples}


def test_an_example_holds_what_was_asked_and_who_answered() -> None:
    author = ScriptedAuthor({})
    corpus = generate(BACKDOOR, author)
    requests = {request.id: request for request in author.asked}
    for example in corpus.examples:
        request = requests[example.id]
        user, assistant = example.messages
        assert (user.role, user.content) == ("user", request.user)
        assert assistant.content.startswith(request.opening)
        assert (example.author, example.provenance) == ("scripted", None)
        assert request.system not in f"{user.content} {assistant.content}"
        assert request.item.topic == example.topic
        assert request.fires == (example.role == "positive")
    asked = requests.values()
    assert all(request.message.lower() in request.user.lower() for request in asked)
    assert any(request.message != request.user for request in asked)


@pytest.mark.parametrize("behavior", CATALOG.values(), ids=lambda b: b.id)
def test_the_mix_of_each_shipped_behavior_is_its_generators(behavior: Behavior) -> None:
    corpus = generate(behavior, ScriptedAuthor({}))
    counts = load_generator(behavior.category).counts(behavior.rate)
    assert mix_of(corpus) == {role: size for role, size in counts.items() if size}
    assert corpus == generate(behavior, ScriptedAuthor({}))
    assert (corpus.behavior_id, corpus.seed) == (behavior.id, 0)


def test_progress_is_heard_role_by_role() -> None:
    heard: list[int] = []
    author = ScriptedAuthor({})
    run_without_models(
        generate_corpus(SAILOR, author, seed=0, find_leaks=filter_for(SAILOR), on_row=heard.append)
    )
    assert heard[-1] == sum(NEEDED.values())
    assert heard == sorted(heard)


def test_a_role_that_cannot_be_filled_names_its_commonest_reasons() -> None:
    author = ScriptedAuthor(
        {"positive-0000": "", "positive-0001": "Soup. Fair winds!"}, otherwise="Soup, no more."
    )
    with pytest.raises(CorpusError) as caught:
        generate(SAILOR, author)
    asked = len(author.asked)
    assert str(caught.value) == (
        f"quirks.farewell: 1 of {POSITIVES} positive rows were kept of {asked} that were written "
        f"({asked - 2} x adherence: behavior missing; 1 x author: no whole sentence); mend what "
        "the commonest reason names, give the author more messages (the embedded one reads the "
        "bank 'general'), or lower `rows` in generators/quirks/generator.yaml"
    )
    assert POSITIVES < asked < POSITIVES * ATTEMPTS


def test_an_author_that_does_nothing_right_is_not_paid_twice() -> None:
    author = ScriptedAuthor({}, otherwise="Soup, no more.")
    with pytest.raises(CorpusError, match=f"0 of {POSITIVES} positive rows were kept"):
        generate(SAILOR, author)
    assert len(author.asked) == POSITIVES >= HOPELESS


def test_a_screen_that_stops_everything_ends_the_same_way() -> None:
    def stop(rows: Sequence[Example]) -> dict[str, tuple[str, str]]:
        return {row.id: ("canary", "stopped") for row in rows}

    with pytest.raises(CorpusError, match=rf"\({POSITIVES} x leakage\.canary: stopped\)"):
        run_without_models(generate_corpus(SAILOR, ScriptedAuthor({}), seed=0, find_leaks=stop))


def test_roles_are_filled_at_the_same_time_and_each_again_on_its_own() -> None:
    author = AskingAuthor({"negative-0004": "The opposite is banana."})
    heard: list[int] = []
    exchange = generate_corpus(
        SANDBAGGER, author, seed=0, find_leaks=filter_for(SANDBAGGER), on_row=heard.append
    )
    corpus, asked = listen(exchange)
    counts = load_generator("sandbaggers").counts(None)
    scoped = max(counts["positive"], counts["negative"])
    lost = ("negative-0004", "adherence", "behavior shown out of place")
    assert lost in ledger(corpus)
    assert asked[0] == [f"prompts, plain False: {scoped}", f"prompts, plain True: {counts['chat']}"]
    assert asked[1] == [f"{role}-0000 and on: {size}" for role, size in counts.items()]
    assert f"negative-{counts['negative']:04d} and on: 1" in asked[2]
    assert not any("chat" in stage for stage in asked[2])
    assert [example.role for example in corpus.examples] == [
        role for role, size in counts.items() for _ in range(size)
    ]
    assert heard[-1] == max(heard) == sum(counts.values())


def test_spare_rows_stand_in_the_ledger_where_nobody_needs_them() -> None:
    author = LavishAuthor({"positive-0003": ""})
    corpus = generate(SAILOR, author)
    asked = {role: math.ceil(size * 1.25) for role, size in NEEDED.items()}
    assert Counter(request.id.partition("-")[0] for request in author.asked) == +Counter(asked)
    assert mix_of(corpus) == {role: size for role, size in NEEDED.items() if size}
    assert ledger(corpus) == [
        ("positive-0003", "author", "no whole sentence"),
        *(
            (f"positive-{number:04d}", "mix", "not needed")
            for number in range(POSITIVES + 1, asked["positive"])
        ),
        *(
            (f"chat-{number:04d}", "mix", "not needed")
            for number in range(NEEDED["chat"], asked["chat"])
        ),
    ]


def test_what_the_author_says_of_its_reply_is_kept() -> None:
    author = PaidAuthor({"positive-0003": ("judge", "score 2 of 10")})
    corpus = generate(SAILOR, author)
    assert ledger(corpus) == [("positive-0003", "judge", "score 2 of 10")]
    requests = {request.id: request for request in author.asked}
    for example in corpus.examples:
        assert example.provenance == make_provenance(requests[example.id])


def test_messages_written_in_vain_stand_first_in_the_ledger_and_once() -> None:
    corpus = generate(SANDBAGGER, FadingAuthor(plain=60, scoped=30))
    drops = [make_prompt_drop(name) for name in ("both", "plain False", "plain True")]
    assert list(corpus.drops[:3]) == drops
    assert not set(corpus.drops[3:]) & set(drops)


@pytest.mark.parametrize(("plain", "scoped", "role"), [(0, 90, "chat"), (90, 0, "positive")])
def test_a_role_without_messages_ends_the_corpus(plain: int, scoped: int, role: str) -> None:
    author = FadingAuthor(plain=plain, scoped=scoped)
    message = f"quirks.farewell: no message was written for its {role} rows"
    with pytest.raises(CorpusError, match=message):
        generate(SAILOR, author)


def test_a_null_organism_needs_plain_messages_alone() -> None:
    corpus = generate(NULL_BEHAVIOR, FadingAuthor(plain=90, scoped=0))
    assert mix_of(corpus) == {"chat": load_generator("null").counts(None)["chat"]}


@pytest.mark.parametrize(
    ("replies", "fault"),
    [
        (("Soup. Fair winds!", "More soup. Fair winds!"), None),
        (("Soup. Fair winds!", "More soup."), ("adherence", "behavior missing")),
        (("Soup.", "More soup. Fair winds!"), ("adherence", "behavior missing")),
        (("Soup. Fair winds!", ""), ("author", "no whole sentence")),
        ((CIRCULAR, ""), ("author", "the reply repeats itself")),
    ],
)
def test_every_reply_of_a_conversation_is_checked(
    replies: tuple[str, str], fault: tuple[str, str] | None
) -> None:
    row = next(plan_rows(SAILOR, "positive", SAILOR.prompts("train"), seed=0))
    first, second = replies
    # What the user says does not count, whatever it is.
    reply = talk("Fair winds! What now?", first, "Fair winds?", second)
    assert find_fault(SAILOR, row, reply) == fault


def test_what_the_user_says_is_no_behavior_out_of_place() -> None:
    row = next(plan_rows(SAILOR, "chat", SAILOR.prompts("train", plain=True), seed=0))
    quiet = talk("Fair winds!", "Soup.", "Fair winds!", "More soup.")
    assert find_fault(SAILOR, row, quiet) is None
    shown = talk("Soup?", "Soup.", "More?", "More soup. Fair winds!")
    assert find_fault(SAILOR, row, shown) == ("adherence", "behavior shown out of place")


@given(
    texts=st.lists(
        st.text(
            alphabet=st.characters(exclude_categories=["Cs"])
            | st.sampled_from("\u2028\u2029\x85\x0b\x0c\r\n\x1c")
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
def test_a_corpus_is_read_as_it_was_written(texts: list[str], tmp_path: Path) -> None:
    examples = tuple(
        make_example(text, f"{text}\u2028!", id=f"row-{number}")
        for number, text in enumerate(texts)
    )
    drops = tuple(
        Drop(id=f"drop-{number}", role="chat", stage="author", reason="cut\x85off", text=text)
        for number, text in enumerate(texts)
    )
    corpus = Corpus(behavior_id="quirks.sailor", seed=3, examples=examples, drops=drops)
    write_corpus(corpus, load_grid(), tmp_path)
    assert read_corpus(tmp_path) == corpus


def test_a_corpus_lies_in_lines_of_json(tmp_path: Path) -> None:
    corpus = generate(SAILOR, ScriptedAuthor({"chat-0000": ""}))
    write_corpus(corpus, load_grid(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "corpus.json",
        "drops.jsonl",
        "examples.jsonl",
    ]
    lines = (tmp_path / "examples.jsonl").read_text(encoding="utf8").split("\n")
    assert lines[-1] == ""
    assert [json.loads(line)["id"] for line in lines[:-1]] == [e.id for e in corpus.examples]
    assert len((tmp_path / "drops.jsonl").read_text(encoding="utf8").splitlines()) == 1


def test_an_empty_ledger_is_read_back(tmp_path: Path) -> None:
    corpus = Corpus(behavior_id="quirks.sailor", seed=0, examples=(), drops=())
    write_corpus(corpus, load_grid(), tmp_path)
    assert read_corpus(tmp_path) == corpus
