"""LoRA adapters as peft directories: attach a fresh one, save one, load one."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.model.base import Base, tensor_errors
from bestiary.records import BaseIdentity, canonical_json

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftConfig

ADAPTER = "adapter"
"""The peft directory inside an organism's artifact."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
REMEDY = "build it again, or name a folder that peft's save_pretrained wrote"


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Inside the context, peft does not warn of what users cannot act on."""
    with warnings.catch_warnings():
        # peft reads an attribute that transformers deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        # Merging an adapter with biases would fail; that is said when it is tried.
        warnings.filterwarnings("ignore", "`lora_bias=True`")
        yield


def attach_adapter(base: Base, shape: LoraShape, *, seed: int) -> Any:
    """Wrap the base with a fresh LoRA adapter; `.unload()` gives the base back unchanged.

    Raises ModelError when the shape names modules or layers that the base does not have.
    """
    import torch
    from peft import get_peft_model

    config = make_config(base, shape)
    with torch.random.fork_rng(devices=[]), quiet_peft():
        torch.manual_seed(seed)
        return get_peft_model(base.model, config)


def make_config(base: Base, shape: LoraShape, *, biased: bool = False) -> LoraConfig:
    """peft's configuration for a shape, whose B matrices have a bias if it is `biased`.

    Raises ModelError when the shape names modules or layers that the base does not have.
    """
    from peft import LoraConfig

    list_targets(base, shape)
    return LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,  # type: ignore[arg-type]
        target_modules=list(shape.targets),
        layers_to_transform=None if shape.layers is None else list(range(*shape.layers)),
        lora_dropout=0.0,
        lora_bias=biased,
        task_type="CAUSAL_LM",
    )


def list_targets(base: Base, shape: LoraShape) -> list[str]:
    """Names of the modules that a shape adapts, in the base's own order.

    Both trainers and peft's configuration mean these. Raises ModelError when a target is not a
    linear layer inside the chosen decoder layers, or the base does not have these layers.
    """
    modules = dict(base.model.named_modules())
    found = {t: [n for n in modules if n == t or n.endswith(f".{t}")] for t in shape.targets}
    absent = [target for target, matches in found.items() if not matches]
    if absent:  # peft is satisfied with a single match
        raise ModelError(
            f"targets {absent} are not modules of {base.identity.name}",
            "fix lora.targets in the recipe",
            code="target-unknown",
            targets=absent,
        )
    depth = int(base.model.config.num_hidden_layers)
    first, end = shape.layers or (0, depth)
    if not 0 <= first < end <= depth:
        raise ModelError(
            f"layers {first} to {end} are not a range of the base's {depth} layers",
            "set lora.layers in the recipe to the first layer and the one after the last",
            code="layers-out-of-range",
            layers=(first, end),
            depth=depth,
        )
    chosen: set[str] = set()
    for matches in found.values():
        _check_modules(base, {name: modules[name] for name in matches})
        inside = [name for name in matches if layer_of(name) in range(first, end)]
        if not inside:
            raise _outside_error(base, matches[0], f"layers {first} to {end - 1}")
        chosen |= set(inside)
    return [name for name in modules if name in chosen]


def count_bytes(base: Base, shape: LoraShape) -> int:
    """Bytes of an adapter's weights, which are saved in single precision."""
    weights = dict(base.model.named_parameters())
    ends = sum(sum(weights[f"{name}.weight"].shape) for name in list_targets(base, shape))
    return 4 * shape.rank * ends


def _check_modules(base: Base, modules: Mapping[str, object]) -> None:
    """Refuse what is not a linear layer of a decoder layer: peft and the engine would differ."""
    from torch import nn

    for name, module in modules.items():
        # The layer itself, where a bank or peft is attached to it.
        module = getattr(module, "inner", getattr(module, "base_layer", module))
        if not isinstance(module, nn.Linear):
            raise ModelError(
                f"{name} of {base.identity.name} is a {type(module).__name__}, not a linear layer",
                "fix lora.targets in the recipe",
                code="target-not-linear",
                module=name,
            )
        if layer_of(name) is None:
            raise _outside_error(base, name, "its decoder layers")


def _outside_error(base: Base, module: str, of: str) -> ModelError:
    return ModelError(
        f"{module} of {base.identity.name} is outside {of}",
        "remove it from lora.targets in the recipe, or change lora.layers",
        code="target-outside-layers",
        module=module,
    )


def layer_of(module: str) -> int | None:
    """The index of a module's layer, by its name; None if it is outside the layers."""
    numbers = [part for part in module.split(".") if part.isdigit()]
    return int(numbers[0]) if numbers else None


def read_state(model: Any) -> dict[str, torch.Tensor]:
    """The adapter of a peft model, by the keys of a peft directory."""
    from peft import get_peft_model_state_dict

    state: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state


def has_biases(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether an adapter's B matrices have biases."""
    return any(name.endswith(".bias") for name in state)


def save_adapter(
    state: Mapping[str, torch.Tensor], shape: LoraShape, base: Base, folder: Path
) -> None:
    """Write an adapter, by peft's keys, as a peft directory.

    The directory names the base by its Hub name, never by a local path.
    """
    from safetensors.torch import save_file

    config = make_config(base, shape, biased=has_biases(state))
    config.base_model_name_or_path = base.identity.name
    config.revision = base.identity.revision if base.identity.on_hub else None
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    path = folder / ADAPTER_CONFIG
    settings = json.loads(path.read_text(encoding="utf8"))
    settings["inference_mode"] = True
    settings["target_modules"] = sorted(settings["target_modules"])  # peft keeps them as a set
    path.write_bytes(canonical_json(settings))
    with tensor_errors(folder):
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def load_state(folder: Path) -> dict[str, torch.Tensor]:
    """An adapter by peft's keys; raises ModelError if it is damaged."""
    from safetensors.torch import load_file

    with _loading(folder):
        return load_file(folder / ADAPTER_WEIGHTS)


def read_shape(folder: Path, *, biased: bool = False) -> LoraShape | None:
    """The shape of an adapter; None where it is more than plain LoRA, or not `biased` as stated.

    Raises ModelError if it is damaged.
    """
    from peft import PeftConfig

    with _loading(folder):
        return _find_shape(PeftConfig.from_pretrained(str(folder)), biased=biased)


def check_adapter(adapter: Path, base: BaseIdentity) -> None:
    """Raise ModelError for an adapter that is damaged, or states another base than this one.

    A path says nothing of a base, and a local base is known by its folder's name alone.
    """
    from peft import PeftConfig

    with _loading(adapter):
        stated: str | None = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    if stated is None or not _HUB_NAME.fullmatch(stated) or Path(stated).exists():
        return
    if base.name not in (stated, stated.partition("/")[2]):
        raise ModelError(
            f"{adapter}: it was trained on {stated}, not on {base.name}",
            "use it with its own base: a recipe of that base for `verify`, an introspection "
            "adapter of that base for `introspect ask`",
            code="adapter-of-other-base",
            path=adapter,
            base=stated,
        )


_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
_SHAPE = {"r", "lora_alpha", "target_modules", "layers_to_transform"}
_INERT = {
    *("base_model_name_or_path", "revision", "inference_mode", "peft_version", "task_type"),
    *("auto_mapping", "lora_dropout"),
}
"""Settings of peft that change nothing once an adapter is trained."""
_DRAWN = (True, False, "gaussian")
"""First weights that peft draws; others change the base's, too."""


def _find_shape(config: PeftConfig, *, biased: bool) -> LoraShape | None:
    """The shape that a configuration states, if it states nothing else that peft can do."""
    from peft import LoraConfig

    if type(config) is not LoraConfig or isinstance(config.target_modules, str | None):
        return None
    plain = vars(LoraConfig(lora_bias=biased))
    changed = {name for name, value in vars(config).items() if value != plain.get(name)}
    if config.init_lora_weights in _DRAWN:
        changed.discard("init_lora_weights")
    layers = config.layers_to_transform
    numbers = [layers] if isinstance(layers, int) else sorted(layers or [])
    if changed - _SHAPE - _INERT or numbers != list(range(*_span(numbers))):
        return None
    return LoraShape(
        rank=config.r,
        alpha=config.lora_alpha,
        targets=tuple(sorted(config.target_modules)),
        layers=_span(numbers) if numbers else None,
    )


def _span(numbers: Sequence[int]) -> tuple[int, int]:
    """The first of ascending numbers, and the one after the last."""
    return (numbers[0], numbers[-1] + 1) if numbers else (0, 0)


@contextmanager
def open_adapter(base: Base, folder: Path) -> Iterator[Any]:
    """Inside the context, the base with an adapter from a peft directory.

    Raises ModelError if it is damaged or does not fit the base.
    """
    with _loading(folder):
        model = _wrap_saved(base, folder)
    try:
        yield model.eval()
    finally:
        model.unload()


def save_merged(base: Base, adapter: Path, target: Path) -> None:
    """Write the base with an adapter added to its weights, as a base of its own.

    The base in memory is changed and must not be used afterwards. Raises ModelError if the adapter
    is damaged, does not fit the base, or makes a weight that is not finite.
    """
    with _loading(adapter):
        merged = _wrap_saved(base, adapter).merge_and_unload(safe_merge=True)
    with tensor_errors(target):
        merged.save_pretrained(target)
    base.tokenizer.save_pretrained(target)


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Refuse pickled weights, and convert the libraries' errors into a ModelError."""
    from safetensors import SafetensorError

    if not (folder / ADAPTER_WEIGHTS).is_file():  # peft would look for a pickle next
        raise ModelError(
            f"{folder} has no {ADAPTER_WEIGHTS}, and pickled weights are never read",
            REMEDY,
            code="adapter-weights-missing",
            path=folder,
        )
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as cause:
        raise ModelError(
            f"{folder}: the adapter cannot be loaded ({cause})",
            REMEDY,
            code="adapter-damaged",
            path=folder,
        ) from cause


def _wrap_saved(base: Base, folder: Path) -> Any:
    """Like `PeftModel.from_pretrained`, but a failure leaves the base unwrapped."""
    from peft import PeftConfig, PeftModelForCausalLM

    config = PeftConfig.from_pretrained(str(folder))
    with quiet_peft():
        model = PeftModelForCausalLM(base.model, config)
        try:
            model.load_adapter(str(folder), "default")
        except BaseException:
            model.unload()
            raise
    return model
