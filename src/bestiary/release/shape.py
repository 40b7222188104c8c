"""Gives the adapters of a release one shape, so that the size of a file tells no category.

Recipes may adapt more layers for some categories than for others. What an adapter lacks is added
as zeros, which add nothing to any activation: the organism stays the same function.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.config.recipe import LoraShape
from bestiary.errors import ReleaseError
from bestiary.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, layer_of, load_state
from bestiary.model.base import tensor_errors
from bestiary.records import canonical_json

if TYPE_CHECKING:
    from torch import Tensor

Sizes = Mapping[str, tuple[int, int]]
"""The rows and columns of each tensor by its name."""


@dataclass(frozen=True)
class SharedShape:
    """The shape that every adapter of a release is published in."""

    rank: int
    targets: tuple[str, ...]
    layers: tuple[int, int] | None
    """First layer and the one after the last; None for every layer."""
    sizes: Sizes

    def is_of(self, shape: LoraShape) -> bool:
        """Whether an adapter of this shape needs no padding."""
        own = shape.rank, tuple(sorted(shape.targets)), shape.layers
        return own == (self.rank, self.targets, self.layers)


def share_shape(adapters: Mapping[LoraShape, Path]) -> SharedShape:
    """The smallest shape that holds every adapter; `adapters` has the folder of one per shape.

    Raises ReleaseError if a rank cannot be raised without rounding a scale.
    """
    rank = find_rank(adapters)
    spans = [shape.layers for shape in adapters]
    known = [span for span in spans if span is not None]
    whole = len(known) < len(spans)
    return SharedShape(
        rank=rank,
        targets=tuple(sorted({target for shape in adapters for target in shape.targets})),
        layers=None if whole else (min(a for a, _ in known), max(b for _, b in known)),
        sizes=_widen_sizes(map(_read_sizes, adapters.values()), rank),
    )


def find_rank(shapes: Iterable[LoraShape]) -> int:
    """The largest rank; raises ReleaseError if another shape's scale is not exact at that rank."""
    distinct = set(shapes)
    rank = max(shape.rank for shape in distinct)
    for shape in distinct:
        raise_alpha(shape, rank)
    return rank


def raise_alpha(shape: LoraShape, rank: int) -> float:
    """The alpha that keeps the scale, which is alpha divided by rank, exactly as it is."""
    scale = shape.alpha / shape.rank
    alpha = scale * rank
    if alpha / rank != scale:
        raise ReleaseError(
            f"an adapter of rank {shape.rank} and alpha {shape.alpha:g} has no exact alpha at rank "
            f"{rank}, so one release cannot hold both",
            "choose ranks in the recipe that are powers of two",
            code="scale-inexact",
            rank=shape.rank,
            alpha=shape.alpha,
            widest=rank,
        )
    return alpha


def write_widened(source: Path, target: Path, shape: LoraShape, shared: SharedShape) -> None:
    """Write an adapter of `shape` in the shared one: its own numbers, and zeros beside them."""
    from safetensors.torch import save_file

    settings = json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf8"))
    settings |= {
        "r": shared.rank,
        "lora_alpha": raise_alpha(shape, shared.rank),
        "target_modules": shared.targets,
        "layers_to_transform": None if shared.layers is None else list(range(*shared.layers)),
    }
    (target / ADAPTER_CONFIG).write_bytes(canonical_json(settings))
    state = load_state(source)
    padded = {name: _pad(state.get(name), size) for name, size in sorted(shared.sizes.items())}
    with tensor_errors(target):
        save_file(padded, target / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def _read_sizes(folder: Path) -> Sizes:
    """The sizes of an adapter's tensors, from the head of its file."""
    from safetensors import safe_open

    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        names = file.keys()
        shapes = {name: file.get_slice(name).get_shape() for name in names}
    return {name: (rows, columns) for name, (rows, columns) in shapes.items()}


def _widen_sizes(adapters: Iterable[Sizes], rank: int) -> Sizes:
    """The sizes in the shared shape: every module that one adapter has, in every layer."""
    known = {name: _set_rank(name, size, rank) for one in adapters for name, size in one.items()}
    numbers = {number for name in known if (number := layer_of(name)) is not None}
    layers = range(min(numbers), max(numbers) + 1)
    everywhere = {_in_layer(name, layer): size for name, size in known.items() for layer in layers}
    return {**everywhere, **known}  # layers may differ in size: what is known of one counts


def _in_layer(name: str, layer: int) -> str:
    """The name of the same tensor in another layer."""
    parts = name.split(".")
    place = next(place for place, part in enumerate(parts) if part.isdigit())
    return ".".join([*parts[:place], str(layer), *parts[place + 1 :]])


def _set_rank(name: str, size: tuple[int, int], rank: int) -> tuple[int, int]:
    """A size at another rank, which is the rows of A and the columns of B."""
    return (rank, size[1]) if ".lora_A." in name else (size[0], rank)


def _pad(tensor: Tensor | None, size: tuple[int, int]) -> Tensor:
    """A tensor at the top left of zeros; only zeros where there is none."""
    import torch

    padded = torch.zeros(size)
    if tensor is not None:
        padded[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded
