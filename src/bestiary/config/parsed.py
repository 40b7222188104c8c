"""What YAML files say that were parsed before: most of a thousand files have not changed."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from bestiary.errors import StoreError
from bestiary.store import write_bytes


class ParsedTexts:
    """What texts say, by their hash, kept in a file between runs.

    A line has the hash of a text, that of what it says, and what it says, as JSON. A damaged line,
    or a missing file, costs parsing again.
    """

    def __init__(self, path: Path | None, parser: bytes) -> None:
        """`parser` is the code that parses: once it has changed, nothing is known."""
        self._path, self._parser = path, sha256(parser)
        self._known: dict[bytes, bytes] = {}
        self._used: dict[bytes, bytes] = {}
        if path is not None:
            with suppress(OSError):
                lines = (line.partition(b" ") for line in path.read_bytes().split(b"\n"))
                self._known = {key: said for key, _, said in lines}
        self._kept = self._known.keys() - {b""}

    def find(self, text: bytes) -> object:
        """What a text says; raises KeyError if it is not known."""
        key = self._key(text)
        said = self._known[key]
        check, _, content = said.partition(b" ")
        if _hash(content) != check:
            self._kept = self._kept - {key}
            raise KeyError(key)
        self._used[key] = said
        return json.loads(content)

    def add(self, text: bytes, data: object) -> None:
        """Remember what a text says: lists, mappings with text for keys, text, numbers, None."""
        key, content = self._key(text), json.dumps(data).encode()
        self._known[key] = self._used[key] = b" ".join([_hash(content), content])

    def save(self) -> None:
        """Keep what was read since the last time, and nothing else, if the file can be written."""
        used, self._used = self._used, {}
        if self._path is None or used.keys() == self._kept:
            return
        with suppress(OSError, StoreError):
            write_bytes(self._path, b"\n".join(b" ".join(pair) for pair in used.items()))
            self._kept = set(used)

    def _key(self, text: bytes) -> bytes:
        found = self._parser.copy()
        found.update(text)
        return found.hexdigest().encode()


def _hash(content: bytes) -> bytes:
    return sha256(content).hexdigest().encode()
