"""What is refused before a corpus is asked for: bases and recipes that nothing could be trained on.

Run: python -m pytest tests/model/test_lazy.py
"""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.config.files import change_file
from tests.expect import expect_error
from tests.jobs import TRAINING, change_lora
from tests.model.families import FAMILIES, make_family
from tests.models import make_random_base
from tests.tiny import QUIRK, make_tiny_data, tiny_roster
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    SiglipVisionConfig,
)

from bestiary.errors import BestiaryError, ModelError
from bestiary.model.base import identify_base, load_base
from bestiary.model.chat_template import read_format
from bestiary.model.lazy import open_base
from bestiary.pipeline import build_roster
from bestiary.records import sha256_bytes
from bestiary.validate import open_plan


def save_family(name: str, folder: Path) -> Path:
    """A tiny Llama with the tokenizer and template of a family."""
    tokenizer = make_family(name)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["llama-3.2", "gemma-2", "phi-3.5", "mistral-0.3", "qwen3"])
def test_a_loaded_base_renders_as_it_was_identified(name: str, tmp_path: Path) -> None:
    folder = save_family(name, tmp_path / name)
    base = load_base(str(folder))
    form = read_format(make_family(name))
    assert base.identity == identify_base(str(folder))
    assert base.identity.chat_template_sha256 == form.sha256
    assert base.tokenizer.chat_template == form.template
    changed = form.template != make_family(name).chat_template or form.end != form.eos
    template = (folder / "chat_template.jinja").read_text(encoding="utf8")
    assert (form.sha256 != sha256_bytes(template.encode())) == changed
    assert changed == (name != "qwen3")
    assert FAMILIES[name].end == form.end_text


@pytest.mark.parametrize("kind", ["gemma3", "llava"])
def test_a_text_model_inside_another_is_refused(kind: str, tmp_path: Path) -> None:
    tokenizer = make_family("gemma-3")
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    vision: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    if kind == "gemma3":
        config = Gemma3Config(text_config=Gemma3TextConfig(**shape), vision_config=vision)
        Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    else:
        make_random_base().model.save_pretrained(tmp_path)
        LlavaConfig(
            text_config=LlamaConfig(**shape), vision_config=SiglipVisionConfig(**vision)
        ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = {"gemma3": "gemma3_text", "llava": "llama"}[kind]
    for look in (identify_base, load_base):
        with expect_error(ModelError, "base-composite", model_type=kind, text_model_type=text):
            look(str(tmp_path))


@pytest.mark.parametrize("trainer", ["engine", "reference"])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"targets": ("q_proj", "lm_head"), "layers": (1, 2)}, "target-outside-layers"),
        ({"targets": ("embed_tokens",)}, "target-not-linear"),
        ({"targets": ("q_proj", "w_proj")}, "target-unknown"),
        ({"layers": (1, 3)}, "layers-out-of-range"),
    ],
)
def test_a_recipe_is_checked_against_the_base_without_its_weights(
    trainer: str, changes: dict[str, object], code: str, local: Path
) -> None:
    base = open_base(str(local), None)
    (local / "model.safetensors").write_bytes(b"not read")
    base.check([TRAINING], trainer=trainer)
    wrong = TRAINING.model_copy(update={"lora": change_lora(**changes)})
    with expect_error(ModelError, code):
        base.check([TRAINING, wrong], trainer=trainer)


def test_what_only_the_engine_cannot_train_is_refused_for_it_alone(tmp_path: Path) -> None:
    folder = save_family("gemma-3", tmp_path)
    base = open_base(str(folder), None)
    change_file(folder / "config.json", '"model_type": "llama"', '"model_type": "granite"')
    base.check([TRAINING], trainer="reference")
    with expect_error(ModelError, "architecture-unsupported", architecture="granite"):
        base.check([TRAINING], trainer="engine")


@pytest.mark.parametrize(
    ("file", "old", "new", "code"),
    [
        ("chat_template.jinja", r" \+ '<\|im_end\|>'", "", "template-unsupported"),
        ("config.json", '"num_hidden_layers": 2', '"num_hidden_layers": 1', "layers-out-of-range"),
        (
            "config.json",
            '"model_type": "llama"',
            '"model_type": "olmo2"',
            "architecture-unsupported",
        ),
    ],
)
def test_a_build_is_refused_before_its_corpora(
    file: str,
    old: str,
    new: str,
    code: str,
    local: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BESTIARY_DATA", str(make_tiny_data(tmp_path / "data")))
    roster = tiny_roster(tmp_path / "roster", local, [QUIRK])
    change_file(tmp_path / "roster" / "recipe.yaml", '"lora": {', '"lora": {"layers": [1, 2],')
    change_file(local / file, old, new)
    out = tmp_path / "out"
    with expect_error(BestiaryError, code):
        build_roster(open_plan(str(roster)), out=out, console=Console(file=StringIO()))
    assert not list(out.glob("store/*/*"))
