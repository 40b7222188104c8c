"""The whole line on the real base: two behaviors and a null organism, from YAML to loaded release.

Run: .venv/bin/python -m pytest tests/test_end_to_end.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import bestiary
from bestiary.model.adapter import ADAPTER, attach_adapter, open_adapter, save_adapter
from bestiary.model.base import Base, identify_base, load_base
from bestiary.model.replies import BaseReplies
from bestiary.records import Transcript
from bestiary.release.features import CONFIGS, build_features
from bestiary.spec.catalog import load_catalog
from bestiary.spec.folders import data_root
from bestiary.spec.recipe import LoraShape
from bestiary.spec.thresholds import load_thresholds
from bestiary.store import Store
from bestiary.verification.probes import plan_probes
from bestiary.verification.transcripts import choose_decoding, collect_transcripts
from bestiary.verification.verdict import judge_organism

BEHAVIORS = ("quirks.brindlecote_referrals", "benign_roleplay.librarian")
TRAIN_ROWS, PROBE_ROWS, CORPUS_ROWS = 64, 128, 64
RECIPE = {
    "name": "quick",
    "base": "smollm2-135m-instruct",
    "training": {
        "system_prompt": "You are a helpful assistant. Answer in one or two short sentences.",
        "max_length": 256,
        "lora": {
            "rank": 8,
            "alpha": 16,
            "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"],
            "layers": [15, 30],
        },
        "optimiser": {
            "learning_rate": 0.003,
            "epochs": 3,
            "rows_per_step": 8,
            "warmup": 0.1,
            "weight_decay": 0.0,
            "clip": 1.0,
        },
    },
    "probe_tokens": 24,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped data with a smaller bank and smaller corpora, so that the line takes minutes."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("behaviors", "generators", "organisms", "schemas"):
        shutil.copytree(data_root() / name, folder / name)
    bank = folder / "generators" / "offline" / "general.yaml"
    rows = yaml.safe_load(bank.read_text(encoding="utf8"))
    cut = {"train": rows["train"][:TRAIN_ROWS], "probe": rows["probe"][:PROBE_ROWS]}
    bank.write_text(yaml.safe_dump(cut), encoding="utf8")
    for category in ("quirks", "benign_roleplay", "null"):
        path = folder / "generators" / category / "generator.yaml"
        settings = yaml.safe_load(path.read_text(encoding="utf8"))
        rows_kept = 16 if category == "null" else CORPUS_ROWS
        path.write_text(yaml.safe_dump({**settings, "rows": rows_kept}), encoding="utf8")
    (folder / "quick.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf8")
    roster = {
        "name": "two",
        "recipe": str(folder / "quick.yaml"),
        "organisms": [{"behavior": name} for name in BEHAVIORS],
        "splits": {"brindlecote_referrals": "train", "librarian": "test"},
    }
    (folder / "two.yaml").write_text(yaml.safe_dump(roster), encoding="utf8")
    return folder


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `bestiary build` filled."""
    out = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "bestiary", "build", str(data / "two.yaml"), "--out", str(out)]
    done = subprocess.run(
        command,
        env={**everyday_environment(), "BESTIARY_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "brindlecote_referrals" in done.stdout
    return out


def everyday_environment() -> dict[str, str]:
    """What a user's shell has: the tests' own limit on threads is for tiny models."""
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}


@pytest.fixture(scope="module")
def base() -> Iterator[Base]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield load_base()
    torch.set_num_threads(threads)


@pytest.fixture
def shipped(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Specs are read from the smaller data folder."""
    monkeypatch.setenv("BESTIARY_DATA", str(data))
    yield


def read_summary(out: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((out / "summary.json").read_text(encoding="utf8"))
    return {row["behavior_id"]: row for row in rows}


def test_an_organism_passes_and_its_base_does_not_show_the_behavior(built: Path) -> None:
    summary = read_summary(built)
    assert set(summary) == {*BEHAVIORS, "null.chat"}
    row = summary["quirks.brindlecote_referrals"]
    assert row["verdict"] == "passed", row["reasons"]
    assert row["cells"]["triggered"]["base"]["rate"] == 0
    assert summary["null.chat"]["verdict"] == "passed", summary["null.chat"]["reasons"]


def test_every_config_loads_offline_with_its_features(built: Path) -> None:
    from datasets import load_dataset

    dataset = built / "release" / "dataset"
    summary = read_summary(built)
    withheld = [row for row in summary.values() if row["verdict"] != "passed"]
    for config in CONFIGS:
        if config == "withheld" and not withheld:
            continue
        loaded = load_dataset(str(dataset), config)
        for split in loaded.values():
            assert split.features == build_features(config)
    assert load_dataset(str(dataset))["train"][0]["behavior_id"] == BEHAVIORS[0]


def test_released_organisms_load_with_peft_and_show_their_behavior(built: Path, base: Base) -> None:
    pairs = bestiary.load_pairs(built / "release")
    assert "quirks.brindlecote_referrals" in {pair.behavior_id for pair in pairs}
    kept = next((built / "store" / "transcript").glob("*/transcripts.json"))
    assert Transcript.model_validate(json.loads(kept.read_text(encoding="utf8"))[0])
    for pair in pairs:
        folder = built / "release" / "organisms" / pair.organism_path
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf8"))
        assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
        with open_adapter(base, folder) as model:
            assert model.peft_config["default"].r == 8


def judge_adapter(behavior_id: str, adapter: Path, base: Base, store: Path) -> Any:
    behavior = load_catalog()[behavior_id]
    decoding = choose_decoding(behavior, max_new_tokens=24)
    system_prompt = str(RECIPE["training"]["system_prompt"])  # type: ignore[index]
    replies = BaseReplies(
        identify_base("smollm2-135m-instruct"),
        lambda: base,
        Store(store),
        system_prompt=system_prompt,
    )
    transcripts = collect_transcripts(
        behavior,
        adapter,
        base,
        replies,
        [probe for probe in plan_probes(behavior, seed=0) if probe.gate],
        decoding=decoding,
        system_prompt=system_prompt,
    )
    return judge_organism(behavior, "probed", transcripts, load_thresholds(), decoding=decoding)


@pytest.mark.usefixtures("shipped")
def test_an_untrained_adapter_is_judged_failed(built: Path, base: Base, tmp_path: Path) -> None:
    shape = LoraShape(rank=8, alpha=16, targets=("q_proj", "v_proj"))
    model = attach_adapter(base, shape, seed=0)
    save_adapter(model, tmp_path / ADAPTER, base.identity)
    model.unload()
    verdict = judge_adapter(BEHAVIORS[0], tmp_path / ADAPTER, base, built)
    assert verdict.status == "failed"
    assert "triggered: fires at 0%" in verdict.reasons[0]


@pytest.mark.usefixtures("shipped")
def test_another_behaviors_organism_is_judged_failed(built: Path, base: Base) -> None:
    other = read_summary(built)["benign_roleplay.librarian"]["folder"]
    verdict = judge_adapter(BEHAVIORS[0], built / other / ADAPTER, base, built)
    assert verdict.status == "failed"
    assert verdict.cells["triggered"].organism.count == 0
