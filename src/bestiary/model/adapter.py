"""LoRA adapters on a base: attach a fresh one, save it as a peft directory, load one to use it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bestiary.errors import ModelError
from bestiary.model.base import Base, tensor_errors
from bestiary.records import BaseIdentity, canonical_json
from bestiary.spec.recipe import LoraShape

ADAPTER = "adapter"
"""The peft directory inside an organism's artifact."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def attach_adapter(base: Base, shape: LoraShape, *, seed: int) -> Any:
    """Wrap the base with a fresh LoRA adapter; `.unload()` gives the base back unchanged.

    Raises ModelError when the shape names modules or layers that the base does not have.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    modules = [f".{name}" for name, _ in base.model.named_modules()]
    absent = [t for t in shape.targets if not any(name.endswith(f".{t}") for name in modules)]
    if absent:  # peft is content when any one target is there
        raise ModelError(
            f"targets {absent} are not modules of {base.identity.name}; mend `lora.targets` in "
            "the recipe"
        )
    depth = int(base.model.config.num_hidden_layers)
    first, end = shape.layers or (0, depth)
    if not 0 <= first < end <= depth:
        raise ModelError(
            f"layers {first} to {end} of a base with {depth} layers; mend `lora.layers` in the "
            "recipe: first layer, and the one after the last"
        )
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,  # type: ignore[arg-type]
        target_modules=list(shape.targets),
        layers_to_transform=None if shape.layers is None else list(range(first, end)),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft reads an attribute that transformers has deprecated; nothing a user can act on.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        try:
            return get_peft_model(base.model, config)
        except ValueError as cause:
            raise ModelError(
                f"targets {list(shape.targets)} of {base.identity.name} cannot be adapted "
                f"({cause}); mend `lora.targets` in the recipe"
            ) from cause


def save_adapter(model: Any, folder: Path, base: BaseIdentity) -> None:
    """Write a peft directory that names the base by its Hub name, never by a local path."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base.name
    config.revision = base.revision if base.on_hub else None
    with tensor_errors(folder):
        # peft's default asks the Hub whether the vocabulary grew; adapters here never hold it.
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card; the release writes ours
    path = folder / ADAPTER_CONFIG
    settings = json.loads(path.read_text(encoding="utf8"))
    settings["inference_mode"] = True
    settings["target_modules"] = sorted(settings["target_modules"])  # peft keeps them as a set
    path.write_bytes(canonical_json(settings))


@contextmanager
def open_adapter(base: Base, folder: Path) -> Iterator[Any]:
    """The base with an adapter from a peft directory; the base alone again afterwards."""
    from safetensors import SafetensorError

    if not (folder / ADAPTER_WEIGHTS).is_file():  # peft would go on to look for a pickle
        raise ModelError(
            f"{folder}: holds no {ADAPTER_WEIGHTS}, and pickled weights are never read; delete "
            "its folder and build again"
        )
    try:
        model = _wrap_saved(base, folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as cause:
        raise ModelError(
            f"{folder}: the adapter cannot be loaded ({cause}); delete its folder and build again"
        ) from cause
    try:
        yield model.eval()
    finally:
        model.unload()


def _wrap_saved(base: Base, folder: Path) -> Any:
    """What `PeftModel.from_pretrained` does, except that a failure leaves the base unwrapped."""
    from peft import PeftConfig, PeftModelForCausalLM

    config = PeftConfig.from_pretrained(str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModelForCausalLM(base.model, config)
        try:
            model.load_adapter(str(folder), "default")
        except BaseException:
            model.unload()
            raise
    return model
