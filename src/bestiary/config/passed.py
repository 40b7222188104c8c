"""What passed its checks before, so that `validate` checks what has changed."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path

from bestiary.config.catalog import Behavior, Catalog
from bestiary.config.categories import ENTRY_POINTS
from bestiary.config.library import Library
from bestiary.errors import PathError, StoreError
from bestiary.files import cache_folder, list_paths
from bestiary.store import write_bytes

_PACKAGE = Path(__file__).parents[1]
FILE = "validated.txt"


class Passed:
    """The keys of what is without violations: of all that its check reads.

    A file of the user's cache folder has those of the last run. Without it, or where it is damaged,
    everything is checked.
    """

    def __init__(self, library: Library) -> None:
        """Open it before the library's files are read: a later edit of one must not be missed."""
        self._shared = _hash_shared(library)
        self._keys: set[str] = set()
        with suppress(OSError, PathError):
            self._keys.update((cache_folder() / FILE).read_text("utf8", "replace").split())

    def holds(self, behavior: Behavior, catalog: Catalog) -> bool:
        """Whether the behavior passed, and nothing that it reads has changed since."""
        return self._key(behavior, catalog) in self._keys

    def add(self, behavior: Behavior, catalog: Catalog) -> None:
        """Remember that a behavior has no violations."""
        self._keys.add(self._key(behavior, catalog))

    @property
    def holds_shared(self) -> bool:
        """Whether the banks, tables and other files of generators passed, and none has changed."""
        return self._shared in self._keys

    def add_shared(self) -> None:
        """Remember that the files of generators have no violations."""
        self._keys.add(self._shared)

    def save(self, catalog: Catalog) -> None:
        """Keep the keys of everything as it is now, if the folder takes a file."""
        keys = (self._shared, *(self._key(one, catalog) for one in catalog.values()))
        kept = self._keys.intersection(keys)
        with suppress(OSError, PathError, StoreError):
            write_bytes(cache_folder() / FILE, "\n".join(sorted(kept)).encode())

    def _key(self, behavior: Behavior, catalog: Catalog) -> str:
        """Hash of its file, of those that it refers to, and of what all behaviors share."""
        hidden = [quirk for quirk, _ in behavior.distractors]
        parts = [behavior, *hidden, *([behavior.shows] if behavior.shows else [])]
        said = [(part.id, catalog.sources[part.id].data) for part in parts]
        return sha256(json.dumps([self._shared, said]).encode()).hexdigest()


def _hash_shared(library: Library) -> str:
    """Hash of the banks, tables and templates, and of the code that checks."""
    generators = library.folders.subfolders("generators")
    files = [path for folder in generators for path in list_paths(folder)]
    found = sha256()
    for path in (*files, *list_paths(_PACKAGE, "**/*.py")):
        if path.is_file():
            found.update(f"{path}\0".encode())
            found.update(sha256(path.read_bytes()).digest())
    for entry in entry_points(group=ENTRY_POINTS):
        found.update(f"{entry}{entry.dist and entry.dist.version}".encode())
    return found.hexdigest()
