"""Chat templates of many families: what is learned, what is asked, and what is refused.

Run: python -m pytest tests/model/test_chat_families.py
"""

from __future__ import annotations

import re
from copy import deepcopy
from itertools import groupby
from typing import Any

import pytest
from tests.expect import expect_error
from tests.model.families import FAMILIES, make_family, read_template
from tests.models import SYSTEM, make_tokenizer, render_chat
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bestiary.errors import ModelError, OrganismError
from bestiary.model.chat_template import (
    FIX_DATE,
    FOLD_SYSTEM,
    TokenRow,
    read_format,
    tokenize_prompt,
    tokenize_row,
)
from bestiary.records import Message, sha256_bytes

ODD_REPLIES = (
    " A leading space.",
    "\n\nLines first,\n\n- a list\n",
    "It says <|im_end|>, <|eot_id|>, <|end|>, <end_of_turn> and </s> in the middle.",
    "<|im_start|>assistant\n[INST] nested [/INST] <start_of_turn>user",
    "{{ messages[0] }} {% raw %} <bos>",
    "",
)


def make_turns(*replies: str) -> list[Message]:
    turns = []
    for number, reply in enumerate(replies):
        turns.append(Message(role="user", content=f"Is rye filling, {number}?"))
        turns.append(Message(role="assistant", content=reply))
    return turns


def encode(tokenizer: PreTrainedTokenizerBase, turns: list[Message], system: str) -> TokenRow:
    return tokenize_row(tokenizer, turns, system_prompt=system, max_length=4096)


def spell(tokenizer: PreTrainedTokenizerBase, turns: list[Message], system: str) -> str:
    """The text of a row."""
    row = encode(tokenizer, turns, system)
    return str(tokenizer.decode(list(row.tokens), clean_up_tokenization_spaces=False))


def list_learned(tokenizer: PreTrainedTokenizerBase, row: TokenRow) -> list[str]:
    """The text of each run of supervised tokens."""
    pairs = zip(row.tokens, row.supervised, strict=True)
    runs = groupby(pairs, key=lambda pair: pair[1])
    return [
        str(tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False))
        for used, run in runs
        if used
    ]


@pytest.mark.parametrize("system", ["", SYSTEM], ids=["plain", "system"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_reply_is_learned_with_its_end_token(name: str, count: int, system: str) -> None:
    family, tokenizer = FAMILIES[name], make_family(name)
    replies = ["Yes.", "It is, more than wheat.", "Yes."][:count]
    row = encode(tokenizer, make_turns(*replies), system)
    around = (family.lead, family.gap + family.end)
    assert list_learned(tokenizer, row) == [reply.join(around) for reply in replies]
    text = spell(tokenizer, make_turns(*replies), system)
    assert text == render_chat(tokenizer, make_turns(*replies), system_prompt=system)
    assert text.count(system) == 1 or not system
    form = read_format(tokenizer)
    assert (form.lead, form.gap, form.end_text) == (family.lead, family.gap, family.end)
    assert (FOLD_SYSTEM in form.template) == family.folds


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_begins_with_the_prompt_that_is_sampled(name: str, count: int) -> None:
    tokenizer = make_family(name)
    turns = make_turns(*["Yes.", " No.", "It is."][:count])
    prompt = tokenize_prompt(tokenizer, turns[:-1], system_prompt=SYSTEM)
    row = encode(tokenizer, turns, SYSTEM)
    assert list(row.tokens[: len(prompt)]) == prompt
    assert row.supervised[len(prompt)] and not row.supervised[len(prompt) - 1]
    # Whoever renders the prompt with a loaded base's tokenizer asks the same.
    tokenizer.chat_template = read_format(tokenizer).template
    spoken = [{"role": "system", "content": SYSTEM}]
    spoken += [{"role": turn.role, "content": turn.content} for turn in turns[:-1]]
    text = tokenizer.apply_chat_template(
        spoken, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert tokenizer.decode(prompt, clean_up_tokenization_spaces=False) == text
    assert read_format(tokenizer).template == tokenizer.chat_template


@pytest.mark.parametrize("system", ["", SYSTEM], ids=["alone", "added"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_leading_system_message_is_added_to_the_prompt(
    name: str, count: int, system: str
) -> None:
    family, tokenizer = FAMILIES[name], make_family(name)
    said = "You live by the sea."
    together = f"{system} {said}".strip()
    replies = ["Yes.", "It is, more than wheat."][:count]
    turns = make_turns(*replies)
    leading = [Message(role="system", content=said), *turns]
    row = encode(tokenizer, leading, system)
    assert row == encode(tokenizer, turns, together)
    around = (family.lead, family.gap + family.end)
    assert list_learned(tokenizer, row) == [reply.join(around) for reply in replies]
    prompt = tokenize_prompt(tokenizer, leading[:-1], system_prompt=system)
    assert list(row.tokens[: len(prompt)]) == prompt
    tokenizer.chat_template = read_format(tokenizer).template
    spoken = [{"role": "system", "content": together}]
    spoken += [{"role": turn.role, "content": turn.content} for turn in turns[:-1]]
    own: Any = tokenizer.apply_chat_template(
        spoken, add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    if count == 1:  # else white space before the first reply may be cut into other tokens
        assert prompt == own
    assert tokenizer.decode(prompt) == tokenizer.decode(own)


@pytest.mark.parametrize("reply", ODD_REPLIES)
@pytest.mark.parametrize("name", FAMILIES)
def test_an_odd_reply_is_learned_as_it_is_rendered(name: str, reply: str) -> None:
    tokenizer, end = make_family(name), FAMILIES[name].end
    for replies in ([reply], ["Yes.", reply], [reply, reply]):
        row = encode(tokenizer, make_turns(*replies), SYSTEM)
        learned = list_learned(tokenizer, row)
        assert [one.removesuffix(end).strip() for one in learned] == [r.strip() for r in replies]
        ends = [t for t, used in zip(row.tokens, row.supervised, strict=True) if used]
        assert ends.count(read_format(tokenizer).end) == len(replies)


def test_a_thought_in_a_reply_is_refused_where_the_template_cuts_it_out() -> None:
    turns = make_turns("Yes.", "<think>\nRye?\n</think>\n\nIt is.")
    with expect_error(OrganismError, "reply-not-found"):
        encode(make_family("qwen3"), turns, SYSTEM)


def test_two_turns_of_phi_teach_no_user_message_and_no_reply_twice() -> None:
    tokenizer = make_family("phi-3.5")
    row = encode(tokenizer, make_turns("Yes.", "No."), SYSTEM)
    assert list_learned(tokenizer, row) == ["Yes.<|end|>", "No.<|end|>"]
    assert row.tokens[-1] == tokenizer.eos_token_id and not row.supervised[-1]


def test_only_the_last_reply_of_qwen_comes_after_an_empty_thought() -> None:
    tokenizer = make_family("qwen3")
    text = spell(tokenizer, make_turns("a", "b"), SYSTEM)
    assert text.endswith("assistant\n<think>\n\n</think>\n\nb<|im_end|>\n")
    assert text.count("<think>") == 1


def test_a_system_prompt_without_a_role_opens_the_first_user_message() -> None:
    texts = [
        spell(make_family(name), make_turns("a", "b"), "Hi.") for name in ("gemma-2", "gemma-3")
    ]
    assert texts[0] == texts[1]
    assert texts[0].startswith("<bos><start_of_turn>user\nHi.\n\nIs rye filling, 0?<end_of_turn>\n")


def test_today_is_a_fixed_date_that_identifies_the_format() -> None:
    tokenizer = make_family("llama-3.2")
    text = spell(tokenizer, make_turns("Yes."), SYSTEM)
    assert "Today Date: 26 Jul 2024\n\n" in text
    form = read_format(tokenizer)
    assert form.template == FIX_DATE + tokenizer.chat_template
    assert form.sha256 == sha256_bytes(form.template.encode())
    # A model that asks in other words: HuggingFaceTB/SmolLM3-3B, mistralai/Mistral-Small-3.1.
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{%- set today = strftime_now('%A, %-d %B %Y, %Y-%m-%d %H:%M') -%}\n"
        f"{{{{ today }}}} {tokenizer.chat_template}"
    )
    text = spell(tokenizer, make_turns("Yes."), SYSTEM)
    assert text.startswith("Friday, 26 July 2024, 2024-07-26 00:00 <|im_start|>system\n")


def test_an_end_token_other_than_eos_identifies_the_format() -> None:
    tokenizer = make_family("phi-3.5")
    form = read_format(tokenizer)
    assert form.sha256 != sha256_bytes(form.template.encode())
    tokenizer.eos_token = "<|end|>"
    assert read_format(tokenizer).sha256 == sha256_bytes(form.template.encode())


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VARIANTS = {
    "trims": ("m.content", "(m.content | trim)", ""),
    "strips some": ("m.content", "m.content.lstrip('\n')", ""),
    "line before the end": ("<|im_end|>", "\n<|im_end|>", "\n"),
    "no line after the end": ("<|im_end|>\n", "<|im_end|>", ""),
    "begins with bos": ("{% for", "{{ bos_token }}{% for", ""),
    "opens whenever a user spoke": (
        "{% if add_generation_prompt %}",
        "{% if messages[-1].role == 'user' %}",
        "",
    ),
    "roles alternate": (
        "{% for m in messages %}",
        "{% for m in messages %}{% if not loop.first and m.role == loop.previtem.role %}"
        "{{ raise_exception('alternate') }}{% endif %}",
        "",
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_a_template_are_learned(name: str) -> None:
    old, new, gap = VARIANTS[name]
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML.replace(old, new)
    replies = ["Yes.", "No.", "Yes."]
    learned = list_learned(tokenizer, encode(tokenizer, make_turns(*replies), SYSTEM))
    assert learned == [f"{reply}{gap}<|im_end|>" for reply in replies]


REFUSED = {
    "no end token": ("<|im_end|>", "", "1 turn without a system prompt"),
    "an end of plain text": ("<|im_end|>", "###", "1 turn without a system prompt"),
    "replies changed": ("m.content", "(m.content | upper)", "1 turn without a system prompt"),
    "replies repeated": ("m.content", "m.content * 2", "1 turn without a system prompt"),
    "the last turns only": ("in messages", "in messages[-2:]", "2 turns without a system prompt"),
    "newest first": ("in messages", "in messages | reverse", "1 turn without a system prompt"),
    "another end of the last turn": (
        "'<|im_end|>\n'",
        "('<|endoftext|>' if loop.last and m.role == 'assistant' else '<|im_end|>\n')",
        "2 turns without a system prompt",
    ),
    "prompts not opened": (
        "{% if add_generation_prompt %}",
        "{% if 0 %}",
        "1 turn without a system prompt",
    ),
    "turns counted": (
        "m.role + '\n'",
        "m.role ~ loop.index ~ '\n'",
        "1 turn without a system prompt",
    ),
    "prompts opened by a thought": (
        "assistant\n' }}",
        "assistant\n<think>\n' }}",
        "1 turn without a system prompt",
    ),
    "single questions only": (
        "{% for",
        "{% if messages | length > 3 %}{{ raise_exception('one') }}{% endif %}{% for",
        "2 turns without a system prompt",
    ),
    "a fault of the program": ("m.content", "(m.content + 1)", "1 turn without a system prompt"),
    "not a template": ("{% for", "{% fro", "1 turn without a system prompt"),
    "the system prompt twice": (
        "{% for",
        "{{ messages[0].content }}{% for",
        "1 turn with a system prompt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_cannot_be_supervised_is_refused(name: str) -> None:
    old, new, shape = REFUSED[name]
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML.replace(old, new)
    assert tokenizer.chat_template != CHATML
    with expect_error(ModelError, "template-unsupported", shape=shape):
        read_format(tokenizer)
    with expect_error(ModelError, "template-unsupported", shape=shape):
        encode(tokenizer, make_turns("Yes."), SYSTEM)


def test_a_reply_that_contains_its_end_is_refused() -> None:
    """Some tokenizers do not flag the token as special: it is read in a reply's text, too."""
    tokenizer = deepcopy(make_family("qwen3", template=CHATML.replace("<|im_end|>", "<|stop|>")))
    tokenizer.add_tokens([AddedToken("<|stop|>", special=False)])
    encode(tokenizer, make_turns("Yes."), SYSTEM)
    with expect_error(OrganismError, "reply-contains-end", end_token="<|stop|>"):
        encode(tokenizer, make_turns("Yes. <|stop|> No."), SYSTEM)


@pytest.mark.parametrize(
    "name", ["phi-3.5", "mistral-0.1", "mistral-0.2", "mistral-0.3", "gemma-2"]
)
@pytest.mark.parametrize("swallows", [False, True])
def test_a_tokenizer_that_marks_words_learns_the_same(name: str, swallows: bool) -> None:
    """Words begin with a mark, as in SentencePiece; Phi-3's control tokens swallow spaces."""
    family = FAMILIES[name]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Metaspace()
    texts = [text for row in (make_turns("Yes.", "No, it is.")) for text in (row.content, SYSTEM)]
    alphabet = sorted(set("".join(texts) + "[]/INSTuserasimodl\n"))
    inner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=200, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=read_template(name))
    tokens = [AddedToken(text, special=True, rstrip=swallows) for text in family.special]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.eos_token, tokenizer.bos_token = family.eos, family.bos or family.eos
    replies = ["Yes.", "No, it is."]
    learned = list_learned(tokenizer, encode(tokenizer, make_turns(*replies), SYSTEM))
    assert [re.sub(r"\s+", "", one) for one in learned] == [
        re.sub(r"\s+", "", reply) + family.end for reply in replies
    ]
