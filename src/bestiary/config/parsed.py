"""What YAML files say that were parsed before: most of a thousand files have not changed."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

MOST = 20_000
"""Beyond so many texts, those that a run has not read are forgotten."""


class ParsedTexts:
    """What texts say, by their hash, kept in a file between runs.

    A line has the hash of a text, that of what it says, and what it says, as JSON. Lines are only
    added, so runs may share the file; a damaged line, or a missing file, costs parsing again.
    """

    def __init__(self, path: Path | None, parser: bytes) -> None:
        """`parser` is the code that parses: once it has changed, nothing is known."""
        self._path, self._parser = path, sha256(parser)
        self._known: dict[bytes, bytes] = {}
        self._used: dict[bytes, bytes] = {}
        self._new: list[bytes] = []
        if path is not None:
            with suppress(OSError):
                lines = (line.partition(b" ") for line in path.read_bytes().split(b"\n"))
                self._known = {key: said for key, _, said in lines}

    def find(self, text: bytes) -> object:
        """What a text says; raises KeyError if it is not known."""
        key = self._key(text)
        said = self._known[key]
        check, _, content = said.partition(b" ")
        if _hash(content) != check:
            raise KeyError(key)
        self._used[key] = said
        return json.loads(content)

    def add(self, text: bytes, data: object) -> None:
        """Remember what a text says: lists, mappings with text for keys, text, numbers, None."""
        content = json.dumps(data).encode()
        self._used[self._key(text)] = said = b" ".join([_hash(content), content])
        self._new.append(b" ".join([self._key(text), said]))

    def save(self) -> None:
        """Keep what is new, if the file can be written."""
        if self._path is None or not self._new:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            forget = len(self._known) > MOST
            lines = [b" ".join(pair) for pair in self._used.items()] if forget else self._new
            with self._path.open("wb" if forget else "ab") as file:
                file.write(b"\n".join([b"", *lines, b""]))
        self._new = []

    def _key(self, text: bytes) -> bytes:
        found = self._parser.copy()
        found.update(text)
        return found.hexdigest().encode()


def _hash(content: bytes) -> bytes:
    return sha256(content).hexdigest().encode()
