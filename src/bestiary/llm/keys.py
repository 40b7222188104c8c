"""API keys: read from the environment, refused where malformed, hidden in what servers repeat."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from bestiary.llm.models import LanguageModel
from bestiary.llm.provider import AuthError

SHORTEST_KEY = 8
"""Characters. A shorter key is a placeholder for a server without keys and may be a plain word."""
SHORTEST_PART = 6
"""Characters of a key that are hidden in a message, unless they are a plain word."""
_NOT_IN_KEYS = re.compile(r"[^!-~]|[\"'`]")
"""Keys are printable ASCII without spaces; quotes come from a file that was not read by a shell."""
_ESCAPE = r"\\+(?:u00|x)([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})|\\+(.)"
_ESCAPED = re.compile(_ESCAPE, re.DOTALL)
_UNIT = re.compile(rf"{_ESCAPE}|(.)", re.DOTALL)
"""One character, or an escape that stands for one."""


def read_key(name: str, model: LanguageModel) -> str:
    """A model's API key, which comes only from the environment."""
    if model.key is None:
        return "none"  # the SDKs require one
    key = os.environ.get(model.key, "").strip()
    if not key:
        raise AuthError(
            f"{name}: the environment variable {model.key} is not set",
            "export it, or choose a model that needs no key",
            code="key-missing",
            model=name,
            variable=model.key,
        )
    stray = _NOT_IN_KEYS.search(key)
    if stray is not None:
        raise AuthError(
            f"{name}: the environment variable {model.key} has U+{ord(stray[0]):04X} as character "
            f"{stray.start() + 1}, which no key contains",
            "copy the key again as plain text: no quotes, spaces, line breaks or invisible "
            "characters",
            code="key-malformed",
            model=name,
            variable=model.key,
            position=stray.start() + 1,
        )
    return key


def hide_key(text: str, key: str, *, shortest: int | None = None) -> str:
    """The text with the key masked, also where it is escaped for JSON or a URL.

    `shortest` masks parts of the key, too, from so many characters on; plain words are left.
    """
    if len(key) < SHORTEST_KEY or (shortest is None and not _may_hold(text, key)):
        return text
    units = list(_UNIT.finditer(text))
    plain = "".join(_decode(unit) for unit in units)
    shown, at = [], 0
    for start, stop in _find_parts(plain, key, shortest or len(key)):
        shown += [text[at : units[start].start()], "[key]"]
        at = units[stop - 1].end()
    return "".join(shown) + text[at:]


def _may_hold(text: str, key: str) -> bool:
    escaped = "\\" in text or "%" in text
    return key in text or (escaped and key in _ESCAPED.sub(_decode, text))


def _decode(unit: re.Match[str]) -> str:
    code = unit[1] or unit[2]
    return chr(int(code, 16)) if code else unit[3] or unit[0]


def _find_parts(text: str, key: str, shortest: int) -> Iterator[tuple[int, int]]:
    """The longest parts of the key in a text, as (start, stop), from left to right."""
    start = 0
    while start < len(text):
        stop = start
        while stop < len(text) and text[start : stop + 1] in key:
            stop += 1
        part = text[start:stop]
        if part == key or (len(part) >= shortest and not part.isalpha()):
            yield start, stop
            start = stop
        else:
            start += 1
