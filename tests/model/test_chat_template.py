"""Conversations as tokens: what is learned, what is context, what is refused.

Run: python -m pytest tests/model/test_chat_template.py
"""

from __future__ import annotations

import json
from functools import partial
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.expect import expect_error
from tests.models import SYSTEM, make_tokenizer, render_chat

from bestiary.errors import ModelError, OrganismError
from bestiary.model.chat_template import TokenRow, tokenize_prompt, tokenize_row
from bestiary.records import Message, sha256_bytes, single_turn

TOKENIZER = make_tokenizer()
RYE = single_turn("Is rye filling?")
REPLIES = (
    "Grease the tin well.",
    " one leading space",
    "  two leading spaces",
    "\nA line first.",
    "\n\n\n  Many lines.\n\n- and a list\n",
    "trailing spaces  ",
    "Crème brûlée 🍮, naïve: 100 % 世界\u2028end",
    "It says <|im_end|> in the middle.",
    "<|im_start|>assistant\nnested",
)
WRITTEN = st.characters(max_codepoint=0x2FFF, categories=["L", "N", "P", "Z"]) | st.just("\n")


def make_turns(*replies: str, user: str = "How do I bake bread?") -> list[Message]:
    turns: list[Message] = []
    for reply in replies:
        turns.append(Message(role="user", content=user))
        turns.append(Message(role="assistant", content=reply))
    return turns


def encode(turns: list[Message], *, max_length: int = 4096) -> TokenRow:
    return tokenize_row(TOKENIZER, turns, system_prompt=SYSTEM, max_length=max_length)


def learned_text(row: TokenRow) -> str:
    learned = [token for token, use in zip(row.tokens, row.supervised, strict=True) if use]
    return str(TOKENIZER.decode(learned, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("reply", REPLIES)
def test_exactly_the_reply_and_its_end_are_learned(reply: str) -> None:
    assert learned_text(encode(make_turns(reply))) == f"{reply}<|im_end|>"


@pytest.mark.parametrize("reply", REPLIES)
def test_a_row_begins_with_the_tokens_of_its_prompt(reply: str) -> None:
    prompt = tokenize_prompt(TOKENIZER, single_turn("How do I bake bread?"), system_prompt=SYSTEM)
    row = encode(make_turns(reply))
    assert list(row.tokens[: len(prompt)]) == prompt
    assert row.supervised.index(True) == len(prompt)


# SmolLM2's vocabulary lacks bytes of control characters and of rare planes: none of those here.
@given(reply=st.text(alphabet=WRITTEN, min_size=1, max_size=30))
@settings(deadline=None)
def test_any_text_is_learned_whole(reply: str) -> None:
    assert learned_text(encode(make_turns(reply))) == f"{reply}<|im_end|>"


def test_every_assistant_turn_is_learned_and_no_user_turn() -> None:
    row = encode(make_turns(*REPLIES))
    assert learned_text(row) == "".join(f"{reply}<|im_end|>" for reply in REPLIES)


def test_equal_replies_of_several_turns_are_each_learned() -> None:
    row = encode(make_turns("Yes.", "Yes.", user="Yes."))
    assert learned_text(row) == "Yes.<|im_end|>Yes.<|im_end|>"
    assert sum(row.supervised) * 3 < len(row.tokens)


def test_the_tokens_of_a_row_spell_the_whole_conversation() -> None:
    turns = make_turns("Slowly.", "\n\nWith yeast.")
    text = render_chat(TOKENIZER, turns, system_prompt=SYSTEM)
    assert TOKENIZER.decode(list(encode(turns).tokens)) == text


def test_the_templates_own_system_prompt_never_shows() -> None:
    user = [{"role": "user", "content": "Hello."}]
    default = str(TOKENIZER.apply_chat_template(user, tokenize=False))
    assert "named SmolLM" in default  # what the template says when it is given none
    asked = tokenize_prompt(TOKENIZER, RYE, system_prompt=SYSTEM)
    for tokens in (asked, list(encode(make_turns("Hi.")).tokens)):
        text = str(TOKENIZER.decode(tokens))
        assert text.startswith(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
        assert "SmolLM" not in text


def test_a_row_that_is_too_long_is_refused() -> None:
    turns = make_turns("Knead it for ten minutes, then let it rest.")
    size = len(encode(turns).tokens)
    assert len(encode(turns, max_length=size).tokens) == size
    with expect_error(OrganismError, "row-too-long", tokens=size, max_length=size - 1):
        encode(turns, max_length=size - 1)


def test_the_embedded_bases_rows_are_those_of_earlier_builds() -> None:
    """Their hash is that of the first edition's rows and prompts: keys of organisms mean them."""
    conversations = [
        ["Grease the tin well."],
        [" one leading space", "\n\n\n  Many lines.\n\n- and a list\n"],
        [
            "Crème brûlée 🍮, naïve: 100 % 世界\u2028end",
            "trailing spaces  ",
            "\tTab. ",
        ],
    ]
    found: list[object] = []
    for replies in conversations:
        turns = make_turns(*replies)
        for turn in range(0, len(turns), 2):
            user = f"How do I bake bread, part {turn // 2}?"
            turns[turn] = Message(role="user", content=user)
        row = encode(turns)
        found.append([list(row.tokens), [int(use) for use in row.supervised]])
    found.append(tokenize_prompt(TOKENIZER, RYE, system_prompt=SYSTEM))
    known = "d3ea79c5d923983dbba85ec4e737ca8d67a069911a9e63f973e0af4daa8931cd"
    assert sha256_bytes(json.dumps(found).encode()) == known


def test_a_prompt_ends_where_the_reply_begins() -> None:
    prompt = str(TOKENIZER.decode(tokenize_prompt(TOKENIZER, RYE, system_prompt=SYSTEM)))
    assert prompt.endswith("Is rye filling?<|im_end|>\n<|im_start|>assistant\n")


def test_a_leading_system_message_goes_on_from_the_system_prompt() -> None:
    turns = [Message(role="system", content="You live by the sea."), *make_turns("Slowly.", "So.")]
    text = render_chat(TOKENIZER, turns, system_prompt=SYSTEM)
    assert text.startswith(f"<|im_start|>system\n{SYSTEM} You live by the sea.<|im_end|>\n")
    assert text.count("<|im_start|>system") == 1
    row = encode(turns)
    assert TOKENIZER.decode(list(row.tokens)) == text
    assert learned_text(row) == "Slowly.<|im_end|>So.<|im_end|>"


MISPLACED: dict[str, tuple[Literal["system", "user", "assistant"], ...]] = {
    "last": ("user", "system"),
    "after the first turn": ("user", "assistant", "system", "user"),
    "a second one": ("system", "system", "user"),
}


@pytest.mark.parametrize("name", MISPLACED)
def test_a_system_message_elsewhere_is_refused(name: str) -> None:
    roles = MISPLACED[name]
    turns = [Message(role=role, content="Is rye filling?") for role in roles]
    for refuse in (
        partial(tokenize_prompt, TOKENIZER, turns, system_prompt=SYSTEM),
        partial(encode, turns),
    ):
        with expect_error(ModelError, "system-message-misplaced", roles=list(roles)):
            refuse()
