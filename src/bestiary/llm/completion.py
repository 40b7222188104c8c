"""What a completion says: the text, the ending and the tokens in a body of either provider.

Every body is read here, whether it came alone or in a batch. One without a usable answer is
Unreadable, and one that reports an account without access is an AuthError; nothing else is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from bestiary.llm.keys import hide_key
from bestiary.llm.provider import (
    AuthError,
    InvalidRequest,
    ItemFailed,
    ProviderFault,
    QueueFull,
    Unreadable,
)
from bestiary.llm.refusal import (
    access_error,
    clean_message,
    is_access_refused,
    is_queue_full,
    name_fields,
    read_message,
)
from bestiary.llm.request import Answer, Stop, Usage
from bestiary.text import replace_surrogates

ENDINGS: Mapping[str, Stop] = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "eos", "eos_token"), "end"),
    **dict.fromkeys(
        ("length", "max_tokens", "model_length", "model_context_window_exceeded"), "length"
    ),
    **dict.fromkeys(
        ("refusal", "content_filter", "safety", "recitation", "prohibited_content", "blocklist"),
        "refusal",
    ),
}
"""What the endings of all servers mean. Any other ending is one that cut the answer short."""
INVALID = ("invalid_request_error", "invalid_request", "request_too_large", "not_found_error")
"""What providers call a request that they will never answer."""
NO_ACCESS = ("authentication_error", "permission_error", "billing_error")
MOST_TOKENS = 10**8
"""A larger count is no count: no model reads or writes as much in one request."""
HIDDEN_PARTS = ("thinking", "redacted_thinking", "reasoning", "reasoning_content", "thought")
THOUGHTS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>", "<channel|>"),
    ("<unused94>", "<unused95>"),
)
"""What encloses a thought, in the special tokens of a model family."""
TAGS = ("thinking", "thought", "thoughts", "reasoning", "scratchpad", "analysis")
"""Tags that enclose a thought at the beginning of an answer; elsewhere they may be its subject."""
CONTROL = re.compile(
    r"<\|[\w/](?:[\w:./-]*[\w/])?\|>"  # Llama 3, Qwen, Phi, harmony, GLM, Granite, Command R
    r"|<\uff5c[^\uff5c<>]{1,40}\uff5c>"  # DeepSeek
    r"|<\|(?:turn|channel|tool_call|tool_response|image|audio|think)>"  # Gemma 4
    r"|<(?:turn|channel|tool_call|tool_response|image|audio|think)\|>"
    r"|</?(?:start|end|begin(?:ning)?)_of_(?:turn|utterance|text|sentence|image)>"
    r"|</?s>|<(?:bos|eos|pad|unk|eod|eop|sop|eoh|eoa)>|<<(?:SYS|/SYS)>>"
    r"|<(?:unused|extra_id_|SPECIAL_|reserved_)_?\d+>|</?seed:\w+>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK|TOOL_CONTENT)\]"
    r"|\[\|\w+\|\]|\[(?:gMASK|sMASK|BOS|EOS|UNUSED_TOKEN_\d+)\]|\]~[!b]\[|\]~b\]|\[e~\[",
)
"""The special tokens of chat templates, which a server with the wrong template leaves in texts."""
_LEADING = re.compile(
    r"\A\s*(?:<s>|<bos>|<\|(?:START_RESPONSE|begin_of_solution|begin_of_text|startoftext)\|>)\s*"
)
_FINAL = re.compile(
    r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(.*?)(?:<\|(?:return|end|call|start)\|>|\Z)",
    re.DOTALL,
)
_BARE_FINAL = re.compile(r"\Aanalysis.*assistantfinal(.*)\Z", re.DOTALL)
"""Harmony of which a server removed the special tokens and kept the names of the channels."""


def read_anthropic(body: object, key: str, *, batch: str | None = None) -> Answer:
    """The answer in a Message."""
    fields = _as_mapping(body)
    usage = count_anthropic(fields.get("usage"))
    return _read(fields, fields, fields.get("stop_reason"), usage, key, batch)


def read_openai(body: object, key: str, *, batch: str | None = None) -> Answer:
    """The answer in a chat completion."""
    fields = _as_mapping(body)
    choices = fields.get("choices")
    choice = _as_mapping(choices[0] if isinstance(choices, list) and choices else None)
    message = _as_mapping(choice.get("message"))
    ending = "refusal" if message.get("refusal") else choice.get("finish_reason")
    if message.get("content") is None and choice.get("error"):
        fields = {**fields, "error": choice["error"]}
    return _read(fields, message, ending, count_openai(fields.get("usage")), key, batch)


def _read(
    fields: Mapping[str, Any],
    message: Mapping[str, Any],
    ending: object,
    usage: Usage,
    key: str,
    batch: str | None,
) -> Answer:
    if fields.get("error") or "error" in (fields.get("type"), fields.get("object")):
        raise _read_error(fields, usage, key)
    name = str(ending).lower()
    stop = ENDINGS.get(name, "length")
    found = join_text(message.get("content"))
    if (found is None and stop == "end") or (not found and name not in ENDINGS):
        words = clean_message(read_message(fields), key)
        raise Unreadable(words or f"the answer has no text and ended with {ending!r:.40}", usage)
    if found and not usage.output:
        usage = usage.model_copy(update={"counted": False})
    text, whole = drop_thoughts(_extract_final(replace_surrogates(found or "")))
    stop = "length" if stop == "end" and not whole else stop
    text = strip_control(text)
    token = CONTROL.search(text)
    if token is not None and stop == "end":
        raise Unreadable(f"the control token {token[0]} in the text", usage)
    return Answer(
        text=hide_key(text[: token.start()] if token else text, key),
        stop=stop,
        usage=usage,
        id=replace_surrogates(str(fields.get("id") or "")),
        batch=batch,
    )


def _read_error(fields: Mapping[str, Any], usage: Usage, key: str) -> Exception:
    """The error that a server reported where an answer was expected."""
    words = clean_message(read_message(fields) or "it does not say which", key)
    code = _as_mapping(fields.get("error")).get("code", fields.get("code"))
    if is_access_refused(code, fields.get("error") or fields):
        return access_error(words, code)
    return Unreadable(f"the server answered with an error: {words}", usage)


def read_item(
    read: Callable[..., Answer], body: object, key: str, batch: str
) -> Answer | ProviderFault | AuthError:
    """The answer of an item in a batch, or why there is none."""
    try:
        return read(body, key, batch=batch)
    except (Unreadable, AuthError) as fault:
        return fault


def read_item_error(status: object, body: object, key: str) -> ProviderFault | AuthError:
    """Why a batch or an item in it was not answered, in its provider's words."""
    error = _as_mapping(body)
    while isinstance(error.get("error"), dict):
        error = error["error"]
    kinds = (error.get("type"), error.get("code"))
    words = clean_message(read_message(body) or str(kinds[1] or kinds[0] or "errored"), key)
    if is_access_refused(status, body) or any(kind in NO_ACCESS for kind in kinds):
        return access_error(words, status)
    if is_queue_full(f"{words} {kinds[1]}"):
        return QueueFull(words)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 409, 429)
    final = refused or any(kind in INVALID for kind in kinds)
    return InvalidRequest(name_fields(words)) if final else ItemFailed(words)


def _as_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


# Text


def join_text(content: object) -> str | None:
    """The text of a message's content, a string or parts; None if it has none."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else _part_text(_as_mapping(part)) for part in parts]
    found = [text for text in texts if text is not None]
    return "".join(found) if found or content == [] else None


def _part_text(part: Mapping[str, Any]) -> str | None:
    text = part.get("text")
    return text if isinstance(text, str) and part.get("type") not in HIDDEN_PARTS else None


def _extract_final(text: str) -> str:
    """The final channel of harmony; any other text as it is."""
    finals = _FINAL.findall(text) if "<|channel|>" in text else []
    bare = _BARE_FINAL.match(text)
    return finals[-1] if finals else bare[1] if bare else text


def drop_thoughts(text: str) -> tuple[str, bool]:
    """The text without thoughts, and whether each of them had an end."""
    rest, whole = text, True
    for opening, closing in THOUGHTS:
        if opening not in rest and closing not in rest:
            continue
        rest = re.sub(re.escape(opening) + ".*?" + re.escape(closing), "", rest, flags=re.DOTALL)
        rest = rest.rpartition(closing)[2]  # the prompt may have held the opening
        rest, unclosed, _ = rest.partition(opening)
        whole = whole and not unclosed
    tag = re.match(rf"\s*<({'|'.join(TAGS)})>", rest, re.IGNORECASE)
    if tag is not None:
        closing = f"</{tag[1]}>"
        _, closed, after = rest.partition(closing)
        rest, whole = after, whole and bool(closed)
    return (rest, whole) if rest == text else (rest.lstrip(), whole)


def strip_control(text: str) -> str:
    """The text without control tokens at its beginning and its end."""
    tokens = list(CONTROL.finditer(text)) if "<" in text or "[" in text else []
    end = len(text)
    while tokens and not text[tokens[-1].end() : end].strip():
        end = tokens.pop().start()
    rest = text if end == len(text) else text[:end].rstrip()
    return _LEADING.sub("", rest) if tokens else rest


# Tokens


def count_anthropic(stated: object) -> Usage:
    """The tokens that a Message bills."""
    fields = _as_mapping(stated)
    counts = {
        "input": _count(fields.get("input_tokens"), None),
        "output": _count(fields.get("output_tokens"), None),
        "cache_write": _count(fields.get("cache_creation_input_tokens"), 0),
        "cache_read": _count(fields.get("cache_read_input_tokens"), 0),
    }
    return _make_usage(counts)


def count_openai(stated: object) -> Usage:
    """The tokens that a chat completion bills: where numbers contradict, the dearer reading.

    Cached tokens beyond the prompt's were counted beside them. What the total has beyond its parts
    was thought beside the answer, and is billed as output.
    """
    fields = _as_mapping(stated)
    details = _as_mapping(fields.get("prompt_tokens_details"))
    prompt = _count(fields.get("prompt_tokens"), None)
    output = _count(fields.get("completion_tokens"), None)
    read, written = (_count(details.get(f"cache{name}_tokens"), 0) for name in ("d", "_write"))
    if prompt is None or output is None or read is None or written is None:
        return _make_usage(
            {"input": prompt, "output": output, "cache_read": read, "cache_write": written}
        )
    cached, thoughts, total = read + written, *_count_beside(fields)
    output += thoughts if thoughts > output else 0
    extra = total - prompt - output - (cached if cached > prompt else 0)
    beside = cached > prompt or 0 < cached <= extra
    return _make_usage(
        {
            "input": prompt if beside else prompt - cached,
            "output": output + max(0, extra),
            "cache_write": written,
            "cache_read": read,
        }
    )


def _count_beside(fields: Mapping[str, Any]) -> tuple[int, int]:
    """The tokens of thoughts and in total, which are part of other counts."""
    details = _as_mapping(fields.get("completion_tokens_details"))
    thoughts, total = details.get("reasoning_tokens"), fields.get("total_tokens")
    return _count(thoughts, 0) or 0, _count(total, 0) or 0


def _count(value: object, missing: int | None) -> int | None:
    """A count of tokens; None for anything else. `missing` stands for one that is not stated."""
    if value is None:
        return missing
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MOST_TOKENS and value == int(value) else None


def _make_usage(counts: Mapping[str, int | None]) -> Usage:
    """The usage; it is not counted if a count is missing, or if no prompt was read."""
    known = {name: count or 0 for name, count in counts.items()}
    read = sum(count for name, count in known.items() if name != "output")
    return Usage(**known, counted=None not in counts.values() and read > 0)
