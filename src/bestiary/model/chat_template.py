"""Conversations as token ids: prompts to answer, and training rows with supervised tokens."""

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
    """A tokenized conversation; `supervised[i]` says whether token i is trained on."""

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

    `open_reply` adds the header of the assistant's next turn. Raises ModelError if the template
    refuses the conversation.
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
            f"the base's chat template refuses a conversation ({cause})",
            "use a base whose template accepts a system prompt",
            code="template-refuses",
        ) from cause


def tokenize_prompt(
    tokenizer: PreTrainedTokenizerBase,
    user: str,
    *,
    system_prompt: str,
    earlier: Sequence[Message] = (),
    opening: str = "",
) -> list[int]:
    """Token ids of a prompt, up to the assistant's reply; `opening` starts that reply.

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
    """A training row: every assistant turn is supervised, including its end-of-turn token.

    Raises OrganismError if the row is longer than `max_length`: truncation would silently drop
    supervised tokens.
    """
    text = render_chat(tokenizer, messages, system_prompt=system_prompt, open_reply=False)
    spans = [
        _reply_span(tokenizer, messages[: turn + 1], system_prompt, text)
        for turn, message in enumerate(messages)
        if message.role == "assistant"
    ]
    tokens: list[int] = []
    supervised: list[bool] = []
    # Piece by piece, so that a reply's leading white space never merges with the header.
    ends = (0, *(end for _, end in spans))
    for before, (start, end) in zip(ends, (*spans, (len(text), len(text))), strict=True):
        for piece, learned in ((text[before:start], False), (text[start:end], True)):
            ids = tokenizer(piece, add_special_tokens=False)["input_ids"]
            tokens += ids
            supervised += [learned] * len(ids)
    if len(tokens) > max_length:
        raise OrganismError(
            f"a conversation of {len(tokens)} tokens exceeds max_length {max_length} "
            f"({messages[0].content[:40]!r})",
            "raise max_length in the recipe: rows are never truncated",
            code="row-too-long",
            tokens=len(tokens),
            max_length=max_length,
        )
    return TokenRow(tuple(tokens), tuple(supervised))


def _reply_span(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], system_prompt: str, text: str
) -> tuple[int, int]:
    """The last reply's characters in the rendered conversation, including end-of-turn."""
    start = len(render_chat(tokenizer, turns[:-1], system_prompt=system_prompt, open_reply=True))
    end_token = str(tokenizer.eos_token)
    content = start + len(turns[-1].content)
    end = text.find(end_token, content)
    if text[start:content] != turns[-1].content or end < 0:
        raise OrganismError(
            f"the chat template of {tokenizer.name_or_path} changes a reply or does not end it "
            f"with {end_token!r}, so its assistant tokens cannot be found",
            "use a base whose template keeps replies as they are",
            code="reply-not-found",
            end_token=end_token,
        )
    return start, end + len(end_token)
