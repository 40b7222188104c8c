"""What both SDKs share: connections, bodies as JSON, and the meaning of errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from bestiary.llm.provider import (
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    ProviderFault,
    QueueFull,
    RateLimited,
    ResponseLost,
    ServerError,
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

UNLIMITED = httpx2.Limits(max_connections=0, max_keepalive_connections=None)
"""No limit on connections, which the limiter counts. The SDKs' aiohttp transport passes on 0, which
means no limit to aiohttp, but not None, so that aiohttp would apply its default of 100."""
MALFORMED = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a malformed body raises, since the SDKs do not validate bodies."""
LONGEST_WAIT = 7200.0
"""Seconds; a server that asks for a longer wait is asked again after this long."""


@contextmanager
def faults(sdk: Any, key: str) -> Iterator[None]:
    """Turn an SDK's errors into ours, and hide the key that some servers repeat."""
    try:
        yield
    except sdk.APIStatusError as error:
        words = clean_message(read_message(error.body) or error.message, key)
        message = f"{error.status_code}: {words}"
        if is_access_refused(error.status_code, (error.body, words)):
            raise access_error(message, error.status_code) from None
        raise read_status(error.status_code, message, error.response.headers) from None
    except sdk.APIConnectionError as error:
        message = clean_message(f"{type(error).__name__}: {error.__cause__ or error}", key)
        unreachable = isinstance(error.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout))
        raise (ConnectionFailed if unreachable else ResponseLost)(message) from None
    except (*MALFORMED, sdk.APIError, httpx2.HTTPError) as error:
        raise ResponseLost(clean_message(f"{type(error).__name__}: {error}", key)) from None


def parse_body(content: bytes, key: str) -> Any:
    """A JSON body; ValueError if it was cut off, Unreadable if it is something else."""
    text = content.decode("utf-8-sig", "replace")
    try:
        return json.loads(text)
    except ValueError:
        if text.lstrip()[:1] in ("", "{", "["):
            raise
    except RecursionError:
        pass
    words = clean_message(text.strip(), key)[:80]
    raise Unreadable(f"the server did not answer with JSON but with {words!r}")


def parse_lines(content: bytes) -> list[Any]:
    """The JSON values of lines; unreadable lines are left out, but a cut one is a ValueError."""
    lines = content.decode("utf-8-sig", "replace").split("\n")
    values = []
    for number, line in enumerate(lines):
        try:
            values += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError):
            if number == len(lines) - 1:
                raise ValueError("the last line is cut off") from None
    return values


def read_status(status: int, message: str, headers: Mapping[str, str]) -> ProviderFault:
    """The fault that an HTTP status stands for."""
    if is_queue_full(message):
        return QueueFull(message)
    kinds = {429: RateLimited, 404: NotFound, 408: ServerError, 409: ServerError}
    kind = kinds.get(status, ServerError if status >= 500 else InvalidRequest)
    fault = kind(name_fields(message) if kind is InvalidRequest else message)
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
