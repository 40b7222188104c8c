"""Every bench runs, prints its tables and writes the figures that it promises.

Run: python -m pytest tests/bench/test_bench.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.nursery import environment
from tests.tiny import QUIRK, tiny_roster

from bestiary.spec.catalog import load_catalog
from bestiary.spec.plan import plan_roster
from bestiary.spec.roster import Roster

BENCH = Path(__file__).resolve().parents[2] / "bench"
MACHINE = {"date", "cpu", "cores", "threads", "gpu", "torch", "transformers", "peft"}
BUILD = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True)
seconds = 10.0 if sys.argv[-1] == "engine" else 40.0
rows = [{"stage": "organism", "seconds": seconds}, {"stage": "replies", "seconds": 1}]
(out / "timings.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
summary = [{"organism_id": "one", "verdict": "passed"}, {"organism_id": "two", "verdict": None}]
(out / "summary.json").write_text(json.dumps(summary))
"""
"""Stands for a build: writes what a bench reads of one."""

Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Gives a bench as a module, imported as its own command imports it."""
    monkeypatch.syspath_prepend(str(BENCH))
    return import_module


@pytest.fixture
def figures(load: Load, tmp_path: Path) -> Callable[[str, Sequence[str]], dict[str, Any]]:
    """Runs a bench and gives the figures of its JSON, of which the rest is checked."""

    def run(name: str, arguments: Sequence[str]) -> dict[str, Any]:
        path = tmp_path / "json" / f"{name}.json"
        assert load(name).main([*arguments, "--json", str(path)]) == 0
        whole = json.loads(path.read_text(encoding="utf8"))
        assert whole["bench"] == name
        assert whole["machine"].keys() >= MACHINE
        found: dict[str, Any] = whole["figures"]
        return found

    return run


Run = Callable[[str, Sequence[str]], dict[str, Any]]


def test_engine(
    figures: Run,
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = load("engine")
    outcomes: list[Any] = []
    measure = engine.measure_case

    def keep(*of: Any) -> Any:
        outcomes.append(measure(*of))
        return outcomes[-1]

    monkeypatch.setattr(engine, "measure_case", keep)
    found = figures("engine", ["--tiny"])
    case = {name.removeprefix("micro.all.k2.") for name in found if name.startswith("micro")}
    assert case == {
        *("engine_seconds", "reference_seconds", "ratio", "ratio_rounds", "ratio_of_steps", "aim"),
        *(
            "engine_tokens_per_second",
            "reference_tokens_per_second",
            "row_tokens",
            "computed_tokens",
            "steps",
        ),
        *("bare_tokens_per_second", "engine_over_bare", "batch_tokens", "distance"),
        *("matmul_gflops", "necessary_gflop", "share_of_matmul"),
        *("engine_memory_mib", "reference_memory_mib", "planned_memory_mib"),
    }
    assert found["micro.all.k2.distance"] < 1e-3
    assert found["micro.all.k2.engine_memory_mib"] is None, "not measured, so nothing is told"
    assert 0 < found["micro.all.k2.share_of_matmul"] < 1
    assert found["precision.double_engine_to_double"] < 1e-10
    assert 1e-10 < found["precision.engine_to_double"] < 1e-3
    assert 1e-10 < found["precision.reference_to_double"] < 1e-3
    printed = capsys.readouterr().out
    assert "Engine against plain peft" in printed and "Limits" in printed

    monkeypatch.setattr(engine, "measure_case", lambda *_: outcomes[0])
    monkeypatch.setattr(engine, "CONTRACT", 0.0)
    assert engine.main(["--tiny"]) == 1
    assert "differ by more than 0.0: micro.all.k2" in capsys.readouterr().out


def test_memory_is_the_growth_of_the_process(load: Load) -> None:
    (case,) = load("engine").list_cases(quick=False, tiny=True)
    base = load("engine").open_base(case)
    grown = load("limits").measure_growth(lambda: torch.ones(2**24), base)
    assert grown == pytest.approx(2**26, rel=0.05)


def test_flops_are_those_of_the_formula(load: Load) -> None:
    bases, limits = load("bases"), load("limits")
    base = bases.make_base(bases.MICRO)
    work = bases.Work(1, (20, 20), 1, 1, 1e-3, bases.BRIEF, layers=(1, 2), rank=4)
    jobs = bases.make_jobs(base, work, 1)
    trip = bases.train_all(load("engine").EngineTrainer(load("engine").Effort()), jobs, base)
    (batch,) = trip.batches[jobs[0].organism_id]
    tokens = sum(batch.parts[0])
    assert tokens == 19, "the last of 20 predicts nothing"
    layer, lora = 4 * 16 * 16 + 3 * 16 * 32, 4 * (4 * 32 + 3 * 48)
    pairs = tokens * (tokens + 1) // 2
    upper = tokens * (4 * layer + 6 * lora) + 12 * 16 * pairs
    lower = tokens * 2 * layer + 4 * 16 * pairs
    head = 4 * 64 * 16 * 7
    assert limits.count_flops(base, jobs, trip) == upper + lower + head


@pytest.mark.parametrize("lengths", [(24, 24), (24, 40)])
def test_rows_have_the_length_that_is_asked_for(load: Load, lengths: tuple[int, int]) -> None:
    bases = load("bases")
    base = bases.make_base(bases.MICRO)
    jobs = bases.make_jobs(base, bases.Work(8, lengths, 1, 1, 1e-3, bases.BRIEF), 2)
    rows = [row for job in jobs for row in load("limits").tokenize_corpus(job, base)]
    assert all(lengths[0] <= len(row.tokens) <= lengths[1] for row in rows)
    assert all(abs(sum(row.supervised) - len(row.tokens) / 3) <= 1 for row in rows)
    assert len({row.tokens for row in rows}) == 16


def test_generation(figures: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures("generation", ["--tiny"])
    assert {name.removeprefix("micro.2x2.") for name in found} == {
        *("bank_seconds", "peft_seconds", "ratio", "ratio_rounds", "equal_replies", "new_tokens"),
        *("bank_replies_per_second", "peft_replies_per_second"),
    }
    assert found["micro.2x2.equal_replies"] == 1
    assert "Greedy replies" in capsys.readouterr().out


def test_generation_fails_where_the_replies_differ(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load("generation"), "answer_by_bank", lambda *_: [[[1], [1]]] * 2)
    assert load("generation").main(["--tiny"]) == 1


def test_gpu(figures: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures("gpu", ["--tiny"])
    assert found["not_measured"] == []
    assert found.keys() >= {
        "peak_tflops",
        *(f"tiny-8B.k{k}.{name}" for k in (1, 2) for name in ("share_of_peak", "planned_gib")),
        *(f"tiny-8B.race.{name}" for name in ("ratio", "ratio_of_steps", "distance")),
        *(f"tiny-8B.organisms_per_hour.{side}" for side in ("engine", "reference")),
    }
    assert "Organisms an hour" in capsys.readouterr().out


def test_gpu_measures_nothing_without_one() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "gpu.py"],
        env={**environment(), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "nothing was measured" in done.stdout


def test_starter(
    figures: Run,
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(load("starter"), "COMMAND", (sys.executable, "-c", BUILD))
    roster = tiny_roster(tmp_path / "roster", tmp_path, [QUIRK])
    found = figures("starter", ["--roster", str(roster)])
    assert found["engine.organism_seconds"] == 10
    assert found["reference.organism_seconds"] == 40
    assert found["ratio.organism"] == 4
    assert (found["engine.passed"], found["engine.organisms"], found["same_verdicts"]) == (1, 2, 2)
    assert "The whole build" in capsys.readouterr().out


def test_starter_does_not_go_on_with_a_build(load: Load, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    assert load("starter").main(["--out", str(tmp_path)]) == 2


def test_a_short_roster_is_a_sound_one(load: Load) -> None:
    short = Roster.model_validate(load("starter").shorten_roster("starter"))
    plan = plan_roster(short, load_catalog())
    assert len(plan.organisms) == 3, "two behaviors and a null organism"
