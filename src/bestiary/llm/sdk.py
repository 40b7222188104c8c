"""What both SDKs have in common: how many connections they hold, and what their errors mean."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from bestiary.llm.provider import (
    AuthError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    RateLimited,
    ResponseLost,
    ServerError,
)

UNLIMITED = httpx2.Limits(max_connections=0, max_keepalive_connections=None)
"""Connections, which are the limiter's to count. The SDKs' aiohttp transport passes 0 on, which
means no limit there; None it leaves out, and aiohttp then holds 100."""
SHORTEST_KEY = 8
"""Characters; a shorter one is a placeholder for a server that wants none, and may be a word."""
UNREADABLE = (AttributeError, LookupError, TypeError, ValueError)
"""What reading a body raises that is none of what it should be: the SDKs check nothing."""
LONGEST_WAIT = 7200.0
"""Seconds: whoever asks for a longer wait is asked again after so many."""
SPENT = ("insufficient_quota", "billing_hard_limit_reached", "credit balance is too low")
"""How a provider says that an account is empty; it is no rate that would pass."""


@contextmanager
def faults(sdk: Any, key: str) -> Iterator[None]:
    """Turn the errors of an SDK into ours, without the key that some servers repeat."""
    try:
        yield
    except sdk.APIStatusError as error:
        said = hide(f"{error.status_code}: {read_message(error.body) or error.message}", key)
        raise read_status(error.status_code, said, error.response.headers) from None
    except sdk.APIConnectionError as error:
        said = hide(f"{type(error).__name__}: {error.__cause__ or error}", key)
        away = isinstance(error.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout))
        raise (ConnectionFailed if away else ResponseLost)(said) from None
    except (*UNREADABLE, sdk.APIError, httpx2.HTTPError) as error:
        raise ResponseLost(hide(f"{type(error).__name__}: {error}", key)) from None


def read_message(body: object) -> str:
    """What a server says in its own words; empty where it says nothing that is known."""
    while isinstance(body, Mapping):
        body = body.get("error") or body.get("message")
    return body if isinstance(body, str) else ""


def hide(text: str, key: str) -> str:
    """A text without the key."""
    return text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text


def read_status(status: int, said: str, headers: Mapping[str, str]) -> Exception:
    """The fault that a status stands for."""
    if status in (401, 402, 403) or any(phrase in said for phrase in SPENT):
        return AuthError(
            f"the provider refused access: {said}",
            "fix the key or the account, and run the same command again",
            code="access-refused",
            status=status,
        )
    kinds = {429: RateLimited, 404: NotFound, 408: ServerError, 409: ServerError}
    kind = kinds.get(status, ServerError if status >= 500 else InvalidRequest)
    fault = kind(said)
    fault.retry_after = read_retry_after(headers)
    return fault


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as a server asks for: in milliseconds, in seconds or until a date."""
    milliseconds, told = headers.get("retry-after-ms"), headers.get("retry-after")
    with suppress(ValueError):
        if milliseconds is not None:
            return limit_wait(float(milliseconds) / 1000)
    if told is None:
        return None
    with suppress(ValueError):
        return limit_wait(float(told))
    with suppress(ValueError):
        return limit_wait(parsedate_to_datetime(told).timestamp() - time.time())
    return None


def limit_wait(seconds: float) -> float:
    """A wait that is neither before now nor forever."""
    return max(0.0, min(seconds, LONGEST_WAIT))
