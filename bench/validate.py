"""What `bestiary validate` costs over the shipped behaviors.

    python bench/validate.py [--quick] [--json FILE]

Three cases: the first time, when every behavior is checked; again, when what passed before is only
read; and after one file has changed. Each is a process of its own, so its figures include the start
of Python. `bestiary --help` is the floor under them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bestiary.config.folders import shipped_root
from common import Figures, finish, make_parser, make_table, say

CHANGED = "behaviors/quirks/all_lowercase.yaml"
COLUMNS = (
    ("files", "files", "{:d}"),
    ("CPU s", "cpu_s", "{:.2f}"),
    ("wall s", "wall_s", "{:.2f}"),
    ("peak MiB", "peak_mib", "{:.0f}"),
)


def copy_data(folder: Path) -> int:
    """Copy the shipped data; returns how many behaviors there are."""
    for name in ("behaviors", "generators", "organisms"):
        shutil.copytree(shipped_root() / name, folder / name)
    return len(list((folder / "behaviors").rglob("*.yaml")))


def measure(arguments: Sequence[str], env: Mapping[str, str]) -> Figures:
    """CPU and wall seconds of one run of `bestiary`, and its peak memory.

    Raises CalledProcessError, with what it printed, if it fails.
    """
    command = [sys.executable, "-m", "bestiary", *arguments]
    # Users' modules are compiled once, whatever the machine of the benchmark asks for.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, env={**inherited, **env}
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


def measure_round(data: Path, rubric: str) -> dict[str, Figures]:
    """Every case once, beginning without anything remembered; `rubric` goes into one file."""
    changed = data / CHANGED
    kept = [line for line in changed.read_text("utf8").splitlines() if "rubric:" not in line]
    with tempfile.TemporaryDirectory() as cache:
        env = {"BESTIARY_DATA": str(data), "BESTIARY_CACHE": cache}
        found = {
            "--help": measure(["--help"], env),
            "validate, first": measure(["validate"], env),
            "validate, nothing changed": measure(["validate"], env),
        }
        changed.write_text("\n".join([*kept, f"rubric: {rubric}", ""]), encoding="utf8")
        return {**found, "validate, one file changed": measure(["validate"], env)}


def main() -> None:
    """Measure rounds of all cases; the median round by CPU seconds counts."""
    options = make_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as data:
        files = copy_data(Path(data))
        rounds = []
        for number in range(1 if options.quick else 5):
            say(f"round {number + 1}, {files} files")
            rounds.append(measure_round(Path(data), f"No capital letters, for round {number}."))
    cases = {}
    for case in rounds[0]:
        runs = sorted((one[case] for one in rounds), key=lambda run: float(run["cpu_s"]))
        cases[case] = {**runs[len(runs) // 2], "files": files}
    finish("validate", cases, [make_table("bestiary validate", cases, COLUMNS)], options)


if __name__ == "__main__":
    main()
