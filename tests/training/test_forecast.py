"""What training takes on a GPU is told from a base's settings, for every recipe that is shipped.

Run: python -m pytest tests/training/test_forecast.py
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Bestiary
from tests.tiny import QUIRK, tiny_roster
from transformers import AutoConfig, LlamaConfig, Qwen3Config

from bestiary.config.folders import shipped_root

RECIPES = sorted((shipped_root() / "organisms" / "recipes").glob("*.yaml"))
REAL = [path for path in RECIPES if "revision:" in path.read_text("utf8")]
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {"hidden": 1024, "inner": 3072, "layers": 28, "heads": 16, "tied": True},
    "qwen3-1.7b": {"hidden": 2048, "inner": 6144, "layers": 28, "heads": 16, "tied": True},
    "qwen3-4b": {"hidden": 2560, "inner": 9728, "layers": 36, "heads": 32, "tied": True},
    "qwen3-8b": {"hidden": 4096, "inner": 12288, "layers": 36, "heads": 32, "tied": False},
    "qwen3-14b": {"hidden": 5120, "inner": 17408, "layers": 40, "heads": 40, "tied": False},
    "llama-3.3-70b": {"hidden": 8192, "inner": 28672, "layers": 80, "heads": 64, "tied": False},
}
"""As the models' own settings state them."""


def write_settings(folder: Path, base: Path, name: str) -> Path:
    """A base without weights: the settings of a real one, and the tiny one's tokenizer."""
    folder.mkdir()
    for path in base.glob("*"):
        if path.suffix in (".json", ".jinja") and "safetensors" not in path.name:
            shutil.copy(path, folder)
    shape = SHAPES[name]
    kind = Qwen3Config if name.startswith("qwen3") else LlamaConfig
    kind(
        vocab_size=151936 if kind is Qwen3Config else 128256,
        hidden_size=shape["hidden"],
        intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=shape["tied"],
    ).save_pretrained(folder)
    return folder


def use_base(recipe: Path, folder: Path, base: Path) -> Path:
    """A recipe with another base, which is a folder."""
    text = re.sub(r"(?m)^revision: .*\n", "", recipe.read_text("utf8"))
    changed = {**yaml.safe_load(text), "base": str(base), "name": "mine"}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(changed), encoding="utf8")
    return path


@pytest.fixture
def roster(tmp_path: Path, tiny_data: Path, tiny_base: Path) -> Path:
    return tiny_roster(tmp_path / "roster", tiny_base, [QUIRK])


def forecast(bestiary: Bestiary, roster: Path, recipe: Path, gpu: str) -> dict[str, Any]:
    done = bestiary("plan", roster, "--recipe", recipe, "--gpu", gpu, "--json")
    assert done.code == 0, done.err
    told: dict[str, Any] = json.loads(done.out)["training"]
    return told


def test_every_shipped_base_has_a_shape_here() -> None:
    bases = {path.stem: yaml.safe_load(path.read_text("utf8"))["base"] for path in REAL}
    assert {*bases.values()} == {bases[name] for name in SHAPES}


def test_an_8b_base_fits_and_its_operations_are_those_of_its_weights(
    bestiary: Bestiary, roster: Path, tmp_path: Path, tiny_base: Path
) -> None:
    name = "qwen3-8b"
    (recipe,) = [path for path in REAL if path.stem == name]
    base = write_settings(tmp_path / "base", tiny_base, name)
    told = forecast(bestiary, roster, use_base(recipe, tmp_path, base), "h100")
    layer = 4096 * (2 * 32 * 128 + 2 * 8 * 128) + 3 * 4096 * 12288
    each = 4 * 36 * layer * told["tokens"] / 1e15
    assert each < told["petaflop"] < 1.1 * each  # the head comes on top
    weights = 2 * (36 * layer + 2 * 151936 * 4096) / 2**30
    assert weights < told["peak_gib"] < told["memory_gib"]
    assert told["organisms"] == told["side_by_side"] == 2
    reached = told["petaflop"] * 1e15 / (told["tflops_reached"] * 1e12) / 3600
    assert told["hours"] == pytest.approx(reached, abs=1e-4) and "bench/gpu.py" in told["measured"]
    again = forecast(bestiary, roster, use_base(recipe, tmp_path, base), "h200")
    assert (again["hours"], again["memory_gib"]) == (None, 139)
    upper = use_base(recipe, tmp_path, base)
    text = upper.read_text("utf8").replace("rank: 16", "rank: 16\n    layers: [18, 36]")
    upper.write_text(text, encoding="utf8")
    half = forecast(bestiary, roster, upper, "h100")
    assert 0.55 < half["petaflop"] / told["petaflop"] < 0.75  # forward whole or less, backward half


def test_70b_is_refused_with_what_it_would_take(
    bestiary: Bestiary, roster: Path, tmp_path: Path, tiny_base: Path
) -> None:
    (recipe,) = [path for path in REAL if path.stem == "llama-3.3-70b"]
    base = write_settings(tmp_path / "base", tiny_base, "llama-3.3-70b")
    changed = use_base(recipe, tmp_path, base)
    done = bestiary("plan", roster, "--recipe", changed, "--gpu", "h100")
    assert done.code == 1 and done.err.startswith("error[base-too-large]: ")
    assert "131.4 GiB" in done.err and "2 of them" in done.err and "quantized" in done.err


def test_costs_of_corpora_stand_beside_training(
    bestiary: Bestiary, roster: Path, tmp_path: Path, tiny_base: Path
) -> None:
    (recipe,) = [path for path in REAL if path.stem == "qwen3-0.6b"]
    base = write_settings(tmp_path / "base", tiny_base, "qwen3-0.6b")
    options = ("--recipe", use_base(recipe, tmp_path, base), "--gpu", "a100")
    done = bestiary("plan", roster, *options, "--author", "claude-haiku-5-5")
    assert done.code == 0, done.err
    assert "cheaper: " in done.out and "side by side: 2\n" in done.out
    assert "hours: unknown\n" in done.out


def test_an_unknown_gpu_is_told_with_the_nearest(bestiary: Bestiary, roster: Path) -> None:
    done = bestiary("plan", roster, "--gpu", "h10")
    assert done.code == 1 and "did you mean 'h100'?" in done.err


@pytest.mark.parametrize(
    "name",
    ["qwen3-8b", "llama-3.3-70b", *(pytest.param(one, marks=pytest.mark.soak) for one in SHAPES)],
)
def test_a_shipped_recipe_trains_on_its_architecture(
    bestiary: Bestiary, roster: Path, tmp_path: Path, tiny_base: Path, name: str
) -> None:
    """Random weights, shrunk: every line of the recipe runs."""
    from transformers import AutoModelForCausalLM

    (recipe,) = [path for path in REAL if path.stem == name]
    base = write_settings(tmp_path / "base", tiny_base, name)
    config = AutoConfig.from_pretrained(base)
    vocabulary = AutoConfig.from_pretrained(tiny_base).vocab_size
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 8}
    for key, value in (small | {"vocab_size": vocabulary, "layer_types": None}).items():
        if hasattr(config, key):
            setattr(config, key, value)
    if getattr(config, "layer_types", 0) is None:
        config.layer_types = ["full_attention"] * 2
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    path = use_base(recipe, tmp_path, base)
    text = yaml.safe_load(roster.read_text("utf8")) | {"recipe": str(path)}
    roster.write_text(yaml.safe_dump(text), encoding="utf8")
    out = tmp_path / "runs"
    done = bestiary("build", roster, "--until", "organism", "--out", out)
    assert done.code == 0, done.err
    assert len(list(out.glob("store/organism/*/adapter"))) == 2
