"""Which behaviors passed their checks before, so that `validate` checks what has changed."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from bestiary.config.catalog import Behavior, Catalog
from bestiary.files import cache_folder, list_paths

_PACKAGE = Path(__file__).parents[1]


class Passed:
    """The keys of behaviors without violations: of all that a check of one of them reads.

    A file of the user's cache folder has those of the last run. Without it, or where it is damaged,
    everything is checked.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._file = cache_folder() / "validated.txt"
        self._keys: set[str] = set()
        with suppress(OSError):
            self._keys.update(self._file.read_text("utf8", "replace").split())

    def __contains__(self, behavior: Behavior) -> bool:
        return self._key(behavior) in self._keys

    def add(self, behavior: Behavior) -> None:
        """Remember that a behavior has no violations."""
        self._keys.add(self._key(behavior))

    def save(self) -> None:
        """Keep the keys of the behaviors as they are now, if the folder takes a file."""
        kept = self._keys.intersection(map(self._key, self._catalog.values()))
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._file.parent, delete=False) as part:
                part.write("\n".join(sorted(kept)))
            Path(part.name).replace(self._file)

    def _key(self, behavior: Behavior) -> str:
        """Hash of its file, of those that it refers to, and of what all behaviors share."""
        hidden = [quirk for quirk, _ in behavior.distractors]
        parts = [behavior, *hidden, *([behavior.shows] if behavior.shows else [])]
        said = [(part.id, self._catalog.sources[part.id].data) for part in parts]
        return sha256(json.dumps([self._shared, said]).encode()).hexdigest()

    @cached_property
    def _shared(self) -> str:
        """Hash of the banks, tables and templates, and of the code that checks."""
        generators = self._catalog.library.folders.subfolders("generators")
        files = [path for folder in generators for path in list_paths(folder)]
        found = sha256()
        for path in (*files, *list_paths(_PACKAGE, "**/*.py")):
            if path.is_file():
                found.update(f"{path}\0".encode())
                found.update(sha256(path.read_bytes()).digest())
        return found.hexdigest()
