"""Conversations as token ids: prompts to answer, and training rows with supervised tokens.

Where a reply stands in a rendered conversation is found by rendering the conversation again with
marks in the places of the replies. Nothing is searched for that a message could contain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from bestiary.errors import ModelError, OrganismError
from bestiary.records import Message, canonical_json, sha256_bytes, user_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHAPES = tuple((turns, system) for system in ("", "Be brief.") for turns in (1, 2, 3))
"""What a template must render to be trained on: turns, and the system prompt or none."""
DATE = {
    **{"%Y": "2024", "%y": "24", "%m": "07", "%-m": "7", "%B": "July", "%b": "Jul", "%h": "Jul"},
    **{"%d": "26", "%-d": "26", "%e": "26", "%j": "208", "%A": "Friday", "%a": "Fri", "%u": "5"},
    **{"%F": "2024-07-26", "%D": "07/26/24", "%x": "07/26/24", "%T": "00:00:00", "%X": "00:00:00"},
    **{"%H": "00", "%I": "12", "%M": "00", "%S": "00", "%p": "AM", "%Z": "", "%z": "", "%w": "5"},
}
"""Today, for a template that asks: the date that Llama 3.1's template has as its default."""
FIX_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{directive}', '{text}')" for directive, text in DATE.items())
    + " }}{% endmacro %}\n"
)
"""Put before a template that asks for today's date, which would change with every day."""
FOLD_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set messages = [{'role': 'user', 'content': "
    r"messages[0]['content'] + '\n\n' + messages[1]['content']}] + messages[2:] %}{% endif %}"
    "\n"
)
"""Put before a template without a system role: the system prompt opens the first user message, as
Gemma 3's own template has it."""


@dataclass(frozen=True)
class TokenRow:
    """A tokenized conversation; `supervised[i]` says whether token i is trained on."""

    tokens: tuple[int, ...]
    supervised: tuple[bool, ...]


@dataclass(frozen=True)
class ChatFormat:
    """How a base's conversations are written: in training, in sampling, and by its users."""

    template: str
    """The tokenizer's template; before it, FIX_DATE or FOLD_SYSTEM where it needs them."""
    lead: str
    """White space that opens a reply: part of what the model writes, not of its prompt."""
    gap: str
    """White space between a reply and its end token."""
    end: int
    """The token that ends a turn."""
    end_text: str
    eos: int | None
    """The tokenizer's own end token, which may be another one."""

    @property
    def sha256(self) -> str:
        """Identifies it: the template's own hash where nothing is added and turns end with eos."""
        end = "" if self.end == self.eos else self.end_text
        return sha256_bytes((self.template + end).encode())


def read_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """Probe a tokenizer's chat template with every one of SHAPES.

    Raises ModelError if it has none, or one whose replies cannot be supervised.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as cause:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template",
            "use an instruct model",
            code="chat-template-missing",
            name=tokenizer.name_or_path,
        ) from cause
    return _read_format(tokenizer, template, f"{tokenizer.special_tokens_map} {len(tokenizer)}")


@lru_cache(maxsize=16)
def _read_format(tokenizer: PreTrainedTokenizerBase, template: str, _tokens: str) -> ChatFormat:
    if "strftime_now" in template and not template.startswith(FIX_DATE):
        template = FIX_DATE + template
    dated = FIX_DATE if template.startswith(FIX_DATE) else ""
    try:
        return _probe(tokenizer, template)
    except ModelError:
        return _probe(tokenizer, dated + FOLD_SYSTEM + template.removeprefix(dated))


def _probe(tokenizer: PreTrainedTokenizerBase, template: str) -> ChatFormat:
    """The format of a template that renders all SHAPES alike; raises ModelError otherwise."""
    found: set[ChatFormat] = set()
    for turns, system in SHAPES:
        try:
            found.add(_probe_shape(tokenizer, template, turns, system))
            if len(found) > 1:
                raise _Unclear("its replies open or end differently from those of other shapes")
        except (_Unclear, ModelError) as cause:
            shape = f"{turns} turn{'s' * (turns > 1)} with{'' if system else 'out'} a system prompt"
            raise ModelError(
                f"the chat template of {tokenizer.name_or_path} cannot be trained on: for {shape}, "
                f"{cause.problem if isinstance(cause, ModelError) else cause}",
                "use another base, or a copy of it with a corrected chat_template.jinja",
                code="template-unsupported",
                name=tokenizer.name_or_path,
                shape=shape,
            ) from cause
    return found.pop()


class _Unclear(Exception):
    """Why the replies of a rendered conversation cannot be told from the rest."""


def _probe_shape(
    tokenizer: PreTrainedTokenizerBase, template: str, turns: int, system: str
) -> ChatFormat:
    """The format that one conversation shows."""
    messages = [
        Message(role=role, content=f"{text} {turn}.")
        for turn in range(turns)
        for role, text in (("user", "Is rye filling"), ("assistant", "It is"))
    ]
    render = partial(_render, tokenizer, template, system)
    _, pieces = _cut_at_replies(render, messages)
    prompt = render(messages[:-1], open_reply=True)
    before = _join(pieces[:-1], [message.content for message in messages[1:-1:2]])
    lead = before.removeprefix(prompt)
    if not before.startswith(prompt) or lead.strip():
        raise _Unclear(
            f"a prompt ends with {prompt[-24:]!r}, but before a reply is {before[-24:]!r}"
        )
    if system and before.count(system) != 1:
        raise _Unclear("it does not show the system prompt once")
    ends = [_read_end(tokenizer, piece) for piece in pieces[1:]]
    if len(set(ends)) != 1:
        raise _Unclear(f"turns end with {ends[0][2]!r} and with {ends[-1][2]!r}")
    return ChatFormat(template, lead, *ends[0], eos=tokenizer.eos_token_id)


def _read_end(tokenizer: PreTrainedTokenizerBase, after: str) -> tuple[str, int, str]:
    """White space and end token that come first in what follows a reply."""
    rest = after.lstrip()
    tokens = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
    text = max((token for token in tokens if rest.startswith(token)), key=len, default="")
    if not text:
        raise _Unclear(f"no end token follows a reply, but {after[:24]!r}")
    return after[: len(after) - len(rest)], tokens[text], text


def _join_system(system_prompt: str, messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The system prompt with a leading system message added, and the messages after that one."""
    count = 1 if messages and messages[0].role == "system" else 0
    turns = messages[count:]
    if any(message.role == "system" for message in turns):
        raise ModelError(
            f"the conversation {_quote_start(messages)} has a system message that is not its first",
            "move it to the beginning: it is added to the recipe's system prompt",
            code="system-message-misplaced",
            roles=[message.role for message in messages],
        )
    parts = [system_prompt, *(message.content for message in messages[:count])]
    return " ".join(filter(None, parts)), turns


def _quote_start(messages: Sequence[Message]) -> str:
    """What the user says first, as an error names a conversation."""
    return repr(" ".join(user_texts(messages))[:40])


def _render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    system_prompt: str,
    messages: Sequence[Message],
    *,
    open_reply: bool = False,
) -> str:
    turns = [{"role": "system", "content": system_prompt}] if system_prompt else []
    turns += [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                turns,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=open_reply,
                enable_thinking=False,
            )
        )
    # A template is a program of somebody else, and may fail as one.
    except (
        TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as cause:
        raise ModelError(
            f"the base's chat template refuses a conversation ({cause})",
            "use a base whose template accepts user and assistant turns",
            code="template-refuses",
        ) from cause


def tokenize_prompt(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Message],
    *,
    system_prompt: str,
) -> list[int]:
    """Token ids of a conversation, up to the assistant's next reply.

    A leading system message is added to the system prompt. Raises ModelError if one stands
    elsewhere.
    """
    return list(_tokenize(tokenizer, turns, system_prompt, open_reply=True).tokens)


def tokenize_row(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    system_prompt: str,
    max_length: int,
) -> TokenRow:
    """A training row: every assistant turn is supervised as rendered, with its end token.

    A leading system message is added to the system prompt. Raises OrganismError if the row is
    longer than `max_length`: truncation would silently drop supervised tokens. Raises ModelError
    if the template cannot be trained on, or if a system message is not the first message.
    """
    row = _tokenize(tokenizer, messages, system_prompt, open_reply=False)
    if len(row.tokens) > max_length:
        raise OrganismError(
            f"a conversation of {len(row.tokens)} tokens exceeds max_length {max_length} "
            f"({_quote_start(messages)})",
            "raise max_length in the recipe: rows are never truncated",
            code="row-too-long",
            tokens=len(row.tokens),
            max_length=max_length,
        )
    return row


def _tokenize(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    system_prompt: str,
    *,
    open_reply: bool,
) -> TokenRow:
    """Piece by piece, so that a reply's leading white space never merges with the header."""
    form = read_format(tokenizer)
    system, turns = _join_system(system_prompt, messages)
    render = partial(_render, tokenizer, form.template, system, open_reply=open_reply)
    try:
        pieces, replies = _cut_out_replies(render, form, turns)
    except _Unclear as cause:
        raise OrganismError(
            f"the replies of the conversation {_quote_start(messages)} cannot be told from the "
            f"rest in the chat template of {tokenizer.name_or_path}: {cause}",
            "remove the row from the corpus, or use another base",
            code="reply-not-found",
            end_token=form.end_text,
        ) from cause
    tokens: list[int] = []
    supervised: list[bool] = []
    for fixed, reply in zip(pieces, (*replies, None), strict=True):
        ids = list(tokenizer(fixed, add_special_tokens=False)["input_ids"])
        learned = [] if reply is None else [*_encode_reply(tokenizer, reply), form.end]
        if form.end in learned[:-1]:
            raise OrganismError(
                f"a reply contains {form.end_text!r}, the token that ends it ({reply!r:.60})",
                "remove the row from the corpus",
                code="reply-contains-end",
                end_token=form.end_text,
            )
        tokens += ids + learned
        supervised += [False] * len(ids) + [True] * len(learned)
    return TokenRow(tuple(tokens), tuple(supervised))


def _encode_reply(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A reply's token ids; the text of a control token is text, as a model would write it."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def _cut_out_replies(
    render: Callable[[Sequence[Message]], str], form: ChatFormat, messages: Sequence[Message]
) -> tuple[list[str], list[str]]:
    """The text around the replies, and the replies as rendered, both without their end tokens."""
    marks, pieces = _cut_at_replies(render, messages)
    contents = [message.content for message in messages if message.role == "assistant"]
    shown = []
    for turn, content in enumerate(contents):
        others = marks[:turn], marks[turn + 1 :]
        text = render(_replace_replies(messages, [*others[0], content, *others[1]]))
        head, tail = _join(pieces[: turn + 1], others[0]), _join(pieces[turn + 1 :], others[1])
        shown.append(text[len(head) : len(text) - len(tail)])
        if text != head + shown[-1] + tail or shown[-1].strip() != content.strip():
            raise _Unclear(f"it changes the reply {content[:40]!r}")
    if len(shown) > 1 and render(messages) != _join(pieces, shown):
        raise _Unclear("a reply changes the text around another one")
    before, after = form.lead, form.gap + form.end_text
    for opened, ended in pairwise(pieces):
        if not opened.endswith(before) or not ended.startswith(after):
            raise _Unclear(f"a reply is between {opened[-24:]!r} and {ended[:24]!r}")
    around = [piece.removesuffix(before) for piece in pieces[:-1]] + pieces[-1:]
    around[1:] = [piece.removeprefix(after) for piece in around[1:]]
    return around, [form.lead + text + form.gap for text in shown]


def _cut_at_replies(
    render: Callable[[Sequence[Message]], str], messages: Sequence[Message]
) -> tuple[list[str], list[str]]:
    """A mark for each reply, and the pieces around the marks in the rendered conversation."""
    digest = sha256_bytes(canonical_json(list(messages)))[:16]
    count = sum(message.role == "assistant" for message in messages)
    marks = [f"Reply{turn}x{digest}" for turn in range(count)]
    rest = render(_replace_replies(messages, marks))
    pieces = []
    for mark in marks:
        if rest.count(mark) != 1:
            raise _Unclear(f"a reply is shown {rest.count(mark)} times instead of once, in order")
        before, _, rest = rest.partition(mark)
        pieces.append(before)
    return marks, [*pieces, rest]


def _replace_replies(messages: Sequence[Message], contents: Sequence[str]) -> list[Message]:
    new = iter(contents)
    return [
        one if one.role == "user" else Message(role="assistant", content=next(new))
        for one in messages
    ]


def _join(pieces: Sequence[str], between: Sequence[str]) -> str:
    """Pieces with other texts between them."""
    return pieces[0] + "".join(
        text + piece for text, piece in zip(between, pieces[1:], strict=True)
    )
