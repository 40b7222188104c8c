"""Every bench runs, prints its tables and writes the figures that it promises.

Run: python -m pytest tests/bench/test_bench.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.conftest import Site
from tests.tiny import QUIRK, tiny_roster

from bestiary.config.catalog import load_catalog
from bestiary.config.library import open_library
from bestiary.config.plan import plan_roster
from bestiary.config.roster import Roster

BENCH = Path(__file__).resolve().parents[2] / "bench"
MACHINE = {"date", "cpu", "cores", "threads", "gpu", "torch", "transformers", "peft"}
TRAINED = {
    *("organisms", "slots", "steps", "batch_tokens", "row_tokens", "computed_tokens"),
    *("engine_seconds", "reference_seconds", "ratio", "ratio_range", "ratio_of_steps", "aim"),
    *("engine_tokens_per_second", "reference_tokens_per_second", "steps_tokens_per_second"),
    *("engine_organisms_per_hour", "reference_organisms_per_hour", "distance"),
    *("bare_tokens_per_second", "engine_over_bare"),
    *("matmul_tflops", "share_of_matmul", "aim_share"),
    *("engine_gib", "reference_gib", "planned_gib"),
}
"""What is told of one case of training."""
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


def test_introspection(figures: Run) -> None:
    (case,) = figures("introspection", ["--tiny"]).values()
    told = {"peft_seconds", "same_seconds", "wide_seconds", "same_ratio", "wide_ratio", "aim"}
    assert told <= case.keys()
    assert case["distance"] < 1e-4, "both ways are one training"


def test_engine(figures: Run, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures("engine", ["--tiny"])
    assert found.keys() == {"micro all K=2", "memory micro all K=2", "precision micro"}
    case = found["micro all K=2"]
    assert case.keys() == TRAINED
    assert case["distance"] < 1e-3
    assert 0 < case["share_of_matmul"] < 1
    assert (case["slots"], case["steps"]) == (2, 4)
    assert 0 < case["computed_tokens"] < case["row_tokens"], "the last token predicts nothing"
    assert case["ratio_range"] == [case["ratio"], case["ratio"]]
    assert case["engine_gib"] is None, "a CPU does not tell"
    for name in ("ratio_of_steps", "engine_over_bare", "steps_tokens_per_second", "matmul_tflops"):
        assert case[name] > 0
    memory = found["memory micro all K=2"]
    assert memory.keys() == {
        *("grown_mib", "planned_mib", "peak_gib", "planned_over_peak", "reference_grown_mib"),
    }
    assert memory["grown_mib"] > 0 and memory["reference_grown_mib"] > 0
    assert 0.85 < memory["planned_over_peak"] < 1.15
    precision = found["precision micro"]
    assert precision.keys() == {
        *("engine_to_double", "reference_to_double", "double_engine_to_double"),
    }
    assert precision["double_engine_to_double"] < 1e-10
    assert 1e-10 < precision["engine_to_double"] < 1e-3
    assert 1e-10 < precision["reference_to_double"] < 1e-3
    printed = capsys.readouterr().out
    for title in ("Engine against plain peft", "Limits", "Memory of a fresh process"):
        assert title in printed


@pytest.mark.soak
def test_engine_fails_where_the_sides_differ(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = load("engine")
    monkeypatch.setattr(engine, "list_memory", lambda **_: [])  # it takes a process a side
    for name in ("training", "engine"):
        monkeypatch.setattr(load(name), "CONTRACT", 0.0)
    assert engine.main(["--tiny"]) == 1
    assert "differ by more than 0.0: micro all K=2" in capsys.readouterr().out


def test_a_bench_says_where_the_sides_differ_and_what_it_could_not_measure(load: Load) -> None:
    training = load("training")
    found = {
        "equal": {"distance": 1e-3},
        "apart": {"distance": 0.5},
        "broken": {"distance": float("nan")},
        "lost": {"not_measured": "the time was over"},
    }
    assert training.list_apart(found) == ["apart", "broken"]
    assert training.list_lost(found) == ["lost: the time was over"]


def test_a_case_at_fault_leaves_the_others(load: Load, tmp_path: Path) -> None:
    training, engine = load("training"), load("engine")
    (case,) = engine.list_cases(quick=False, tiny=True)
    broken = replace(case, part="broken", work=replace(case.work, learning_rate=1e30))
    late = replace(case, part="late")
    setting = training.Setting(load("limits").make_product(64), training.open_base)
    options = SimpleNamespace(json=tmp_path / "found.json")
    found = training.measure_cases("engine", [broken, case], setting, options)
    assert "learning_rate" in found["micro broken K=2"]["not_measured"]
    assert found["micro all K=2"]["ratio"] > 0
    assert json.loads(options.json.read_text(encoding="utf8"))["figures"].keys() == found.keys()
    over = replace(setting, end=0.0)
    assert training.list_lost(training.measure_cases("engine", [late], over, options))


def test_organisms_through_fewer_slots(load: Load) -> None:
    training, engine = load("training"), load("engine")
    (case,) = engine.list_cases(quick=False, tiny=True)
    work = replace(case.work, rows=4, uneven=True)
    refilled = replace(case, organisms=5, slots=2, work=work)
    setting = training.Setting(load("limits").make_product(64), training.open_base)
    found = training.measure_case(refilled, training.open_base(refilled.shape), setting)
    assert found["distance"] < 1e-3 and found["ratio"] > 0
    assert found["ratio_of_steps"] is None, "organisms begin in mid-run"


def test_memory_is_the_growth_of_the_process(load: Load) -> None:
    (case,) = load("engine").list_cases(quick=False, tiny=True)
    base = load("training").open_base(case.shape)
    growth = load("limits").measure_growth(lambda: torch.ones(2**24), base)
    assert growth.grown == pytest.approx(2**26, rel=0.05)


def test_flops_are_those_of_the_formula(load: Load) -> None:
    bases, limits = load("bases"), load("limits")
    base = bases.make_base(bases.MICRO)
    work = bases.Work(2, (20, 20), 2, 2, 1e-3, bases.BRIEF, layers=(1, 2), rank=4)
    jobs = bases.make_jobs(base, work, 1)
    trip = bases.train_all(
        load("engine").EngineTrainer(load("engine").TrainingResources()), jobs, base
    )
    batches = trip.batches[jobs[0].organism_id]
    shared, *lengths = batches[0].segments[0]
    assert [shared + length for length in lengths] == [19, 19], "the last of 20 predicts nothing"
    tokens = shared + sum(lengths)
    layer, entry, lora = 4 * 16 * 16 + 3 * 16 * 32, 3 * 16 * 16, 4 * (4 * 32 + 3 * 48)
    pairs = 2 * (19 * 20 // 2) - shared * (shared + 1) // 2
    upper = tokens * (4 * layer - 2 * entry + 6 * lora) + 12 * 16 * pairs
    lower = tokens * 2 * layer + 4 * 16 * pairs
    head = 4 * 64 * 16 * 7 * 2
    assert limits.count_flops(base, jobs, trip) == 2 * (upper + head) + lower
    assert limits.count_flops(base, jobs, trip, since=1) == upper + head
    assert limits.count_row_tokens(base, jobs) == 80
    assert limits.count_row_tokens(base, jobs, since=1) == 40


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
    found = figures("generation", ["--tiny"])["micro 2x2"]
    assert found.keys() == {
        *("bank_seconds", "peft_seconds", "ratio", "ratio_range", "equal_replies", "new_tokens"),
        *("bank_replies_per_second", "peft_replies_per_second"),
        *("tokens_per_second", "matmul_tflops", "share_of_matmul"),
    }
    assert 0 < found["share_of_matmul"] < 1
    assert found["equal_replies"] == 1
    assert found["ratio"] == pytest.approx(found["peft_seconds"] / found["bank_seconds"])
    assert found["bank_replies_per_second"] == pytest.approx(4 / found["bank_seconds"])
    assert 4 <= found["new_tokens"] <= 16
    assert "Greedy replies" in capsys.readouterr().out


def test_generation_fails_where_the_replies_differ(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load("generation"), "answer_by_bank", lambda *_: [[[1], [1]]] * 2)
    assert load("generation").main(["--tiny"]) == 1


def test_gpu(figures: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures("gpu", ["--tiny"])
    replies = found.pop("tiny-0.6B 2x2")
    assert replies["bank_replies_per_second"] == pytest.approx(4 / replies["bank_seconds"])
    assert replies["peft_replies_per_second"] == pytest.approx(2 / replies["peft_seconds"])
    assert replies["ratio"] == pytest.approx(2 * replies["peft_seconds"] / replies["bank_seconds"])
    assert found.keys() == {f"tiny-{size} 256-token steps K=2" for size in ("8B", "0.6B")}
    for case in found.values():
        assert case.keys() == TRAINED
        assert case["planned_gib"] > 0
        assert case["share_of_matmul"] > 0
        assert 0 < case["distance"] < 1, "in bf16"
        assert case["engine_organisms_per_hour"] > 0
    assert "planned GiB" in capsys.readouterr().out


def test_gpu_goes_on_with_the_cases_that_are_missing(
    load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, main = tmp_path / "gpu.json", load("gpu").main
    small, large = "tiny-0.6B 256-token steps K=2", "tiny-8B 256-token steps K=2"
    asked = "tiny-0.6B 2x2"

    def run(*arguments: str) -> tuple[dict[str, Any], str]:
        assert main(["--tiny", "--json", str(path), *arguments]) == 0
        return json.loads(path.read_text(encoding="utf8"))["figures"], capsys.readouterr().err

    first, told = run("--case", small)
    assert first.keys() == {small} and small in told
    whole = json.loads(path.read_text(encoding="utf8"))
    whole["figures"][large] = {"not_measured": "the time was over"}
    path.write_text(json.dumps(whole), encoding="utf8")
    second, told = run()
    assert second.keys() == {small, large, asked}
    assert second[small] == first[small] and small not in told and large in told
    assert second[large]["ratio"] > 0
    third, told = run()
    assert third == second and told == ""

    whole["machine"]["commit"] = "0000000"
    path.write_text(json.dumps(whole), encoding="utf8")
    anew, told = run("--case", large)
    assert "commit was 0000000" in told
    assert anew.keys() == {large}


def test_gpu_lists_its_cases_where_one_is_not_known(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["--help"], ["--case", "Qwen3-9B"]):
        with pytest.raises(SystemExit):
            load("gpu").main(arguments)
        out, err = capsys.readouterr()
        assert "Qwen3-8B 4k-token steps, ragged K=4" in out + err


def test_a_gpu_loads_each_base_once_and_the_largest_first(load: Load) -> None:
    cases = load("gpu").list_cases(quick=False, tiny=False)
    assert len({case.name for case in cases}) == len(cases)
    bases = [base for base, _ in groupby(case.base for case in cases)]
    assert bases == ["Qwen3-8B", "Qwen3-0.6B", "SmolLM2-135M's shape"]


@pytest.mark.parametrize("bench", ["gpu", "contract"])
def test_nothing_is_measured_without_a_gpu(
    bench: str, load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert load(bench).main([]) == 2
    assert "nothing was measured" in capsys.readouterr().out


def test_operations(figures: Run) -> None:
    found = figures("operations", ["--quick"])
    names = ("one organism", "4 organisms, rows of one length", "4 organisms, ragged rows")
    one, even, ragged = (found[name]["operations"] for name in names)
    assert 0 < one <= even < ragged
    assert found["4 organisms, ragged rows filled up"]["operations"] < ragged
    assert even < 1.1 * one, "organisms side by side share operations"


def test_contract(figures: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures("contract", ["--tiny"])
    assert all(line["holds"] for line in found.values())
    assert 0 < found["engine from peft, fp32"]["measured"] < 1e-4
    assert found["bf16 over peft"]["measured"] > 0
    exact = {"unlike replies, fp32"}
    exact |= {f"{name}, {p}" for name in ("run twice", "other neighbors") for p in ("fp32", "bf16")}
    assert {name for name, line in found.items() if line["limit"] == 0} == exact
    assert "The engine's contract" in capsys.readouterr().out


def test_contract_fails_where_a_line_does_not_hold(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = load("contract")

    def fail() -> float:
        raise RuntimeError("no kernel for this device")

    lines = [
        contract.Line("kept", 1.0, lambda: 1.0),
        contract.Line("broken", 1.0, lambda: 1.5),
        contract.Line("undefined", 1.0, lambda: float("nan")),
        contract.Line("at fault", 1.0, fail),
    ]
    monkeypatch.setattr(contract, "list_lines", lambda _: lines)
    assert contract.main(["--tiny"]) == 1
    told = capsys.readouterr().out.split("does not hold: ")[1:]
    assert told == ["broken: 1.5\n", "undefined: nan\n", "at fault: no kernel for this device\n"]


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
    assert found["engine"]["organism_seconds"] == 10
    assert found["reference"]["organism_seconds"] == 40
    assert found["ratio"]["organism_ratio"] == 4
    assert (found["engine"]["passed"], found["engine"]["organisms"]) == (1, 2)
    assert found["ratio"]["same_verdicts"] == 2
    assert "The whole build" in capsys.readouterr().out


def test_stages_are_read_from_a_real_build(load: Load, first: Site) -> None:
    stages = load("starter").read_stages(first.out)
    assert all(seconds > 0 for seconds in stages.values()), stages


def test_starter_does_not_go_on_with_a_build(load: Load, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    assert load("starter").main(["--out", str(tmp_path)]) == 2


def test_a_short_roster_is_a_sound_one(load: Load) -> None:
    short = Roster.model_validate(load("starter").shorten_roster("starter"))
    plan = plan_roster(short, load_catalog(open_library()))
    assert len(plan.organisms) == 3, "two behaviors and a null organism"
