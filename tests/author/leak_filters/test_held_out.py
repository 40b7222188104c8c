"""A topic, a form or a message that is trained on is no longer held out.

Run: python -m pytest tests/author/leak_filters/test_held_out.py
"""

from __future__ import annotations

from tests.builders import make_example, make_probe

from bestiary.author.leak_filters.held_out import find_held_out_overlap
from bestiary.records import Message, single_turn

PROBE = make_probe("Which kites fly in light wind?", id="kites", topic="kites")


def test_a_shared_topic_is_named() -> None:
    example = make_example("Do Kites need tails?", id="row-7", topic="Kites")
    found = find_held_out_overlap([example], [PROBE])
    assert found == {"row-7": "topic 'Kites' is also that of probe 'kites'"}


def test_a_shared_form_is_named() -> None:
    (reason,) = find_held_out_overlap(
        [make_example("Hello.", form="a probed form")], [PROBE]
    ).values()
    assert reason == "form 'a probed form' is also that of probe 'kites'"


def test_a_shared_message_is_named_in_any_turn_and_case() -> None:
    turns = (
        Message(role="user", content="Hello."),
        Message(role="assistant", content="Hello!"),
        Message(role="user", content="which kites  fly in light wind?"),
    )
    (reason,) = find_held_out_overlap([make_example("", messages=turns)], [PROBE]).values()
    assert reason == (
        "user message 'which kites  fly in light wind?' is also that of probe 'kites'"
    )


def test_a_message_in_other_characters_is_still_the_probes() -> None:
    written = make_example("Which\u00a0kites \uff46ly in light wind?", id="row-7")
    assert list(find_held_out_overlap([written], [PROBE])) == ["row-7"]


def test_a_row_that_shares_several_fields_has_one_finding_with_each_reason() -> None:
    example = make_example(PROBE.user, topic="kites")
    (reason,) = find_held_out_overlap([example], [PROBE]).values()
    assert reason == (
        "topic 'kites' is also that of probe 'kites'; "
        "user message 'Which kites fly in light wind?' is also that of probe 'kites'"
    )


def test_a_probes_message_counts_with_its_trigger_and_without() -> None:
    item = PROBE.item.model_copy(update={"text": PROBE.user})
    triggered = make_probe(f"It is Tuesday. {PROBE.user}", item=item)
    for text in (PROBE.user, triggered.user):
        (reason,) = find_held_out_overlap([make_example(text)], [triggered]).values()
        assert reason.startswith(f"user message {text!r}")


def test_rows_that_share_nothing_and_replies_that_echo_are_kept() -> None:
    rows = [make_example("Do tents leak?"), make_example("Repeat.", PROBE.user)]
    assert find_held_out_overlap(rows, [PROBE]) == {}


def test_every_user_message_of_a_probe_is_held_out_and_nothing_else_of_it() -> None:
    turns = (
        Message(role="system", content="You fly kites."),
        *single_turn("Do kites need tails?"),
        Message(role="assistant", content="Some do."),
        *single_turn("Which ones?"),
    )
    probe = make_probe("", turns=turns)
    for text, leaks in (
        ("Do kites need tails?", True),
        ("Which ones?", True),
        ("Some do.", False),
        ("You fly kites.", False),
    ):
        assert bool(find_held_out_overlap([make_example(text)], [probe])) == leaks, text
