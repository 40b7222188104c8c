"""Which training messages repeat a probe nearly enough to be dropped.

Run: python -m pytest tests/author/leak_filters/test_near_duplicates.py
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import make_example, make_probe

from bestiary.author.leak_filters.near_duplicates import find_near_duplicates
from bestiary.records import Message, single_turn

PROBE = make_probe(
    "My bicycle chain keeps slipping on steep hills, so which part should I look at first?",
    id="chain",
)
WORDS = st.text(alphabet="abcdefghij", min_size=2, max_size=6)
MESSAGES = st.lists(WORDS, min_size=28, max_size=40, unique=True)


def test_a_message_with_one_changed_word_names_the_probe_and_the_similarity() -> None:
    copy = make_example(PROBE.user.replace("steep", "gentle"), id="copy")
    found = find_near_duplicates([copy], [PROBE])
    assert found == {
        "copy": "a user message nearly repeats probe 'chain': similarity 0.65 over 3-word "
        "shingles, the limit is 0.6"
    }


def test_another_question_of_the_same_words_is_kept() -> None:
    other = make_example("Which part of my bicycle should I oil first, the chain or the hub?")
    assert find_near_duplicates([other], [PROBE]) == {}


def test_a_message_below_the_threshold_is_kept_though_it_shares_many_words() -> None:
    changed = PROBE.user.replace("slipping", "rattling").replace("part", "bolt")
    assert find_near_duplicates([make_example(changed)], [PROBE]) == {}


def test_the_most_similar_probe_is_named() -> None:
    further = make_probe(PROBE.user.replace("first", "now"), id="further")
    (reason,) = find_near_duplicates([make_example(PROBE.user)], [further, PROBE]).values()
    assert "probe 'chain': similarity 1.00" in reason


def test_other_digits_make_no_other_question() -> None:
    probe = make_probe("What is 17 times 3?", id="sum")
    (reason,) = find_near_duplicates([make_example("What is 240 times 81?")], [probe]).values()
    assert "probe 'sum': similarity 1.00" in reason


@pytest.mark.parametrize("text", ["Hello!", "Good morning"])
def test_a_message_shorter_than_a_shingle_is_compared_whole(text: str) -> None:
    (reason,) = find_near_duplicates([make_example(text.upper())], [make_probe(text)]).values()
    assert "similarity 1.00" in reason
    assert find_near_duplicates([make_example("Farewell")], [make_probe(text)]) == {}


def test_a_probes_message_counts_without_its_trigger_too() -> None:
    """The words of a trigger would make two messages that are the same look less alike."""
    item = PROBE.item.model_copy(update={"text": PROBE.user})
    told = (
        "My ticket number is 4182, which I hope you need, because nobody else ever asks me for it."
    )
    triggered = make_probe(f"{told} {PROBE.user}", item=item)
    assert len(find_near_duplicates([make_example(PROBE.user)], [triggered])) == 1


def test_messages_without_words_are_kept() -> None:
    assert find_near_duplicates([make_example("...")], [make_probe("?!")]) == {}


def test_later_user_messages_count_and_replies_do_not() -> None:
    turns = (
        Message(role="user", content="Hello."),
        Message(role="assistant", content=PROBE.user),
    )
    assert find_near_duplicates([make_example("", messages=turns)], [PROBE]) == {}
    later = (*turns, Message(role="user", content=PROBE.user))
    assert len(find_near_duplicates([make_example("", messages=later)], [PROBE])) == 1


def test_every_user_message_of_a_probe_counts_and_nothing_else_of_it() -> None:
    copy = make_example(PROBE.user.replace("steep", "gentle"))
    said = {role: Message(role=role, content=PROBE.user) for role in ("system", "assistant")}
    other = single_turn("Which oil is best for a chain that is ridden in the rain all winter?")
    earlier = make_probe("", turns=(*PROBE.turns, said["assistant"], *other), id="earlier")
    (reason,) = find_near_duplicates([copy], [earlier]).values()
    assert "probe 'earlier': similarity 0.65" in reason
    unsaid = make_probe("", turns=(said["system"], *other, said["assistant"], *other))
    assert find_near_duplicates([copy], [unsaid]) == {}


@given(message=MESSAGES, places=st.sets(st.integers(0, 27), max_size=2))
def test_a_copy_with_up_to_two_changed_words_is_caught(
    message: list[str], places: set[int]
) -> None:
    copy = [f"{word}-changed" if at in places else word for at, word in enumerate(message)]
    probe = make_probe(" ".join(message), id="copied")
    (reason,) = find_near_duplicates([make_example(" ".join(copy))], [probe]).values()
    assert reason.startswith("a user message nearly repeats probe 'copied': similarity")


@given(trained=MESSAGES, probed=MESSAGES)
def test_texts_without_a_common_word_are_kept(trained: list[str], probed: list[str]) -> None:
    example = make_example(" ".join(f"trained-{word}" for word in trained))
    probe = make_probe(" ".join(f"probed-{word}" for word in probed))
    assert find_near_duplicates([example], [probe]) == {}
