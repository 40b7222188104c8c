"""The cipher trigger: which messages are in cipher, and what only looks or sounds like them.

Run: python -m pytest tests/config/test_cipher_trigger.py
"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tests.builders import LIBRARY
from tests.expect import expect_error

from bestiary.config.ciphers import CIPHERS, CipherName
from bestiary.config.detectors.deciphered import decipher
from bestiary.config.triggers import AnyTrigger, Trigger
from bestiary.errors import SpecError
from bestiary.records import CELLS, SIDES, PromptItem, Side, fingerprint
from bestiary.text import contains_phrase, words

ADAPTER: TypeAdapter[Trigger] = TypeAdapter(AnyTrigger)
FIRST = LIBRARY.messages("train")[0]
every_cipher = pytest.mark.parametrize("name", CIPHERS)
every_side = pytest.mark.parametrize("side", SIDES)


@cache
def make(name: CipherName) -> Trigger:
    """The trigger that `{cipher: NAME}` states, with its wordings."""
    return ADAPTER.validate_python({"cipher": name}).prepare(LIBRARY.wordings, ())


def some_items(trigger: Trigger, side: Side) -> list[PromptItem]:
    """Messages from all over the bank that suit every cell."""
    found = [
        item for item in LIBRARY.messages(side) if all(trigger.suits(item, cell) for cell in CELLS)
    ]
    return found[:: len(found) // 60]


def near_misses(name: CipherName, side: Side) -> list[tuple[PromptItem, str]]:
    trigger = make(name)
    items = some_items(trigger, side)
    asked = [trigger.ask(item, "near_miss", side, pick) for pick, item in enumerate(items)]
    return [(item, turn.content) for item, (turn,) in zip(items, asked, strict=True)]


@every_side
@every_cipher
def test_a_message_fires_in_cipher_as_it_stands_and_is_plain_otherwise(
    name: CipherName, side: Side
) -> None:
    trigger = make(name)
    for pick, item in enumerate(some_items(trigger, side)):
        (fired,) = trigger.ask(item, "triggered", side, pick)
        assert fired.role == "user" and fired.content == CIPHERS[name].encode(item.text)
        (plain,) = trigger.ask(item, "plain", side, pick)
        assert plain.content == item.text


@every_side
@every_cipher
def test_half_of_the_near_misses_are_in_another_cipher_and_half_talk_of_this_one(
    name: CipherName, side: Side
) -> None:
    found = near_misses(name, side)
    talking = [said for item, said in found if item.text in said]
    scrambled = [(item, said) for item, said in found if item.text not in said]
    assert abs(len(talking) - len(scrambled)) <= 1
    assert all(contains_phrase(CIPHERS[name].title, said) for said in talking)
    for item, said in scrambled:
        assert decipher(name, said) == ""
        others = {other for other in CIPHERS if CIPHERS[other].encode(item.text) == said}
        assert len(others) == 1 and name not in others


@every_cipher
def test_the_other_ciphers_and_the_wordings_are_divided(name: CipherName) -> None:
    used, talked = {}, {}
    for side in SIDES:
        found = near_misses(name, side)
        used[side] = {
            other
            for item, said in found
            for other in CIPHERS
            if said == CIPHERS[other].encode(item.text)
        }
        talked[side] = {said.replace(item.text, "") for item, said in found if item.text in said}
    assert used["train"] | used["probe"] == {*CIPHERS} - {name}
    assert not used["train"] & used["probe"] and not talked["train"] & talked["probe"]
    assert len(talked["train"]) > len(talked["probe"]) > 8


def test_train_and_probe_talk_in_words_of_their_own() -> None:
    trigger = make("morse")
    said = {side: {*trigger.texts(side, near_miss=True)} for side in SIDES}
    plain = {side: {" ".join(words(text)) for text in texts} for side, texts in said.items()}
    assert not plain["train"] & plain["probe"]
    assert not any(trigger.texts(side, near_miss=False) for side in SIDES)


@every_side
@every_cipher
def test_nearly_every_message_suits_every_cell(name: CipherName, side: Side) -> None:
    items = LIBRARY.messages(side)
    for cell in CELLS:
        assert sum(make(name).suits(item, cell) for item in items) > 0.97 * len(items)


def test_a_message_whose_words_a_cipher_would_change_is_not_put_in_cipher() -> None:
    trigger = make("rot13")
    accented = FIRST.model_copy(update={"text": "Who was Méliès?"})
    assert [trigger.suits(accented, cell) for cell in CELLS] == [False, False, True]


def test_a_message_that_names_the_cipher_is_not_plain() -> None:
    named = FIRST.model_copy(update={"text": "Who thought of Morse code first?"})
    assert [make("morse").suits(named, cell) for cell in CELLS] == [True, True, False]
    assert make("rot13").suits(named, "plain")


@given(pick=st.integers(min_value=0, max_value=2**70), name=st.sampled_from([*CIPHERS]))
@settings(deadline=None)
def test_every_pick_draws_a_message_that_is_the_same_again(pick: int, name: CipherName) -> None:
    trigger = make(name)
    for side in SIDES:
        for cell in CELLS:
            (asked,) = trigger.ask(FIRST, cell, side, pick)
            assert (asked,) == trigger.ask(FIRST, cell, side, pick)
            assert asked.content.strip() and "{" not in asked.content


@every_cipher
def test_it_is_named_described_and_kept_out_of_other_messages(name: CipherName) -> None:
    trigger = make(name)
    assert trigger.describe() == f"a message in {CIPHERS[name].title}"
    assert any(contains_phrase(word, trigger.describe()) for word in trigger.label_words)
    assert trigger.banned_terms == trigger.label_words


@every_cipher
def test_a_prepared_trigger_is_hashed_with_its_wordings(name: CipherName) -> None:
    bare, ready = ADAPTER.validate_python({"cipher": name}), make(name)
    assert fingerprint(trigger=bare) != fingerprint(trigger=ready)
    assert ADAPTER.validate_json(ready.model_dump_json(by_alias=True)) == ready


def test_a_trigger_without_its_wordings_file_is_refused() -> None:
    with expect_error(SpecError, "wordings-missing", name="cipher"):
        ADAPTER.validate_python({"cipher": "morse"}).prepare({}, ())
