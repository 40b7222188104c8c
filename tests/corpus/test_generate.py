"""Writing a corpus: what stops a row, where the ledger says so, and that the mix ends up whole.

Run: python -m pytest tests/corpus/test_generate.py
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import make_behavior, make_example, make_quirk

from bestiary.backend import ReplyRequest
from bestiary.corpus.generate import (
    ATTEMPTS,
    fingerprint_corpus,
    generate_corpus,
    read_corpus,
    write_corpus,
)
from bestiary.errors import CorpusError
from bestiary.leakage import check_corpus
from bestiary.records import Corpus, Drop, Example, Finding
from bestiary.spec.bank import load_bank
from bestiary.spec.catalog import Behavior, load_catalog
from bestiary.spec.generator import load_generator

SAILOR = make_behavior(make_quirk())
CATALOG = load_catalog()
SANDBAGGER = CATALOG["sandbaggers.opposites"]
BACKDOOR = next(b for b in CATALOG.values() if b.category == "backdoors")
NEEDED = load_generator("quirks").counts(None)
"""Rows of each role in a quirk's corpus."""
POSITIVES = NEEDED["positive"]
CIRCULAR = "Round and round we go, round and round we go, round and round we go. Fair winds!"
LEAKING = "Here comes my mariner's farewell. Fair winds!"


class ScriptedAuthor:
    """Writes an ordinary reply to each request, except where its script has another."""

    author = "scripted"
    fingerprint = "scripted-1"

    def __init__(self, script: Mapping[str, str], *, otherwise: str | None = None) -> None:
        self.script = script
        self.otherwise = otherwise
        self.asked: list[ReplyRequest] = []

    def write_replies(
        self, requests: Sequence[ReplyRequest], *, on_reply: Callable[[int], None] | None = None
    ) -> list[str]:
        self.asked += requests
        return [self._write(request) for request in requests]

    def _write(self, request: ReplyRequest) -> str:
        if request.id in self.script:
            return self.script[request.id]
        if self.otherwise is not None:
            return self.otherwise
        parts = (request.opening, f"as for row {request.id}, plainly.", request.closing)
        return " ".join(part for part in parts if part)


def generate(behavior: Behavior, author: ScriptedAuthor, *, seed: int = 0) -> Corpus:
    """A corpus under the project's own leak checks, without probes to hold out."""
    screen = partial(check_corpus, probes=[], behavior=behavior)
    return generate_corpus(behavior, author, seed=seed, screen=screen)


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
        assert example.author == "scripted"
        assert request.system not in f"{user.content} {assistant.content}"
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
    screen = partial(check_corpus, probes=[], behavior=SAILOR)
    generate_corpus(SAILOR, ScriptedAuthor({}), seed=0, screen=screen, on_row=heard.append)
    assert heard[-1] == sum(NEEDED.values())
    assert heard == sorted(heard)


def test_a_role_that_cannot_be_filled_names_its_commonest_reasons() -> None:
    author = ScriptedAuthor({"positive-0000": ""}, otherwise="Soup, no more.")
    with pytest.raises(CorpusError) as caught:
        generate(SAILOR, author)
    asked = POSITIVES * ATTEMPTS
    assert str(caught.value) == (
        f"quirks.farewell: 0 of {POSITIVES} positive rows after 3 attempts a row "
        f"({asked - 1} x adherence: behavior missing; 1 x author: no whole sentence); mend the "
        "openings or detectors, add prompts to the bank 'general', or lower `rows` in "
        "generators/quirks/generator.yaml"
    )
    assert len(author.asked) == asked


def test_a_screen_that_stops_everything_ends_the_same_way() -> None:
    def stop(rows: Sequence[Example]) -> list[Finding]:
        return [
            Finding(check="canary", subject="corpus", item=row.id, reason="stopped") for row in rows
        ]

    with pytest.raises(
        CorpusError, match=rf"\({POSITIVES * ATTEMPTS} x leakage\.canary: stopped\)"
    ):
        generate_corpus(SAILOR, ScriptedAuthor({}), seed=0, screen=stop)


def test_the_fingerprint_covers_author_seed_and_behavior() -> None:
    author, other = ScriptedAuthor({}), ScriptedAuthor({})
    other.fingerprint = "scripted-2"
    louder = make_behavior(make_quirk(offline={"closings": ["Fair winds to all!"]}))
    keys = [
        fingerprint_corpus(SAILOR, author, seed=0),
        fingerprint_corpus(SAILOR, other, seed=0),
        fingerprint_corpus(SAILOR, author, seed=1),
        fingerprint_corpus(louder, author, seed=0),
    ]
    assert len(set(keys)) == 4
    assert fingerprint_corpus(SAILOR, ScriptedAuthor({"chat-0000": "x"}), seed=0) == keys[0]


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
    write_corpus(corpus, tmp_path)
    assert read_corpus(tmp_path) == corpus


def test_a_corpus_lies_in_lines_of_json(tmp_path: Path) -> None:
    corpus = generate(SAILOR, ScriptedAuthor({"chat-0000": ""}))
    write_corpus(corpus, tmp_path)
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
    write_corpus(corpus, tmp_path)
    assert read_corpus(tmp_path) == corpus
