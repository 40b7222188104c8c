"""What a server's error says: its words, cleaned for people, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping

from bestiary.llm.keys import SHORTEST_PART, hide_key
from bestiary.llm.provider import AuthError
from bestiary.text import replace_surrogates

LONGEST_MESSAGE = 500
"""Characters of a server's message that are kept; some send a whole page."""
QUEUE_FULL = ("enqueued token", "token_limit_exceeded", "in_progress batches", "processing queue")
"""Phrases for a queue of batches that has no room for another one."""
UNSUPPORTED = (
    *("unsupported", "not support", "n't support", "unrecognized", "unknown", "unexpected"),
    *(
        "not permitted",
        "not allowed",
        "deprecated",
        "alternate",
        "only the default",
        "invalid role",
    ),
)
FIELDS: Mapping[str, tuple[str, ...]] = {
    "token_limit": ("max_tokens", "max_completion_tokens"),
    "system_role": ("system role", "system message", "'system'", "developer", "roles must"),
    "structured_output": ("response_format", "json_schema", "output_config", "structured output"),
    "temperature": ("temperature",),
}
"""The fields of a model's entry, by what servers say that refuse one of their parameters."""
SPENT = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "credit balance is too low",
    "insufficient balance",
    "insufficient credits",
)
"""Phrases for an empty account, which some providers report as a rate limit."""


def read_message(body: object) -> str:
    """The message in an error body; empty if the body has another form."""
    while isinstance(body, Mapping):
        body = body.get("error") or body.get("message") or body.get("detail")
    return body if isinstance(body, str) else ""


def clean_message(text: str, key: str) -> str:
    """A server's words for people: half characters replaced, the key hidden, and not too long."""
    return hide_key(replace_surrogates(text[: 4 * LONGEST_MESSAGE]), key, shortest=SHORTEST_PART)[
        :LONGEST_MESSAGE
    ]


def is_access_refused(status: object, body: object) -> bool:
    """Whether an error means a wrong key or an empty account, so that nothing will be answered."""
    return status in (401, 402, 403) or any(phrase in str(body).lower() for phrase in SPENT)


def name_fields(message: str) -> str:
    """A server's refusal of a parameter, with the fields of a model's entry that change it."""
    words = message.lower()
    if not any(phrase in words for phrase in UNSUPPORTED):
        return message
    fields = [name for name, phrases in FIELDS.items() if any(one in words for one in phrases)]
    if not fields:
        return message
    return (
        f"{message} (in the model's entry, {' or '.join(fields)} changes this; "
        "`bestiary models check NAME` finds what the server accepts)"
    )


def is_queue_full(message: str) -> bool:
    """Whether an error means that a batch must wait for others, or be smaller."""
    return any(phrase in message.lower() for phrase in QUEUE_FULL)


def access_error(message: str, status: object) -> AuthError:
    """The error for a wrong key or an empty account."""
    return AuthError(
        f"the provider refused access: {message}",
        "fix the key or the account, and run the same command again",
        code="access-refused",
        status=status,
    )
