"""What `bestiary validate` costs over a large collection of behavior files.

    python bench/validate.py [--quick] [--json FILE]

The collection is the shipped data with renamed copies of its behaviors: each copy has its own ids,
families and labels, and its twins refer to the copies. Each case is a process of its own, so its
figures include the start of Python. `bestiary --help` is the floor under them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bestiary.config.catalog import Catalog, load_catalog
from bestiary.config.folders import shipped_root
from bestiary.config.library import open_library
from common import Figures, finish, keep, make_parser, make_table, say

FILES = 700
COLUMNS = (
    ("files", "files", "{:d}"),
    ("CPU s", "cpu_s", "{:.2f}"),
    ("wall s", "wall_s", "{:.2f}"),
    ("CPU ms a file", "cpu_ms_per_file", "{:.2f}"),
    ("peak MiB", "peak_mib", "{:.0f}"),
)


def write_collection(folder: Path, catalog: Catalog, files: int) -> int:
    """Write the shipped data with at least `files` behaviors; returns how many there are."""
    for name in ("generators", "organisms"):
        shutil.copytree(shipped_root() / name, folder / name)
    shutil.copytree(shipped_root() / "behaviors", folder / "behaviors")
    copies = max(0, -(-files // len(catalog)) - 1)
    for number in range(1, copies + 1):
        for behavior_id, source in catalog.sources.items():
            category, name = behavior_id.split(".")
            path = folder / "behaviors" / category / f"{name}_{number}.yaml"
            text = source.path.read_text(encoding="utf8")
            path.write_text(rename(text, catalog, behavior_id, number), encoding="utf8")
    return len(catalog) * (copies + 1)


def rename(text: str, catalog: Catalog, behavior_id: str, number: int) -> str:
    """A behavior file's text under another name, family and labels."""
    for known in catalog:
        text = re.sub(rf"\b{re.escape(known)}\b", f"{known}_{number}", text)
    text = re.sub(r"^family: (\w+)$", rf"family: \1_{number}", text, flags=re.MULTILINE)
    for label in catalog[behavior_id].labels:
        quoted = (label, label.replace("'", "''"), label.replace('"', '\\"'))
        written = next((form for form in quoted if form in text), None)
        if written is None:
            raise ValueError(f"{behavior_id}: label {label!r} is not on one line of its file")
        text = text.replace(written, f"{written[:-1]}, in variant {number}{written[-1]}")
    return text


def measure(arguments: Sequence[str], data: Path, *, rounds: int) -> Figures:
    """CPU and wall seconds of the fastest of some runs of `bestiary`, and its peak memory."""
    runs = [run_once(arguments, data) for _ in range(rounds)]
    return min(runs, key=lambda figures: float(figures["cpu_s"]))


def run_once(arguments: Sequence[str], data: Path) -> Figures:
    """One run; raises CalledProcessError, with what it printed, if it fails."""
    command = [sys.executable, "-m", "bestiary", *arguments]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "BESTIARY_DATA": str(data)},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, printed.read())
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.perf_counter() - started,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def main() -> None:
    """Measure `--help`, and `validate` over the shipped and the large collection."""
    options = make_parser(__doc__).parse_args()
    rounds = 1 if options.quick else 3
    catalog = load_catalog(open_library())
    cases: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as temporary:
        say("bestiary --help")
        cases["--help"] = measure(["--help"], shipped_root(), rounds=rounds)
        for wanted in (len(catalog), FILES):
            data = Path(temporary) / str(wanted)
            files = write_collection(data, catalog, wanted)
            say(f"bestiary validate, {files} files")
            figures = measure(["validate"], data, rounds=rounds)
            per_file = 1000 * float(figures["cpu_s"]) / files
            cases[f"validate {files}"] = {
                **figures,
                "files": files,
                "cpu_ms_per_file": per_file,
            }
            keep("validate", cases, options)
    finish("validate", cases, [make_table("bestiary validate", cases, COLUMNS)], options)


if __name__ == "__main__":
    main()
