"""Content-addressed artifacts on disk: written aside, synced, renamed into place, manifest last.

`<root>/store/<stage>/<fingerprint>/manifest.json` lists every file with its sha256. A folder
without a manifest is not an artifact, and nothing but a matching manifest decides a resume.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from bestiary.errors import StoreError
from bestiary.records import Artifact, canonical_json, sha256_bytes, sha256_file

MANIFEST = "manifest.json"
PART = ".part"
"""How the name of a folder ends that nobody reads yet."""


class Store:
    """The artifacts under one folder of runs; the only writer while its lock is held."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._timings = root / "timings.jsonl"

    def folder(self, stage: str, fingerprint: str) -> Path:
        """Where an artifact lies, or would lie."""
        return self.root / "store" / stage / fingerprint

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """The artifact with that fingerprint, checked against its manifest; None when not built.

        Raises StoreError when a file differs from its manifest.
        """
        folder = self.folder(stage, fingerprint)
        if not (folder / MANIFEST).is_file():
            return None
        return read_artifact(folder)

    def build(
        self,
        stage: str,
        fingerprint: str,
        write: Callable[[Path], None],
        *,
        inputs: dict[str, str],
        began: float | None = None,
    ) -> Artifact:
        """Return the artifact, calling `write(folder)` to make its files only if it is missing.

        `began` is when work on it was begun, of the monotonic clock; None is now.
        """
        found = self.find(stage, fingerprint)
        if found is not None:
            return found
        started = time.monotonic() if began is None else began
        folder = self.start(stage, fingerprint)
        try:
            with disk_errors(folder):
                write(folder)
            spent = time.monotonic() - started
            return self.commit(stage, fingerprint, inputs=inputs, seconds=spent)
        except BaseException:
            remove_tree(folder)
            raise

    def start(self, stage: str, fingerprint: str) -> Path:
        """An empty folder to write an artifact's files into; nobody reads it before `commit`."""
        part = self._part(stage, fingerprint)
        with disk_errors(part):
            remove_tree(part)
            part.mkdir(parents=True)
        return part

    def commit(
        self, stage: str, fingerprint: str, *, inputs: dict[str, str], seconds: float
    ) -> Artifact:
        """Sync what `start` gave out, write its manifest last, and rename it into place."""
        part, final = self._part(stage, fingerprint), self.folder(stage, fingerprint)
        with disk_errors(final):
            write_manifest(part, {"stage": stage, "fingerprint": fingerprint, "inputs": inputs})
            remove_tree(final)
            os.rename(part, final)
            sync_folder(final.parent)
            self._record_seconds(stage, fingerprint, seconds)
        return read_artifact(final)

    def names(self, stage: str, prefix: str) -> list[str]:
        """Fingerprints of a stage's folders that begin so, in order; half-dropped ones too."""
        folder = self.root / "store" / stage
        return sorted(
            path.name for path in folder.glob(f"{prefix}*") if not path.name.endswith(PART)
        )

    def discard(self, stage: str, fingerprint: str) -> None:
        """Drop an artifact: its manifest first, so that none is read of which a part is gone."""
        folder = self.folder(stage, fingerprint)
        with disk_errors(folder):
            (folder / MANIFEST).unlink(missing_ok=True)
            remove_tree(folder)

    def _part(self, stage: str, fingerprint: str) -> Path:
        return self.folder(stage, fingerprint + PART)

    def seconds(self, stage: str, fingerprint: str) -> float:
        """How long the artifact took when it was built; 0.0 when that was not recorded."""
        return self._spent.get((stage, fingerprint), 0.0)

    @cached_property
    def _spent(self) -> dict[tuple[str, str], float]:
        spent: dict[tuple[str, str], float] = {}
        lines = self._timings.read_text(encoding="utf8") if self._timings.is_file() else ""
        for line in lines.splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # a line cut short by a kill: a lost timing, not a lost artifact
            spent[row["stage"], row["fingerprint"]] = float(row["seconds"])
        return spent

    def _record_seconds(self, stage: str, fingerprint: str, seconds: float) -> None:
        row = {"stage": stage, "fingerprint": fingerprint, "seconds": round(seconds, 3)}
        self._spent[stage, fingerprint] = round(seconds, 3)
        with self._timings.open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store against a second build; raises StoreError when another holds it."""
        path = self.root / "lock"
        with disk_errors(path):
            self.root.mkdir(parents=True, exist_ok=True)
            # Unbuffered: on a full disk a buffer would fail once more when the file is closed.
            file = path.open("a+b", buffering=0)
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                file.seek(0)
                holder = file.read().decode().strip() or "unknown"
                raise StoreError(
                    f"{self.root}: process {holder} is building here, and one build at a time may "
                    "write a store; wait for it, or build elsewhere with --out FOLDER"
                ) from cause
            with disk_errors(path):
                self._sweep()
                file.truncate(0)
                file.write(str(os.getpid()).encode())
            try:
                yield
            finally:
                self._sweep()

    def _sweep(self) -> None:
        """Remove what a build left half-written that was killed, or had to give up."""
        for part in self.root.glob(f"store/*/*{PART}"):
            remove_tree(part)


def read_artifact(folder: Path) -> Artifact:
    """Read an artifact's manifest and check every file against it.

    Raises StoreError naming the first file that is missing or differs.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf8"))
        files: dict[str, str] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise damaged(folder, path, "the manifest cannot be read") from cause
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise damaged(folder, file, "the manifest lists it, but it is missing")
        if sha256_file(file) != expected:
            raise damaged(folder, file, f"its sha256 is not the manifest's {expected[:12]}")
    digest = sha256_bytes(canonical_json(files))
    return Artifact(folder=folder, sha256=digest, files=files, inputs=manifest.get("inputs", {}))


def damaged(folder: Path, path: Path, problem: str) -> StoreError:
    """The error for a damaged artifact: its folder can be deleted, and is then rebuilt."""
    return StoreError(
        f"{path}: {problem}; artifacts are never edited in place: delete {folder} and build "
        "again, only that artifact and what depends on it are rebuilt"
    )


def write_manifest(folder: Path, about: dict[str, object]) -> None:
    """Sync every file of `folder`, then write the manifest that lists them, last."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync_file(path)
            files[path.relative_to(folder).as_posix()] = sha256_file(path)
    write_bytes(folder / MANIFEST, canonical_json({**about, "files": files}))
    for path in (folder, *folder.rglob("*/")):
        sync_folder(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(data)
        sync_file(part)
        os.rename(part, path)


def sync_file(path: Path) -> None:
    """Flush a file's data to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_tree(path: Path) -> None:
    """Delete a folder if it is there."""
    if path.exists():
        shutil.rmtree(path)


@contextmanager
def disk_errors(path: Path, *, elsewhere: str = "choose another with --out") -> Iterator[None]:
    """Turn a full disk, or a folder that cannot be written, into a StoreError with a remedy.

    `elsewhere` says how another folder is named.
    """
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(existing_parent(path)).free // 2**20
            raise StoreError(
                f"{path}: the disk is full ({free} MiB free); free some space and build again, "
                "everything built so far is kept"
            ) from cause
        if cause.errno in (errno.EROFS, errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise StoreError(
                f"{path}: the folder cannot be written ({cause.strerror}); {elsewhere}"
            ) from cause
        raise


def existing_parent(path: Path) -> Path:
    """The nearest folder of `path` that exists."""
    while not path.exists():
        path = path.parent
    return path
