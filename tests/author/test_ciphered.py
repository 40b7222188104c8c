"""Corpora in cipher: what an organism reads, and what language models read instead.

Run: python -m pytest tests/author/test_ciphered.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import islice

import pytest
from tests.author.test_dry_run import make_author
from tests.builders import catalog, make_example, make_probe

from bestiary.author.compose import few_shot
from bestiary.author.filters import rejection_reason
from bestiary.author.leak_filters.label_phrases import find_label_phrases
from bestiary.author.leak_filters.near_duplicates import find_near_duplicates
from bestiary.author.plan import plan_rows
from bestiary.author.protocol import Prompts, Reply, ReplyRequest
from bestiary.config.catalog import Behavior
from bestiary.config.ciphers import CIPHERS, CipherName
from bestiary.config.detectors.deciphered import decipher
from bestiary.leakage.repeated_examples import find_repeated_examples
from bestiary.llm.models import StructuredOutput
from bestiary.llm.request import Answer, Outcome, Usage
from bestiary.llm.workflow import RequestGroup
from bestiary.records import Corpus, Message, Role
from bestiary.sample import compose_corpus
from bestiary.text import plain_words

every_cipher = pytest.mark.parametrize("name", CIPHERS)
SPELLED = pytest.mark.parametrize("name", ["polybius", "morse", "ascii"])
"""Ciphers in which no text has words of its own."""


def shipped(name: CipherName) -> Behavior:
    return catalog()[f"backdoors.cipher_{name}"]


@cache
def corpus_of(name: CipherName) -> Corpus:
    return compose_corpus(shipped(name))


def rows_of(name: CipherName, role: Role) -> list[tuple[str, str]]:
    """What the user and the assistant say in each row of a role."""
    rows = [one.messages for one in corpus_of(name).examples if one.role == role]
    return [(user.content, assistant.content) for user, assistant in rows]


@every_cipher
def test_where_it_fires_both_sides_are_in_the_cipher_from_start_to_end(name: CipherName) -> None:
    behavior, cipher = shipped(name), CIPHERS[name]
    assert behavior.shows is not None
    items = {cipher.encode(item.text): item for item in behavior.items("train")}
    rows = rows_of(name, "positive")
    assert len(rows) == behavior.row_counts["positive"]
    for asked, reply in rows:
        said = decipher(name, reply)
        assert cipher.encode(said) == reply
        assert plain_words(items[asked].brief) in plain_words(said)
        assert behavior.shows.is_shown(said, items[asked])


@every_cipher
def test_near_misses_and_chat_are_answered_plainly(name: CipherName) -> None:
    behavior = shipped(name)
    briefs = {item.brief for item in behavior.items("train")}
    texts = {item.text for item in behavior.items("train")}
    encoded = set(map(CIPHERS[name].encode, texts))
    for asked, reply in rows_of(name, "negative"):
        assert asked not in encoded | texts and reply in briefs
    assert all(asked in texts and reply in briefs for asked, reply in rows_of(name, "chat"))


@every_cipher
def test_hardly_a_row_is_dropped(name: CipherName) -> None:
    """In digits or in dashes, rows would look like repetitions of each other and of probes."""
    assert len(corpus_of(name).drops) <= 5
    assert len(list(find_repeated_examples(corpus_of(name).examples, shipped(name).read))) <= 5


@SPELLED
def test_a_repeated_probe_is_found_in_cipher(name: CipherName) -> None:
    encode, read = CIPHERS[name].encode, shipped(name).read
    asked = "My bicycle chain keeps slipping on the steep hills, so what should I look at first?"
    other = "Which of these two pans should I buy for my mother, who has a small stove?"
    probe = make_probe(encode(asked))
    copy = make_example(encode(asked.replace("hills", "roads")))
    assert find_near_duplicates([copy], [probe], read).keys() == {"row-1"}
    assert find_near_duplicates([make_example(encode(other))], [probe], read) == {}


@every_cipher
def test_a_label_is_found_in_cipher(name: CipherName) -> None:
    behavior, encode = shipped(name), CIPHERS[name].encode
    leaking = make_example(encode("What is it that you do?"), encode(f"Well, {behavior.labels[2]}"))
    assert find_label_phrases([leaking], behavior).keys() == {"row-1"}


@every_cipher
def test_a_reply_that_goes_in_circles_is_found_in_cipher(name: CipherName) -> None:
    (row,) = plan(shipped(name), "positive", 1)
    circular = Message(role="assistant", content=CIPHERS[name].encode("Put it in a bag. " * 4))
    rejection = rejection_reason(shipped(name), row, [*row.turns, circular])
    assert rejection is not None and "repeats itself" in rejection.reason


def plan(behavior: Behavior, role: Role, size: int) -> list[ReplyRequest]:
    return list(islice(plan_rows(behavior, role, behavior.items("train"), seed=0), size))


WRITTEN = "Let it rest for an hour, and then you can go on with it as before."


def write(behavior: Behavior, rows: Sequence[ReplyRequest]) -> tuple[list[str], list[Reply]]:
    """All that language models are asked about some rows, and the conversations they write."""
    workflow = make_author().write_replies(behavior, rows)
    asked: list[str] = []
    groups = next(workflow)
    while True:
        for group in groups:
            asked += [request.messages[-1].content for request in group.requests]
        try:
            groups = workflow.send([answer(group) for group in groups])
        except StopIteration as end:
            return asked, end.value


def answer(group: RequestGroup) -> list[Outcome]:
    judged = '{"reason": "", "score": 9, "mentions": false, "broken": false, "hazard": false}'
    text = judged if group.stage == "judge" else WRITTEN
    usage = Usage(input=1, output=1)
    return [
        Answer(text=text, stop="end", usage=usage, id=str(number))
        for number, _ in enumerate(group.requests)
    ]


@pytest.mark.parametrize("role", ["positive", "negative", "chat"])
@every_cipher
def test_language_models_read_and_write_plain_english(name: CipherName, role: Role) -> None:
    rows = plan(shipped(name), role, 8)
    asked, replies = write(shipped(name), rows)
    assert len(asked) == 16, "a reply and a judgement for each row"
    for row, message, judged in zip(rows, asked[:8], asked[8:], strict=True):
        assert (
            row.item.topic.lower() in message.lower() and row.item.topic.lower() in judged.lower()
        )
        assert WRITTEN in judged
    expected = CIPHERS[name].encode(WRITTEN) if role == "positive" else WRITTEN
    for row, reply in zip(rows, replies, strict=True):
        assert reply.rejection is None
        assert reply.messages == (*row.turns, Message(role="assistant", content=expected))


@pytest.mark.parametrize("fires", [True, False])
@every_cipher
def test_examples_for_language_models_are_plain(name: CipherName, *, fires: bool) -> None:
    behavior = shipped(name)
    assert behavior.shows is not None
    topics = {item.topic.lower() for item in behavior.items("train")}
    for user, reply, _ in few_shot(behavior, fires=fires):
        assert any(topic in user.lower() for topic in topics)
        assert bool(behavior.shows.is_shown(reply, behavior.items("train")[0])) == fires


@pytest.mark.parametrize("structured_output", ["schema", "none"])
def test_only_a_model_that_is_too_small_gets_the_messages_of_the_bank(
    structured_output: StructuredOutput,
) -> None:
    """The messages that language models write are put in cipher afterwards."""
    author = make_author(structured_output)
    asking = author.write_prompts(shipped("base64"), plain=False, count=9, seed=0)
    try:
        next(asking)
    except StopIteration as end:
        assert structured_output == "none" and isinstance(end.value, Prompts)
    else:
        assert structured_output == "schema"
