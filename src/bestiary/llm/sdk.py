"""What both SDKs share: the number of connections, and the meaning of errors."""

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
"""No limit on connections, which the limiter counts. The SDKs' aiohttp transport passes on 0, which
means no limit to aiohttp, but not None, so that aiohttp would apply its default of 100."""
SHORTEST_KEY = 8
"""Characters. A shorter key is a placeholder for a server without keys and may be a plain word."""
UNREADABLE = (AttributeError, LookupError, TypeError, ValueError)
"""What reading a malformed body raises, since the SDKs do not validate bodies."""
LONGEST_WAIT = 7200.0
"""Seconds; a server that asks for a longer wait is asked again after this long."""
SPENT = ("insufficient_quota", "billing_hard_limit_reached", "credit balance is too low")
"""Phrases for an empty account, which some providers report as a rate limit."""


@contextmanager
def faults(sdk: Any, key: str) -> Iterator[None]:
    """Turn an SDK's errors into ours, and hide the key that some servers repeat."""
    try:
        yield
    except sdk.APIStatusError as error:
        message = hide(f"{error.status_code}: {read_message(error.body) or error.message}", key)
        raise read_status(error.status_code, message, error.response.headers) from None
    except sdk.APIConnectionError as error:
        message = hide(f"{type(error).__name__}: {error.__cause__ or error}", key)
        unreachable = isinstance(error.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout))
        raise (ConnectionFailed if unreachable else ResponseLost)(message) from None
    except (*UNREADABLE, sdk.APIError, httpx2.HTTPError) as error:
        raise ResponseLost(hide(f"{type(error).__name__}: {error}", key)) from None


def read_message(body: object) -> str:
    """The message in an error body; empty if the body has another form."""
    while isinstance(body, Mapping):
        body = body.get("error") or body.get("message")
    return body if isinstance(body, str) else ""


def hide(text: str, key: str) -> str:
    """The text with the key masked."""
    return text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text


def read_status(status: int, message: str, headers: Mapping[str, str]) -> Exception:
    """The fault that an HTTP status stands for."""
    if status in (401, 402, 403) or any(phrase in message for phrase in SPENT):
        return AuthError(
            f"the provider refused access: {message}",
            "fix the key or the account, and run the same command again",
            code="access-refused",
            status=status,
        )
    kinds = {429: RateLimited, 404: NotFound, 408: ServerError, 409: ServerError}
    kind = kinds.get(status, ServerError if status >= 500 else InvalidRequest)
    fault = kind(message)
    fault.retry_after = read_retry_after(headers)
    return fault


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks us to wait: it may give milliseconds, seconds or a date."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    with suppress(ValueError):
        if milliseconds is not None:
            return limit_wait(float(milliseconds) / 1000)
    if value is None:
        return None
    with suppress(ValueError):
        return limit_wait(float(value))
    with suppress(ValueError):
        return limit_wait(parsedate_to_datetime(value).timestamp() - time.time())
    return None


def limit_wait(seconds: float) -> float:
    """The wait, neither negative nor longer than LONGEST_WAIT."""
    return max(0.0, min(seconds, LONGEST_WAIT))
