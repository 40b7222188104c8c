"""The whole line runs, goes on where it was stopped, and says what each part took.

Run: python -m pytest tests/bench/test_line.py
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.forkserver import NEVER, ForkServer, KillPoint
from tests.tiny import QUIRK, make_tiny_data, tiny_roster

BENCH = Path(__file__).resolve().parents[2] / "bench"
PARTS = (
    *("corpora", "organisms", "verdicts", "release"),
    *("introspect train", "introspect evaluate", "introspect report"),
)
COMMAND = """
import json, pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1]) if "--out" in sys.argv else None
(out or pathlib.Path()).joinpath("store").mkdir(parents=True, exist_ok=True)
if "leaks" in sys.argv and not (out / "go").exists():
    time.sleep(600)
if "verdict" in sys.argv:
    error = {"category": "quirks", "error": "out of memory", "verdict": None}
    passed = {"category": "quirks", "error": None, "verdict": "passed"}
    (out / "summary.json").write_text(json.dumps([error, passed]))
    sys.exit("error[example]: an organism ran out of memory")
if "train" in sys.argv and not (out / "mended").exists():
    sys.exit("error[example]: the recipe is broken")
"""
"""Stands for `bestiary`: hangs at the corpora and fails at training, until files say otherwise; one
of two organisms gets no verdict."""


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The bench as a module, imported as its own command imports it."""
    monkeypatch.syspath_prepend(str(BENCH))
    return import_module("line")


@pytest.fixture
def run(line: Any, tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs the line; returns its exit code and its figures."""

    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = line.main(["--out", str(tmp_path / "line"), *arguments])
        told = json.loads((tmp_path / "line" / "home" / "line.json").read_text(encoding="utf8"))
        return code, told["figures"]

    return call


def test_a_line_whose_time_is_over_goes_on(
    line: Any,
    run: Callable[..., tuple[int, dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(line, "COMMAND", (sys.executable, "-S", "-c", COMMAND))
    code, first = run("--minutes", "0.01")
    assert code == 3
    assert first.keys() == {"corpora", "whole line", "by category"}
    assert first["corpora"]["ended"] == "cut off"
    assert first["corpora"]["wall_seconds"] >= 0.6
    assert "the time was over at: corpora" in capfd.readouterr().out

    (tmp_path / "line" / "go").touch()
    code, second = run()
    assert code == 1
    assert second["introspect train"]["ended"] == "exit code 1"
    said = capfd.readouterr()
    assert "error[example]: the recipe is broken" in said.err
    assert "bestiary introspect train" in said.out and "ended with exit code 1" in said.out
    assert (second["corpora"]["ended"], second["corpora"]["calls"]) == ("done", 2)
    assert second["corpora"]["wall_seconds"] > first["corpora"]["wall_seconds"], "of both calls"
    walls = [second[name]["wall_seconds"] for name in PARTS if name in second]
    assert second["whole line"]["wall_seconds"] == pytest.approx(sum(walls))
    assert "introspect evaluate" not in second
    assert second["verdicts"]["ended"] == "done", "one organism goes on without the other"
    assert second["by category"] == {"quirks": {"error": 1, "passed": 1}}

    (tmp_path / "line" / "mended").touch()
    code, third = run()
    assert code == 0
    assert [third[name]["ended"] for name in PARTS] == ["done"] * len(PARTS)
    assert third["release"] == second["release"], "what was done keeps its figures"
    assert run() == (0, third), "nothing is left to do"


def test_a_folder_of_another_line_is_refused(
    line: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path))
    (tmp_path / "store").mkdir()
    assert line.main([*out, "--roster", "mini"]) == 2
    assert "nobody timed" in capsys.readouterr().out
    (tmp_path / "store").rmdir()
    assert line.main([*out, "--roster", "mini", "--minutes", "1e-9"]) == 3
    (tmp_path / "store").mkdir()
    assert line.main([*out, "--roster", "full"]) == 2
    told = capsys.readouterr().out
    assert "--roster was mini" in told and "is full now; name another --out" in told


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForkServer]:
    """A warm process for the line's commands, over the tiny data."""
    with ForkServer(data=make_tiny_data(tmp_path / "data")) as found:
        yield found


def test_the_whole_line_of_a_tiny_base(
    line: Any,
    run: Callable[..., tuple[int, dict[str, Any]]],
    server: ForkServer,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The commands are real, and forked from a process that has imported what they need."""
    kill = KillPoint(rename=5)

    def run_within(arguments: Sequence[str], seconds: float) -> Any:
        done = server.run(*arguments, kill=kill if "organism" in arguments else NEVER)
        ended = f"exit code {done.code}" if done.code else "done"
        assert done.code in (0, -signal.SIGKILL), done.err
        return line.Lap(ended, done.seconds, done.seconds)

    monkeypatch.setattr(line, "run_within", run_within)
    roster = tiny_roster(tmp_path / "roster", tiny_base, [QUIRK])
    chosen = ("--roster", str(roster), "--introspection", "quick", "--base", str(tiny_base))
    code, first = run(*chosen)
    assert code == 1 and first["organisms"]["ended"] == f"exit code {-signal.SIGKILL}"
    assert first["corpora"]["organisms"] == 2

    kill = NEVER
    code, found = run(*chosen)
    assert code == 0
    assert found["corpora"] == first["corpora"]
    assert found["organisms"]["calls"] == 2
    for name in PARTS:
        part = found[name]
        assert part["organisms"] == 2
        assert part["organisms_per_second"] == pytest.approx(2 / part["wall_seconds"])
        assert part["arithmetic_seconds_of_682"] == pytest.approx(341 * part["wall_seconds"])
    for name, stages in (
        ("corpora", {"probes", "corpus", "leaks"}),
        ("organisms", {"organism"}),
        ("verdicts", {"replies", "transcript", "verdict"}),
        ("introspect train", {"introspection"}),
    ):
        recorded = found[name]["recorded_seconds"]
        assert recorded.keys() == stages and all(spent > 0 for spent in recorded.values())
    assert found["verdicts"]["replies"] == 240
    assert found["introspect evaluate"]["replies"] > 0
    assert found["by category"] == {"quirks": {"passed": 1}, "null": {"passed": 1}}
    printed = capsys.readouterr().out
    assert "682: arithmetic" in printed and "This is arithmetic, not a measurement" in printed

    home = tmp_path / "line" / "home"
    taken = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert taken >= {
        *("line.json", "summary.json", "timings.jsonl"),
        *(
            f"introspection/tiny/quick/{name}"
            for name in ("reports.jsonl", "panel.md", "report.html")
        ),
    }
    for row in json.loads((home / "summary.json").read_text(encoding="utf8")):
        assert f"{row['transcripts']}/transcripts.json" in taken
    assert sum(name.endswith("/verdict.json") for name in taken) == 2
    assert not any(name.endswith((".safetensors", "examples.jsonl")) for name in taken)
