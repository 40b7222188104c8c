"""Content-addressed artifacts on disk: written aside, synced, renamed into place, manifest last.

`<root>/store/<stage>/<key>/manifest.json` lists every file with its sha256. A folder without a
manifest is not an artifact, and only a matching manifest lets a run resume from it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from bestiary.errors import StoreError
from bestiary.records import Artifact, canonical_json, sha256_bytes, sha256_file

MANIFEST = "manifest.json"
PART = ".part"
"""Suffix of a folder that is still being written; nothing reads it."""
FORMAT = 2
"""Raised when artifacts of earlier versions can no longer be read."""
FORMAT_FILE = "format"


class Store:
    """The artifacts under one runs folder; only the holder of its lock and its workers write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._timings = root / "timings.jsonl"

    def folder(self, stage: str, key: str) -> Path:
        """Where an artifact is, or would be."""
        return self.root / "store" / stage / key

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact with that key, checked against its manifest; None if it is not built.

        Raises StoreError if a file differs from its manifest.
        """
        folder = self.folder(stage, key)
        if not (folder / MANIFEST).is_file():
            return None
        return read_artifact(folder)

    def get(self, stage: str, key: str) -> Artifact:
        """The artifact with that key; raises StoreError if it is not built."""
        found = self.find(stage, key)
        if found is None:
            raise StoreError(
                f"{self.folder(stage, key)}: there is no such artifact",
                "build again; if other machines write this store, choose a folder with --out that "
                "all of them share",
                code="artifact-missing",
                stage=stage,
                key=key,
            )
        return found

    def build(
        self,
        stage: str,
        key: str,
        write: Callable[[Path], None],
        *,
        inputs: Mapping[str, str],
        seconds: float | None = None,
    ) -> Artifact:
        """Return the artifact, calling `write(folder)` to make its files only if it is missing.

        `seconds` is how long the work took; by default, how long `write` takes.
        """
        found = self.find(stage, key)
        if found is not None:
            return found
        started = time.monotonic()
        part = self._start(stage, key)
        try:
            with disk_errors(part):
                write(part)
            spent = time.monotonic() - started if seconds is None else seconds
            return self._commit(part, stage, key, inputs=inputs, seconds=spent)
        except BaseException:
            remove_tree(part)
            raise

    def _start(self, stage: str, key: str) -> Path:
        """An empty folder for an artifact's files; its name is unique to this process."""
        part = self.folder(stage, f"{key}.{os.uname().nodename}-{os.getpid()}{PART}")
        with disk_errors(part):
            if not (self.root / "store").exists():
                self._write_format()
            remove_tree(part)
            part.mkdir(parents=True)
        return part

    def _commit(
        self, part: Path, stage: str, key: str, *, inputs: Mapping[str, str], seconds: float
    ) -> Artifact:
        """Sync the folder, write its manifest last, and rename it into place."""
        final = self.folder(stage, key)
        with disk_errors(final):
            files = write_manifest(part, {"stage": stage, "key": key, "inputs": dict(inputs)})
            if rename_into_place(part, final):
                sync_folder(final.parent)
                self._record_seconds(stage, key, seconds)
        remove_tree(part)
        return Artifact(folder=final, sha256=hash_files(files), files=files, inputs=dict(inputs))

    def names(self, stage: str, prefix: str = "") -> list[str]:
        """Sorted keys of a stage's folders that start with `prefix`, unfinished deletions too."""
        folder = self.root / "store" / stage
        return sorted(
            path.name for path in folder.glob(f"{prefix}*") if not path.name.endswith(PART)
        )

    def discard(self, stage: str, key: str) -> None:
        """Delete an artifact: its manifest first, so that a half-deleted one is never read."""
        folder = self.folder(stage, key)
        with disk_errors(folder):
            (folder / MANIFEST).unlink(missing_ok=True)
            remove_tree(folder)

    def read_seconds(self, stage: str) -> dict[str, float]:
        """How long each artifact of a stage took to make, by key."""
        spent: dict[str, float] = {}
        lines = self._timings.read_text(encoding="utf8") if self._timings.is_file() else ""
        for line in lines.splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # a line cut short by a kill: a lost timing, not a lost artifact
            if row["stage"] == stage:
                spent[row["key"]] = float(row["seconds"])
        return spent

    def _record_seconds(self, stage: str, key: str, seconds: float) -> None:
        row = {"stage": stage, "key": key, "seconds": round(seconds, 3)}
        with self._timings.open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store against a second build.

        Raises StoreError if another process holds it, or if its artifacts are of another format.
        """
        self.check_format()
        path = self.root / "lock"
        with disk_errors(path):
            self.root.mkdir(parents=True, exist_ok=True)
            # Unbuffered: on a full disk a buffer would fail again when the file is closed.
            file = path.open("a+b", buffering=0)
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                file.seek(0)
                holder = file.read().decode().strip() or "unknown"
                raise StoreError(
                    f"{self.root}: process {holder} is building here, and only one build at a time "
                    "may write a store",
                    "wait for it, or build into another folder with --out",
                    code="store-locked",
                    root=self.root,
                    holder=holder,
                ) from cause
            with disk_errors(path):
                self._remove_parts()
                file.truncate(0)
                file.write(str(os.getpid()).encode())
                self._write_format()
            try:
                yield
            finally:
                self._remove_parts()

    def check_format(self) -> None:
        """Raise StoreError if artifacts here were written by another edition of bestiary."""
        folder = self.root / "store"
        if not any(folder.glob("*/")):
            return  # a full disk may have left a half-written marker, but no artifact
        path = folder / FORMAT_FILE
        found = path.read_text(encoding="utf8").strip() if path.is_file() else "1"
        if found != str(FORMAT):
            raise StoreError(
                f"{self.root}: its artifacts have store format {found}, and this version of "
                f"bestiary reads format {FORMAT}",
                "build into another folder with --out; this one is left as it is",
                code="store-format",
                root=self.root,
                found=found,
            )

    def _write_format(self) -> None:
        path = self.root / "store" / FORMAT_FILE
        if not path.is_file():
            write_bytes(path, f"{FORMAT}\n".encode())

    def _remove_parts(self) -> None:
        """Remove the unfinished folders of a build that was killed or gave up."""
        for part in self.root.glob(f"store/*/*{PART}"):
            remove_tree(part)


def rename_into_place(part: Path, final: Path) -> bool:
    """Rename a complete folder to its final name; False if another worker was faster."""
    while True:
        try:
            os.rename(part, final)
        except OSError as cause:
            if cause.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if (final / MANIFEST).is_file():
                return False
            # A deletion that was cut short is moved aside, so that no two workers delete it.
            aside = part.with_name(f"{part.name.removesuffix(PART)}.left{PART}")
            with suppress(FileNotFoundError):
                os.rename(final, aside)
                if (aside / MANIFEST).is_file():  # finished in between, so it is put back
                    os.rename(aside, final)
                remove_tree(aside)
        else:
            return True


def read_artifact(folder: Path) -> Artifact:
    """Read an artifact's manifest and check every file against it.

    Raises StoreError naming the first file that is missing or different.
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
    return Artifact(
        folder=folder, sha256=hash_files(files), files=files, inputs=manifest.get("inputs", {})
    )


def hash_files(files: Mapping[str, str]) -> str:
    """The hash of an artifact, over the names and hashes of its files."""
    return sha256_bytes(canonical_json(files))


def damaged(folder: Path, path: Path, problem: str) -> StoreError:
    """The error for a damaged artifact, whose folder can be deleted and rebuilt."""
    return StoreError(
        f"{path}: {problem}",
        f"artifacts are never edited in place: delete {folder} and build again; only that artifact "
        "and what depends on it are rebuilt",
        code="artifact-damaged",
        path=path,
        folder=folder,
    )


def write_manifest(folder: Path, about: dict[str, object]) -> dict[str, str]:
    """Sync every file of `folder`, then write the manifest that lists them, last.

    Returns each file's sha256 by its name in the folder.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync_file(path)
            files[path.relative_to(folder).as_posix()] = sha256_file(path)
    write_bytes(folder / MANIFEST, canonical_json({**about, "files": files}))
    for path in (folder, *folder.rglob("*/")):
        sync_folder(path)
    return files


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees either the old content or the new one, never a part."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")  # others may write the same file
        try:
            part.write_bytes(data)
            sync_file(part)
            os.rename(part, path)
        finally:
            part.unlink(missing_ok=True)  # what a full disk has cut off


def sync_file(path: Path) -> None:
    """Flush a file to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_tree(path: Path) -> None:
    """Delete a folder if it exists."""
    if path.exists():
        shutil.rmtree(path)


@contextmanager
def disk_errors(path: Path, *, elsewhere: str = "choose another with --out") -> Iterator[None]:
    """Turn a full disk, or a folder that cannot be written, into a StoreError with a remedy.

    `elsewhere` says how another folder is chosen.
    """
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(existing_parent(path)).free // 2**20
            raise StoreError(
                f"{path}: the disk is full ({free} MiB free)",
                "free some space and build again; everything built so far is kept",
                code="disk-full",
                path=path,
                free_mib=free,
            ) from cause
        if cause.errno in (errno.EROFS, errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise StoreError(
                f"{path}: the folder cannot be written ({cause.strerror})",
                elsewhere,
                code="folder-not-writable",
                path=path,
                reason=cause.strerror,
            ) from cause
        raise


def existing_parent(path: Path) -> Path:
    """The nearest parent of `path` that exists, or `path` itself."""
    while not path.exists():
        path = path.parent
    return path
