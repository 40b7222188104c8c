"""Puts files in a second place without copying their bytes, if the file system allows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link_file(source: str | Path, target: str | Path) -> None:
    """Hard-link a file, or copy it across devices and on file systems without hard links.

    Both names then share their bytes: replace such a file, never write into it.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def link_tree(source: Path, target: Path) -> None:
    """Link every file of a folder into a folder that does not exist yet."""
    shutil.copytree(source, target, copy_function=link_file)
