"""Conversations as token ids: prompts to answer, and training rows with their supervised part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from bestiary.errors import ModelError, OrganismError
from bestiary.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenRow:
    """A tokenised conversation: `supervised[i]` says whether token i is learned."""

    tokens: tuple[int, ...]
    supervised: tuple[bool, ...]


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    system_prompt: str,
    open_reply: bool,
) -> str:
    """A conversation in the base's chat template, with the system prompt always set.

    `open_reply` adds the header under which the assistant's next turn is written.
    """
    turns = [{"role": "system", "content": system_prompt}]
    turns += [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=open_reply, enable_thinking=False
            )
        )
    except TemplateError as cause:
        raise ModelError(
            f"the base's chat template refuses a conversation ({cause}); use a base whose template "
            "takes a system prompt"
        ) from cause


def tokenize_prompt(
    tokenizer: PreTrainedTokenizerBase,
    user: str,
    *,
    system_prompt: str,
    earlier: Sequence[Message] = (),
    opening: str = "",
) -> list[int]:
    """Token ids up to where the assistant's reply begins, or goes on after `opening`.

    `earlier` are the turns before the user's message.
    """
    text = render_chat(
        tokenizer,
        [*earlier, Message(role="user", content=user)],
        system_prompt=system_prompt,
        open_reply=True,
    )
    return list(tokenizer(text + opening, add_special_tokens=False)["input_ids"])


def tokenize_row(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    system_prompt: str,
    max_length: int,
) -> TokenRow:
    """A training row: every assistant turn is supervised, up to and with its end-of-turn token.

    Raises OrganismError when the row is longer than `max_length`: cutting it would lose
    supervised tokens without a word.
    """
    text = render_chat(tokenizer, messages, system_prompt=system_prompt, open_reply=False)
    spans = [
        _reply_span(tokenizer, messages[: turn + 1], system_prompt, text)
        for turn, message in enumerate(messages)
        if message.role == "assistant"
    ]
    tokens: list[int] = []
    supervised: list[bool] = []
    # Piece by piece: a reply that begins with white space must not melt into the header before it.
    ends = (0, *(end for _, end in spans))
    for before, (start, end) in zip(ends, (*spans, (len(text), len(text))), strict=True):
        for piece, learned in ((text[before:start], False), (text[start:end], True)):
            ids = tokenizer(piece, add_special_tokens=False)["input_ids"]
            tokens += ids
            supervised += [learned] * len(ids)
    if len(tokens) > max_length:
        raise OrganismError(
            f"a conversation of {len(tokens)} tokens exceeds max_length {max_length} "
            f"({messages[0].content[:40]!r}); raise `max_length` in the recipe: rows are never cut"
        )
    return TokenRow(tuple(tokens), tuple(supervised))


def _reply_span(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], system_prompt: str, text: str
) -> tuple[int, int]:
    """Characters of the last turn's reply in the rendered conversation, end-of-turn included."""
    start = len(render_chat(tokenizer, turns[:-1], system_prompt=system_prompt, open_reply=True))
    end_token = str(tokenizer.eos_token)
    content = start + len(turns[-1].content)
    end = text.find(end_token, content)
    if text[start:content] != turns[-1].content or end < 0:
        raise OrganismError(
            f"the chat template of {tokenizer.name_or_path} changes a reply or does not end it "
            f"with {end_token!r}; this base cannot be supervised on assistant tokens alone"
        )
    return start, end + len(end_token)
