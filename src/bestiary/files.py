"""Paths as users write them, and the files of a folder without what other programs left there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bestiary.errors import PathError
from bestiary.text import shorten

NAME_BYTES = 255
"""The longest name of a file that common file systems take."""
LEFTOVERS = ("__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini", "Icon\r")


def expand_path(text: str) -> Path:
    """A path with its `~`, `~user`, and `$VARIABLE` expanded; raises PathError if that fails.

    Every path that a user writes, on the command line or in a file, goes through here, so that
    one spelling means one folder whether or not a shell has seen it.
    """
    expanded = os.path.expanduser(os.path.expandvars(text))
    unset = re.search(r"\$(\w+|\{[^}]*\})", expanded)
    if unset:
        raise PathError(
            f"{text!r}: the environment variable {unset[1].strip('{}')} is not set",
            "set it, or write the path in full",
            code="path-variable-unset",
            path=text,
            variable=unset[1].strip("{}"),
        )
    if expanded.startswith("~"):
        raise PathError(
            f"{text!r}: {expanded.split(os.sep)[0]} has no home directory",
            "write the path in full; for a folder whose name begins with ~, write ./~name",
            code="path-home-unknown",
            path=text,
        )
    if any(len(os.fsencode(part)) > NAME_BYTES for part in Path(expanded).parts):
        raise PathError(
            f"{shorten(text)}: a name in it is longer than {NAME_BYTES} bytes",
            "use shorter names",
            code="path-too-long",
            path=text,
        )
    return Path(expanded)


def cache_folder() -> Path:
    """What may be made again: $BESTIARY_CACHE, or a folder in the user's cache folder."""
    chosen = os.environ.get("BESTIARY_CACHE")
    return expand_path(chosen or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/bestiary")


def is_leftover(name: str) -> bool:
    """Whether an operating system, an editor, or a notebook left a file or folder of this name."""
    return name.startswith((".", "~$")) or name.endswith("~") or name in LEFTOVERS


def list_paths(folder: Path, pattern: str = "**/*") -> list[Path]:
    """The paths in `folder` that match a glob `pattern`, sorted, without leftovers."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if not any(map(is_leftover, path.relative_to(folder).parts))
    ]
