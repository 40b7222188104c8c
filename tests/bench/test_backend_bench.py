"""The bench of single calls runs, and says what it could not measure.

Run: python -m pytest tests/bench/test_backend_bench.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
MEASURED = {
    *("requests_per_second", "requests_per_second_range", "steady_per_second", "ceiling"),
    *("cpu_ms", "peak_mib", "early_mib", "late_mib", "most_in_flight", "calls", "server_busy"),
    *("aim", "aim_cpu_ms", "version"),
}
BROKEN = """#!/bin/sh
echo 'Traceback' >&2
echo 'ERROR: no matching distribution' >&2
echo 'a notice of a newer pip' >&2
exit 1
"""
"""Stands for a peer's interpreter: nothing can be installed with it, or run."""

Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Gives a module of the benches, imported as its own command imports it."""
    monkeypatch.syspath_prepend(str(BENCH))
    return import_module


def test_ours_and_the_sdk(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "backend.json"
    assert load("backend").main(["--tiny", "--json", str(path)]) == 0
    whole = json.loads(path.read_text(encoding="utf8"))
    assert whole["bench"] == "backend" and whole["machine"]["cores"] > 0
    found = whole["figures"]
    assert found.keys() == {"openai SDK", "ours"}
    for case in found.values():
        assert case.keys() == MEASURED
        assert 0 < case["requests_per_second"] < case["ceiling"] == 3200
        assert case["cpu_ms"] > 0
        assert case["peak_mib"] > 10, "of its own process"
        assert case["calls"] == 60
        assert 0 < case["server_busy"] < 1
        assert case["most_in_flight"] <= 16
        assert case["steady_per_second"] is None, "all of it is the first part"
    assert found["ours"]["late_mib"] >= 0.9 * found["ours"]["early_mib"] > 10
    assert found["openai SDK"]["early_mib"] is None
    assert "Single calls" in capsys.readouterr().out


def test_two_processes_share_a_ledger_and_one_server(load: Load) -> None:
    backend = load("backend")
    _, ours = backend.list_cases(backend.TINY, tiny=True)
    twice = backend.replace(ours, processes=2, rounds=[])
    with backend.serve(backend.TINY.latency) as server:
        backend.measure_round(twice, server)
    assert twice.figures["calls"] == 120
    assert twice.figures["ceiling"] == 6400


def test_a_peer_that_does_not_install_is_not_measured(load: Load, tmp_path: Path) -> None:
    backend = load("backend")
    for peer in backend.PEERS:
        python = tmp_path / peer.name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(BROKEN, encoding="utf8")
        python.chmod(0o755)
    for folder, reason in ((tmp_path, "no matching distribution"), (None, "no --peers FOLDER")):
        cases = backend.list_peers(backend.TINY, folder)
        assert len(cases) == len(backend.PEERS)
        for case in cases:
            assert reason in case.figures["not_measured"]


def test_a_client_that_fails_is_not_measured(load: Load, tmp_path: Path) -> None:
    backend = load("backend")
    python = tmp_path / "python"
    python.write_text(BROKEN, encoding="utf8")
    python.chmod(0o755)
    case = backend.Case("broken", "bare", backend.TINY, python=python)
    with backend.serve(backend.TINY.latency) as server:
        for _ in range(2):
            backend.measure_round(case, server)
    assert case.figures == {"not_measured": "it ended with 1: ERROR: no matching distribution"}
    assert not case.rounds


def test_replies_that_are_missing_are_no_figures(load: Load) -> None:
    backend = load("backend")
    bare, _ = backend.list_cases(backend.TINY, tiny=True)
    lap = SimpleNamespace(answered=59, begun=0.0, ended=1.0, cpu_seconds=1.0)
    with pytest.raises(backend.NotMeasured, match="59 of 60 replies were good"):
        backend.read_figures(bare, [lap], {"answers": 60})


def test_the_steady_part_begins_after_a_thousand_answers(load: Load) -> None:
    backend = load("backend")
    case = backend.Case("some", "bare", backend.Load())
    lap = load("peers.lap").Lap(3000, begun=10.0, ended=16.0, cpu_seconds=4.5, peak_mib=80.0)
    tally = {"answers": 3000, "warm": 13.0, "last": 15.0, "most": 256, "cpu": 0.6}
    case.rounds.append(backend.read_figures(case, [lap], tally))
    figures = case.figures
    assert figures["requests_per_second"] == 500
    assert figures["steady_per_second"] == 1000
    assert figures["cpu_ms"] == pytest.approx(1.5)
    assert figures["server_busy"] == pytest.approx(0.1)
    assert figures["ceiling"] == 1280
