"""One shape for the adapters of a release, with which each computes what it did.

Run: python -m pytest tests/release/test_shape.py
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.builders import LIBRARY, make_backdoor, make_quirk
from tests.expect import expect_error
from tests.jobs import ALL_LINEAR, make_word_base
from tests.models import fill_adapter
from tests.release.samples import TRAINING, make_entry, write_sample
from torch import Tensor

from bestiary.config.catalog import null_behavior
from bestiary.config.recipe import LoraShape
from bestiary.dataset.load import load_pairs
from bestiary.errors import ReleaseError
from bestiary.model.adapter import attach_adapter, load_state, read_shape, read_state, save_adapter
from bestiary.model.base import Base
from bestiary.records import sha256_file
from bestiary.release.entry import ReleaseEntry
from bestiary.release.shape import find_rank

UPPER = LoraShape(rank=4, alpha=8, targets=ALL_LINEAR, layers=(1, 2))
WHOLE = UPPER.model_copy(update={"layers": None})
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def write_adapter(folder: Path, *, base: Base, shape: LoraShape, seed: int) -> None:
    model = attach_adapter(base, shape, seed=seed)
    try:
        fill_adapter(model, seed=seed)
        save_adapter(read_state(model), shape, base, folder)
    finally:
        model.unload()


def make_entries(folder: Path, base: Base, *shapes: LoraShape) -> list[ReleaseEntry]:
    """A quirk, its backdoor and a null organism, one per shape."""
    behaviors = (make_quirk(), make_backdoor(), null_behavior(LIBRARY))
    return [
        make_entry(
            folder,
            behavior,
            training=TRAINING.model_copy(update={"lora": shape}),
            write_adapter=partial(write_adapter, base=base, shape=shape, seed=seed),
        )
        for seed, (behavior, shape) in enumerate(zip(behaviors, shapes, strict=False))
    ]


def read_logits(base: Base, folder: Path) -> Tensor:
    model: Any = PeftModel.from_pretrained(base.model, str(folder))
    try:
        with torch.no_grad():
            logits: Tensor = model(TOKENS).logits
        return logits
    finally:
        model.unload()


def trained_and_released(entries: list[ReleaseEntry], release: Path) -> list[tuple[Path, Path]]:
    return [
        (entry.organism.artifact.folder / "adapter", release / "organisms" / entry.organism_path)
        for entry in entries
    ]


def describe_outside(folder: Path) -> tuple[Any, ...]:
    """What is seen of an adapter without its numbers."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    weights = folder / "adapter_model.safetensors"
    shapes = {name: tuple(tensor.shape) for name, tensor in load_state(folder).items()}
    return settings, shapes, weights.stat().st_size


def test_released_adapters_look_alike_and_compute_the_same_bits(tmp_path: Path) -> None:
    base = make_word_base()
    entries = make_entries(tmp_path / "store", base, UPPER, WHOLE, UPPER)
    release = write_sample(entries, tmp_path / "release")
    places = trained_and_released(entries, release)
    quirk, backdoor, null = (describe_outside(released) for _, released in places)
    assert quirk == backdoor == null
    logits = []
    for trained, released in places:
        before, after = read_logits(base, trained), read_logits(base, released)
        assert torch.equal(before, after)
        assert read_shape(released) == WHOLE.model_copy(
            update={"targets": tuple(sorted(ALL_LINEAR))}
        )
        logits.append(after)
    assert not torch.equal(logits[0], logits[2])


def test_a_padded_adapter_is_described_by_its_own_hash(tmp_path: Path) -> None:
    base = make_word_base()
    entries = make_entries(tmp_path / "store", base, UPPER, WHOLE)
    release = write_sample(entries, tmp_path / "release")
    pairs = {pair.organism_id: pair for pair in load_pairs(release)}
    for entry, (trained, released) in zip(
        entries, trained_and_released(entries, release), strict=True
    ):
        weights = released / "adapter_model.safetensors"
        pair = pairs[entry.organism_id]
        assert pair.organism_sha256 == sha256_file(weights)
        assert pair.organism_sha256 in (released / "README.md").read_text()
        assert pair.training == entry.training
        # An adapter that has the shape is linked; the store's own file is never written to.
        assert weights.samefile(trained / weights.name) == (pair.category == "backdoors")
        assert (
            sha256_file(trained / weights.name)
            == entry.organism.artifact.files[f"adapter/{weights.name}"]
        )


@pytest.mark.parametrize("alpha", [8, 3])
def test_ranks_and_modules_are_padded_at_the_same_scale(tmp_path: Path, alpha: int) -> None:
    base = make_word_base()
    narrow = LoraShape(rank=2, alpha=alpha, targets=("q_proj", "up_proj"), layers=(0, 1))
    entries = make_entries(tmp_path / "store", base, narrow, UPPER)
    release = write_sample(entries, tmp_path / "release")
    places = trained_and_released(entries, release)
    assert len({str(describe_outside(released)[1:]) for _, released in places}) == 1
    for (trained, released), shape in zip(places, (narrow, UPPER), strict=True):
        found = read_shape(released)
        assert found is not None
        assert (found.rank, found.layers, len(found.targets)) == (4, (0, 2), 7)
        assert found.alpha / found.rank == shape.alpha / shape.rank
        # A longer sum may be taken in another order.
        torch.testing.assert_close(
            read_logits(base, trained), read_logits(base, released), rtol=1e-5, atol=1e-5
        )


def test_a_scale_that_would_be_rounded_is_refused() -> None:
    shapes = [UPPER.model_copy(update={"rank": rank, "alpha": 1}) for rank in (5, 6)]
    assert find_rank(shapes[:1]) == 5
    with expect_error(ReleaseError, "scale-inexact", rank=5, widest=6):
        find_rank(shapes)


def test_a_damaged_adapter_is_named_before_its_shape_is_read(tmp_path: Path) -> None:
    base = make_word_base()
    entries = make_entries(tmp_path / "store", base, UPPER, WHOLE)
    weights = entries[0].organism.artifact.folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"torn")
    with expect_error(ReleaseError, "adapter-damaged", path=weights):
        write_sample(entries, tmp_path / "release")
