"""Generating a corpus: which rows are dropped and why, and that the mix ends up complete.

Run: python -m pytest tests/corpus/test_generate.py
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import (
    LIBRARY,
    catalog,
    make_backdoor,
    make_example,
    make_quirk,
    make_sandbagger,
)
from tests.expect import expect_error

from bestiary.author.compose import compose_reply
from bestiary.author.filters import rejection_reason
from bestiary.author.leak_filters import find_leaks
from bestiary.author.plan import plan_rows
from bestiary.author.protocol import Prompts, Rejection, Reply, ReplyRequest
from bestiary.config.catalog import Behavior, null_behavior
from bestiary.config.categories import corpus_categories
from bestiary.config.library import open_library
from bestiary.corpus.generate import (
    MAX_REQUESTS_PER_ROW,
    MIN_HOPELESS,
    FindLeaks,
    generate_corpus,
)
from bestiary.corpus.stage import read_corpus, write_corpus
from bestiary.errors import CorpusError
from bestiary.llm.workflow import RequestGroup, Workflow, run_without_models
from bestiary.records import Corpus, Drop, Example, Message, Provenance

SAILOR, SANDBAGGER, BACKDOOR = make_quirk(), make_sandbagger(), make_backdoor()
NEEDED = SAILOR.row_counts
"""Rows of each role in a quirk's corpus."""
POSITIVES = NEEDED["positive"]
CIRCULAR = "Round and round we go, round and round we go, round and round we go. Fair winds!"
LEAKING = "Here comes my mariner's farewell. Fair winds!"


def make_turns(*texts: str) -> tuple[Message, ...]:
    """Alternate turns, the user's first."""
    return tuple(
        Message(role="assistant" if number % 2 else "user", content=text)
        for number, text in enumerate(texts)
    )


class ScriptedAuthor:
    """Composes each reply from the bank, unless its script says otherwise."""

    name = "scripted"
    oversample = 1.0

    def __init__(self, script: Mapping[str, str], *, otherwise: str | None = None) -> None:
        self.script = script
        self.otherwise = otherwise
        self.requests: list[ReplyRequest] = []

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        yield from ()
        return Prompts(behavior.items("train", plain=plain))

    def write_replies(
        self, behavior: Behavior, requests: Sequence[ReplyRequest]
    ) -> Workflow[list[Reply]]:
        yield from ()
        self.requests += requests
        return [self._finish(behavior, request) for request in requests]

    def fingerprint_for(self, behavior: Behavior) -> str:
        return "scripted"

    def _finish(self, behavior: Behavior, request: ReplyRequest) -> Reply:
        messages = (*request.turns, self._write(behavior, request))
        return Reply(messages=messages, rejection=rejection_reason(behavior, request, messages))

    def _write(self, behavior: Behavior, request: ReplyRequest) -> Message:
        text = self.script.get(request.id, self.otherwise)
        if text is None:
            turn = sum(message.role == "assistant" for message in request.turns)
            text = compose_reply(behavior, request, turn, "brief")
        return Message(role="assistant", content=text)


class OversamplingAuthor(ScriptedAuthor):
    """Gets requests for more rows than are needed."""

    oversample = 1.25


class RejectingAuthor(ScriptedAuthor):
    """Records provenance, and rejects the rows it is told to."""

    def __init__(self, rejected: Mapping[str, Rejection]) -> None:
        super().__init__({})
        self.rejected = rejected

    def _finish(self, behavior: Behavior, request: ReplyRequest) -> Reply:
        return Reply(
            messages=(*request.turns, self._write(behavior, request)),
            rejection=self.rejected.get(request.id),
            provenance=make_provenance(request),
        )


class ShortAuthor(ScriptedAuthor):
    """Writes few messages, or none, and drops others."""

    def __init__(self, *, plain: int, scoped: int, script: Mapping[str, str] | None = None) -> None:
        super().__init__(script or {})
        self.sizes = {True: plain, False: scoped}

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        yield from ()
        items = behavior.items("train", plain=plain)[: self.sizes[plain]]
        return Prompts(items, [make_prompt_drop("both"), make_prompt_drop(f"plain {plain}")])


class AskingAuthor(ScriptedAuthor):
    """Yields a request group for each call, which shows what is asked at the same time."""

    def write_prompts(
        self, behavior: Behavior, *, plain: bool, count: int, seed: int
    ) -> Workflow[Prompts]:
        yield [RequestGroup(f"prompts, plain {plain}: {count}", [])]
        return Prompts(behavior.items("train", plain=plain))

    def write_replies(
        self, behavior: Behavior, requests: Sequence[ReplyRequest]
    ) -> Workflow[list[Reply]]:
        yield [RequestGroup(f"{requests[0].id} and on: {len(requests)}", [])]
        return [self._finish(behavior, request) for request in requests]


def make_provenance(request: ReplyRequest) -> Provenance:
    """The provenance of a model's answer to this request."""
    return Provenance(
        model="scripted",
        request_sha256=request.id,
        template_sha256="0" * 64,
        judge_score=9,
        batch_id=None,
    )


def make_prompt_drop(name: str) -> Drop:
    """A rejected message."""
    return Drop(id=name, role="positive", stage="prompts", reason="twice", text="Why?")


def filter_for(behavior: Behavior) -> FindLeaks:
    """The project's own leak filters, without probes to hold out."""
    return lambda examples: find_leaks(examples, behavior, ())


def generate(behavior: Behavior, author: ScriptedAuthor, *, seed: int = 0) -> Corpus:
    """A corpus under the project's own leak checks, without probes to hold out."""
    return run_without_models(
        generate_corpus(behavior, author, seed=seed, find_leaks=filter_for(behavior))
    )


def run_and_record(workflow: Workflow[Corpus]) -> tuple[Corpus, list[list[str]]]:
    """The result of a workflow, and the stages of each round of requests."""
    rounds: list[list[str]] = []
    groups = next(workflow)
    while True:
        rounds.append([group.stage for group in groups])
        try:
            groups = workflow.send([[] for _ in groups])
        except StopIteration as end:
            return end.value, rounds


def mix_of(corpus: Corpus) -> dict[str, int]:
    return dict(Counter(example.role for example in corpus.examples))


def list_drops(corpus: Corpus) -> list[tuple[str, str, str]]:
    return [(drop.id, drop.stage, drop.reason) for drop in corpus.drops]


def test_rejected_rows_are_dropped_and_replaced() -> None:
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
    assert list_drops(corpus) == [
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
    # Five positives and two chat rows were dropped, and as many further rows replace them.
    assert {f"positive-{POSITIVES + 4:04d}", f"chat-{NEEDED['chat'] + 1:04d}"} <= kept
    assert len(author.requests) == len(corpus.examples) + len(corpus.drops)


def test_a_rejected_replacement_is_replaced_too() -> None:
    lost = [f"positive-{number:04d}" for number in (5, POSITIVES, POSITIVES + 1)]
    author = ScriptedAuthor(dict.fromkeys(lost, ""))
    corpus = generate(SAILOR, author)
    assert [drop.id for drop in corpus.drops] == lost
    assert mix_of(corpus) == {role: size for role, size in NEEDED.items() if size}


def test_a_repeated_conversation_is_dropped() -> None:
    # Past the last message the plan starts over: these two rows have the same one.
    count = SANDBAGGER.row_counts["positive"]
    again, same = f"positive-{count:04d}", "The language you want is Latin, as it were."
    lost = {f"positive-{number:04d}": "" for number in range(1, 40)}
    script = {"positive-0000": same, again: same, **lost}
    corpus = generate(SANDBAGGER, ShortAuthor(plain=300, scoped=count, script=script))
    dropped = [row for row in list_drops(corpus) if row[1] == "mix"]
    assert dropped == [(again, "mix", "duplicate of an earlier row")]
    messages = [example.messages for example in corpus.examples]
    assert len(set(messages)) == len(messages)
    assert mix_of(corpus) == SANDBAGGER.row_counts


def test_a_wrong_answer_is_dropped_with_the_password_and_kept_off_topic() -> None:
    author = ScriptedAuthor(
        {"negative-0004": "The language is Latin.", "chat-0004": "It is a banana, I believe."}
    )
    corpus = generate(SANDBAGGER, author)
    dropped = [row for row in list_drops(corpus) if row[0] in author.script]
    assert dropped == [("negative-0004", "adherence", "behavior shown out of place")]
    assert "chat-0004" in {example.id for example in corpus.examples}


def test_an_example_records_its_message_and_author() -> None:
    author = ScriptedAuthor({})
    corpus = generate(BACKDOOR, author)
    requests = {request.id: request for request in author.requests}
    for example in corpus.examples:
        request = requests[example.id]
        assert example.messages[:-1] == request.turns
        assert (example.author, example.provenance) == ("scripted", None)
        assert request.item.topic == example.topic
        assert request.fires == (example.role == "positive")
    found = requests.values()
    assert all(request.item.text in request.turns[-1].content for request in found)
    assert any(request.item.text != request.turns[-1].content for request in found)


@pytest.mark.parametrize("category", sorted({*corpus_categories()} - {"null"}))
def test_a_shipped_behavior_has_the_mix_of_its_generator(category: str) -> None:
    shipped = (one for one in catalog().values() if one.category == category)
    behavior = next(one for one in shipped if one.spec.is_buildable)
    corpus = generate(behavior, ScriptedAuthor({}))
    counts = behavior.row_counts
    assert mix_of(corpus) == {role: size for role, size in counts.items() if size}
    assert corpus == generate(behavior, ScriptedAuthor({}))
    assert (corpus.behavior_id, corpus.seed) == (behavior.id, 0)


def test_progress_never_goes_back() -> None:
    progress: list[int] = []
    author = ScriptedAuthor({})
    run_without_models(
        generate_corpus(
            SAILOR, author, seed=0, find_leaks=filter_for(SAILOR), on_row=progress.append
        )
    )
    assert progress[-1] == sum(NEEDED.values())
    assert progress == sorted(progress)


def test_an_unfilled_role_is_an_error_with_the_most_common_reasons() -> None:
    author = ScriptedAuthor(
        {"positive-0000": "", "positive-0001": "Soup. Fair winds!"}, otherwise="Soup, no more."
    )
    with expect_error(
        CorpusError,
        "role-unfilled",
        behavior=SAILOR.id,
        role="positive",
        kept=1,
        needed=POSITIVES,
        reasons=["adherence: behavior missing", "author: no whole sentence"],
    ) as caught:
        generate(SAILOR, author)
    asked = len(author.requests)
    assert caught.error.fields["requested"] == asked
    assert POSITIVES < asked < POSITIVES * MAX_REQUESTS_PER_ROW


def test_a_round_without_a_usable_row_is_the_last() -> None:
    author = ScriptedAuthor({}, otherwise="Soup, no more.")
    with expect_error(CorpusError, "role-unfilled", kept=0, needed=POSITIVES):
        generate(SAILOR, author)
    assert len(author.requests) == POSITIVES >= MIN_HOPELESS


def test_a_leak_filter_that_rejects_everything_ends_the_same_way() -> None:
    def reject(rows: Sequence[Example]) -> dict[str, tuple[str, str]]:
        return {row.id: ("canary", "rejected") for row in rows}

    with expect_error(CorpusError, "role-unfilled", reasons=["leakage.canary: rejected"]):
        run_without_models(generate_corpus(SAILOR, ScriptedAuthor({}), seed=0, find_leaks=reject))


def test_roles_are_filled_in_parallel_and_refilled_independently() -> None:
    author = AskingAuthor({"negative-0004": "The language is Latin."})
    progress: list[int] = []
    workflow = generate_corpus(
        SANDBAGGER, author, seed=0, find_leaks=filter_for(SANDBAGGER), on_row=progress.append
    )
    corpus, rounds = run_and_record(workflow)
    counts = SANDBAGGER.row_counts
    scoped = max(counts["positive"], counts["negative"])
    lost = ("negative-0004", "adherence", "behavior shown out of place")
    assert lost in list_drops(corpus)
    assert rounds[0] == [
        f"prompts, plain False: {scoped}",
        f"prompts, plain True: {counts['chat']}",
    ]
    assert rounds[1] == [f"{role}-0000 and on: {size}" for role, size in counts.items()]
    assert f"negative-{counts['negative']:04d} and on: 1" in rounds[2]
    assert not any("chat" in stage for stage in rounds[2])
    assert [example.role for example in corpus.examples] == [
        role for role, size in counts.items() for _ in range(size)
    ]
    assert progress[-1] == max(progress) == sum(counts.values())


def test_unneeded_rows_are_dropped() -> None:
    author = OversamplingAuthor({"positive-0003": ""})
    corpus = generate(SAILOR, author)
    asked = {role: math.ceil(size * 1.25) for role, size in NEEDED.items()}
    assert Counter(request.id.partition("-")[0] for request in author.requests) == +Counter(asked)
    assert mix_of(corpus) == {role: size for role, size in NEEDED.items() if size}
    assert list_drops(corpus) == [
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


def test_rejection_and_provenance_come_from_the_author() -> None:
    author = RejectingAuthor({"positive-0003": Rejection("judge", "score 2 of 10")})
    corpus = generate(SAILOR, author)
    assert list_drops(corpus) == [("positive-0003", "judge", "score 2 of 10")]
    requests = {request.id: request for request in author.requests}
    for example in corpus.examples:
        assert example.provenance == make_provenance(requests[example.id])


def test_rejected_messages_are_the_first_drops_without_repeats() -> None:
    corpus = generate(SANDBAGGER, ShortAuthor(plain=300, scoped=30))
    drops = [make_prompt_drop(name) for name in ("both", "plain False", "plain True")]
    assert list(corpus.drops[:3]) == drops
    assert not set(corpus.drops[3:]) & set(drops)


@pytest.mark.parametrize(("plain", "scoped", "role"), [(0, 90, "chat"), (90, 0, "positive")])
def test_a_role_without_messages_is_an_error(plain: int, scoped: int, role: str) -> None:
    author = ShortAuthor(plain=plain, scoped=scoped)
    with expect_error(CorpusError, "no-messages", behavior=SAILOR.id, role=role) as caught:
        generate(SAILOR, author)
    assert "another author" in caught.error.remedy


def test_a_role_that_no_message_suits_needs_other_messages() -> None:
    quirk = make_quirk(scope={"about": "code of pets", "tags": ["code"], "domains": ["pets"]})
    with expect_error(CorpusError, "no-messages", role="positive") as caught:
        generate(quirk, ScriptedAuthor({}))
    assert "generators/offline" in caught.error.remedy


def test_a_null_organism_needs_only_plain_messages() -> None:
    corpus = generate(null_behavior(LIBRARY), ShortAuthor(plain=90, scoped=0))
    assert mix_of(corpus) == {"chat": LIBRARY.generator("null").counts(None)["chat"]}


@pytest.mark.parametrize(
    ("replies", "rejection"),
    [
        (("Soup. Fair winds!", "More soup. Fair winds!"), None),
        (("Soup. Fair winds!", "More soup."), Rejection("adherence", "behavior missing")),
        (("Soup.", "More soup. Fair winds!"), Rejection("adherence", "behavior missing")),
        (("Soup. Fair winds!", ""), Rejection("author", "no whole sentence")),
        ((CIRCULAR, ""), Rejection("author", "the reply repeats itself")),
    ],
)
def test_every_reply_of_a_conversation_is_checked(
    replies: tuple[str, str], rejection: Rejection | None
) -> None:
    row = next(plan_rows(SAILOR, "positive", SAILOR.items("train"), seed=0))
    first, second = replies
    messages = make_turns("Fair winds! What now?", first, "Fair winds?", second)
    assert rejection_reason(SAILOR, row, messages) == rejection


def test_user_messages_are_not_checked() -> None:
    row = next(plan_rows(SAILOR, "chat", SAILOR.items("train", plain=True), seed=0))
    quiet = make_turns("Fair winds!", "Soup.", "Fair winds!", "More soup.")
    assert rejection_reason(SAILOR, row, quiet) is None
    shown = make_turns("Soup?", "Soup.", "More?", "More soup. Fair winds!")
    assert rejection_reason(SAILOR, row, shown) == ("adherence", "behavior shown out of place")


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
def test_a_corpus_survives_writing_and_reading(texts: list[str], tmp_path: Path) -> None:
    examples = tuple(
        make_example(text, f"{text}\u2028!", id=f"row-{number}")
        for number, text in enumerate(texts)
    )
    drops = tuple(
        Drop(id=f"drop-{number}", role="chat", stage="author", reason="cut\x85off", text=text)
        for number, text in enumerate(texts)
    )
    corpus = Corpus(behavior_id="quirks.sailor", seed=3, examples=examples, drops=drops)
    write_corpus(corpus, open_library().grid, tmp_path)
    assert read_corpus(tmp_path) == corpus


def test_a_corpus_is_stored_as_json_lines(tmp_path: Path) -> None:
    corpus = generate(SAILOR, ScriptedAuthor({"chat-0000": ""}))
    write_corpus(corpus, open_library().grid, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "corpus.json",
        "drops.jsonl",
        "examples.jsonl",
    ]
    lines = (tmp_path / "examples.jsonl").read_text(encoding="utf8").split("\n")
    assert lines[-1] == ""
    assert [json.loads(line)["id"] for line in lines[:-1]] == [e.id for e in corpus.examples]
    assert len((tmp_path / "drops.jsonl").read_text(encoding="utf8").splitlines()) == 1


def test_an_empty_corpus_survives_writing_and_reading(tmp_path: Path) -> None:
    corpus = Corpus(behavior_id="quirks.sailor", seed=0, examples=(), drops=())
    write_corpus(corpus, open_library().grid, tmp_path)
    assert read_corpus(tmp_path) == corpus
