"""Where the data folders are: in the checkout, in the installed wheel, and where the user says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bestiary.errors import SpecError
from bestiary.files import expand_path, list_paths
from bestiary.text import nearest

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_root() -> Path:
    """The folder with behaviors/, generators/ and organisms/; $BESTIARY_DATA replaces it."""
    chosen = os.environ.get("BESTIARY_DATA")
    if chosen:
        return expand_path(chosen)
    installed = _PACKAGE / "_data"
    return installed if installed.is_dir() else _PACKAGE.parents[1]


@dataclass(frozen=True)
class DataFolders:
    """Data folders of one layout, which add to each other: no name may be in two of them."""

    roots: tuple[Path, ...]

    def list_files(self, folder: str, pattern: str) -> dict[str, Path]:
        """Files under `<root>/<folder>` by their path there; raises SpecError for a clash."""
        found: dict[str, Path] = {}
        for root in self.roots:
            for path in list_paths(root / folder, pattern):
                name = path.relative_to(root / folder).as_posix()
                if name in found:
                    raise _taken(path, found[name], "rename the file")
                found[name] = path
        return found

    def find_named(self, name: str, folder: str, kind: str, *, pattern: str = "*.yaml") -> Path:
        """A YAML file by its path, or by its name among those of `folder` that match `pattern`.

        Raises SpecError, with the nearest name, if there is none.
        """
        if name.endswith((".yaml", ".yml")):
            path = expand_path(name)
            if not path.is_file():
                raise SpecError(
                    f"{kind} {name!r} does not exist",
                    "check the path",
                    code="file-missing",
                    kind=kind,
                    path=name,
                )
            return path
        found = self.list_files(folder, pattern)
        known = {file.removesuffix(".yaml"): path for file, path in found.items()}
        if name not in known:
            raise SpecError(
                f"unknown {kind} {name!r}",
                nearest(name, known),
                code="name-unknown",
                kind=kind,
                name=name,
            )
        return known[name]

    def find_single(self, file: str) -> Path:
        """A file that one root has, or where the first root should have it.

        Raises SpecError if two have it.
        """
        found = [root / file for root in self.roots if (root / file).is_file()]
        if len(found) > 1:
            remedy = "delete it; to change the other, set $BESTIARY_DATA to a copy of its folder"
            raise _taken(found[1], found[0], remedy)
        return found[0] if found else self.roots[0] / file

    def subfolders(self, folder: str) -> Iterator[Path]:
        """Each root's folder of that name, if it exists."""
        return (root / folder for root in self.roots if (root / folder).is_dir())


def _taken(path: Path, other: Path, remedy: str) -> SpecError:
    return SpecError(
        f"{path}: {other} has the same name, and data folders only add to each other",
        remedy,
        code="name-taken",
        path=path,
        other=other,
    )
