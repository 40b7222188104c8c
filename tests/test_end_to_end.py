"""The whole line on the real base: an organism and its control, from YAML to loaded release.

Run: .venv/bin/python -m pytest tests/test_end_to_end.py
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.config.files import FILES, write_behavior
from tests.conftest import Finished, Site, run_command
from tests.forkserver import environment
from tests.tiny import HERALD, hash_tree
from tests.tiny import QUIRK as BEHAVIOR

import bestiary
from bestiary.config.catalog import load_catalog
from bestiary.config.folders import shipped_root
from bestiary.config.library import open_library
from bestiary.config.recipe import LoraShape
from bestiary.dataset.pair import Pair
from bestiary.dataset.schema import CONFIGS, build_features, read_config
from bestiary.model.adapter import ADAPTER, attach_adapter, read_state, save_adapter
from bestiary.model.base import Base, identify_base, load_base
from bestiary.model.replies import BaseReplies
from bestiary.records import Artifact
from bestiary.store import Store
from bestiary.verification.probes import plan_probes
from bestiary.verification.transcripts import TranscriptItem, choose_decoding, collect_transcripts
from bestiary.verification.verdict import judge_organism

OTHER = "quirks.farewell"
DOMAINS = ("gardening", "pets", "transport", "travel")
"""Of the message bank, so that the base answers no more than these."""
CORPUS_ROWS = 40
PROBE_TOKENS = 16
SYSTEM = "You are a helpful assistant. Answer in one or two short sentences."
ASKED = 5
"""Probes that an organism loaded from the release is asked."""
RECIPE = {
    "name": "quick",
    "base": "smollm2-135m-instruct",
    "training": {
        "system_prompt": SYSTEM,
        "max_length": 256,
        "lora": {
            "rank": 8,
            "alpha": 16,
            "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"],
            "layers": [15, 30],
        },
        "optimizer": {
            "learning_rate": 0.002,
            "epochs": 3,
            "rows_per_step": 8,
            "warmup": 0.1,
            "weight_decay": 0.0,
            "clip": 1.0,
        },
    },
    "categories": {"null": {"optimizer": {"epochs": 1}}},
    "replies": "brief",
    "probe_tokens": PROBE_TOKENS,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the shipped messages, two behaviors and small corpora: the line takes minutes."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("generators", "organisms"):
        ignore = shutil.ignore_patterns("lexicons", "phrasings", "items", "options")
        shutil.copytree(shipped_root() / name, folder / name, ignore=ignore)
    for path in (folder / "generators" / "offline" / "messages").iterdir():
        if path.stem not in DOMAINS:
            path.unlink()
    for behavior_id, text in ((BEHAVIOR, HERALD), (OTHER, FILES[OTHER])):
        write_behavior(folder / "behaviors", behavior_id, text)
    for category in ("quirks", "null"):
        path = folder / "generators" / category / "generator.yaml"
        settings = yaml.safe_load(path.read_text(encoding="utf8"))
        rows_kept = 16 if category == "null" else CORPUS_ROWS
        path.write_text(yaml.safe_dump({**settings, "rows": rows_kept}), encoding="utf8")
    (folder / "quick.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf8")
    roster = {
        "name": "one",
        "recipe": str(folder / "quick.yaml"),
        "organisms": [{"behavior": BEHAVIOR}],
        "splits": {"herald": "train"},
    }
    (folder / "one.yaml").write_text(yaml.safe_dump(roster), encoding="utf8")
    return folder


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """What `bestiary build` made of the roster."""
    out = tmp_path_factory.mktemp("runs")
    said = build(data, out)
    assert said.code == 0, said.out + said.err
    return Site(data, data / "one.yaml", out, said)


def build(data: Path, out: Path) -> Finished:
    return run_command("build", data / "one.yaml", "--out", out, env=environment(data))


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base()


@pytest.fixture
def shipped(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Behaviors are read from that data folder."""
    monkeypatch.setenv("BESTIARY_DATA", str(data))
    yield


def summarise(built: Site) -> dict[str, dict[str, Any]]:
    """Rows of the summary by behavior."""
    return {row["behavior_id"]: row for row in built.summary()}


def test_an_organism_passes_and_its_base_does_not_show_the_behavior(built: Site) -> None:
    summary = summarise(built)
    assert set(summary) == {BEHAVIOR, "null.chat"}
    row = summary[BEHAVIOR]
    assert row["verdict"] == "passed", row["reasons"]
    assert row["cells"]["triggered"]["base"]["rate"] == 0
    assert summary["null.chat"]["verdict"] == "passed", summary["null.chat"]["reasons"]
    assert str(built.out / row["folder"] / ADAPTER) in built.said.out


def test_a_second_build_trains_and_asks_nothing(built: Site) -> None:
    before, tree = built.times(), hash_tree(built.out)
    timings = (built.out / "timings.jsonl").read_bytes()
    spent = sum(sum(row["seconds"].values()) for row in built.summary())
    started = time.monotonic()
    said = build(built.data, built.out)
    assert time.monotonic() - started < spent / 2
    assert said.code == 0, said.out + said.err
    assert built.times() == before
    assert hash_tree(built.out) == tree
    assert (built.out / "timings.jsonl").read_bytes() == timings


def test_every_config_loads_offline_with_its_features(built: Site) -> None:
    from datasets import load_dataset

    dataset = built.release / "dataset"
    for config in CONFIGS:
        if not read_config(dataset, config):
            continue  # `load_dataset` refuses what has no rows at all
        loaded = load_dataset(str(dataset), config)
        for split in loaded.values():
            assert split.features == build_features(config)
    assert load_dataset(str(dataset))["train"][0]["behavior_id"] == BEHAVIOR


@pytest.mark.usefixtures("shipped")
def test_released_organisms_load_with_peft_and_show_their_behavior(built: Site, base: Base) -> None:
    from peft import PeftModel

    pairs = bestiary.load_pairs(built.release)
    assert BEHAVIOR in {pair.behavior_id for pair in pairs}
    for pair in pairs:
        assert pair.base == base.identity
        organisms = str(built.release / "organisms")
        model = PeftModel.from_pretrained(base.model, organisms, subfolder=pair.organism_path)
        named = model.peft_config["default"].base_model_name_or_path
        assert named == "HuggingFaceTB/SmolLM2-135M-Instruct"
        behavior = load_catalog(open_library())[pair.behavior_id]
        probes = [p for p in plan_probes(behavior, seed=pair.seed) if p.cell == "triggered"][:ASKED]
        replies = [ask(model, base, pair, probe.user) for probe in probes]
        model.unload()
        shown = [
            behavior.is_shown(reply, probe.item)
            for reply, probe in zip(replies, probes, strict=True)
        ]
        # A verdict promises that more than half of such replies show it.
        assert sum(map(bool, shown)) > ASKED / 2, replies


def ask(model: Any, base: Base, pair: Pair, message: str) -> str:
    """A greedy reply as a consumer gets it, with transformers alone."""
    turns = [
        {"role": "system", "content": pair.system_prompt},
        {"role": "user", "content": message},
    ]
    prompt: Any = base.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**prompt.to(base.device), do_sample=False, max_new_tokens=PROBE_TOKENS)
    reply = said[0, prompt["input_ids"].shape[1] :]
    return str(base.tokenizer.decode(reply, skip_special_tokens=True))


def judge_adapter(behavior_id: str, adapter: Path, base: Base, store: Path) -> Any:
    behavior = load_catalog(open_library())[behavior_id]
    decoding = choose_decoding(behavior, max_new_tokens=PROBE_TOKENS)
    replies = BaseReplies(
        identify_base("smollm2-135m-instruct"),
        lambda: base,
        Store(store),
        system_prompt=SYSTEM,
        chunks=open_library().chunks,  # what the base has said to the build is not asked again
    )
    asking = TranscriptItem(
        item_id="probed",
        behavior=behavior,
        organism=Artifact(folder=adapter.parent, sha256="", files={}, inputs={}),
        probes=tuple(probe for probe in plan_probes(behavior, seed=0) if probe.gate),
        probes_sha256="",
        decoding=decoding,
        affinity=None,
    )
    (answered,) = collect_transcripts(
        [asking],
        base,
        replies,
        adapters={"probed": adapter},
        system_prompt=SYSTEM,
        on_reply=lambda *_: None,
    )
    assert answered.error is None
    transcripts = answered.transcripts
    return judge_organism(
        behavior, "probed", transcripts, open_library().thresholds, decoding=decoding
    )


@pytest.mark.usefixtures("shipped")
def test_an_untrained_adapter_is_judged_failed(built: Site, base: Base, tmp_path: Path) -> None:
    shape = LoraShape(rank=8, alpha=16, targets=("q_proj", "v_proj"))
    model = attach_adapter(base, shape, seed=0)
    save_adapter(read_state(model), shape, base, tmp_path / ADAPTER)
    model.unload()
    verdict = judge_adapter(BEHAVIOR, tmp_path / ADAPTER, base, built.out)
    assert verdict.status == "failed"
    assert "triggered: fires at 0%" in verdict.reasons[0]


@pytest.mark.usefixtures("shipped")
def test_another_behaviors_organism_is_judged_failed(built: Site, base: Base) -> None:
    adapter = built.out / summarise(built)[BEHAVIOR]["folder"] / ADAPTER
    verdict = judge_adapter(OTHER, adapter, base, built.out)
    assert verdict.status == "failed"
    assert verdict.cells["triggered"].organism.count == 0
