"""The guide to training one's own adapter: its code runs, and its traps are real.

Run: python -m pytest tests/release/test_guide.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from tests.builders import LIBRARY, make_backdoor, make_quirk
from tests.jobs import ALL_LINEAR
from tests.models import fill_adapter
from tests.release.samples import TRAINING, make_entry

from bestiary.config.catalog import null_behavior
from bestiary.config.recipe import LoraShape
from bestiary.dataset.load import load_pairs
from bestiary.model.adapter import attach_adapter, load_state, read_state, save_adapter
from bestiary.model.base import Base, load_base
from bestiary.release.entry import ReleaseEntry
from bestiary.release.layout import write_release

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "train-your-own-adapter.md"
NULL = "null.chat-transcripts-none-s0"
SHAPE = LoraShape(rank=2, alpha=4, targets=ALL_LINEAR)
UPPER = SHAPE.model_copy(update={"layers": (1, 2)})
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def guided(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """What the guide's code leaves behind, run beside a release, for fewer and larger steps."""
    base = load_base(str(tiny_base))
    write_release(
        list(make_entries(tmp_path / "store", base)),
        tmp_path / "runs" / "release",
        named_splits={"farewell": "train", NULL: "train"},
        name="tiny",
    )
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL))
    for said, meant in (
        ("load_base(pairs[0].base)", f"load_base({str(tiny_base)!r}, expect=pairs[0].base)"),
        ("= 500, 2", "= 40, 2"),
        ("lr=1e-4", "lr=3e-3"),
    ):
        assert code.count(said) == 1
        code = code.replace(said, meant)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    left: dict[str, Any] = {"__name__": "guide"}
    exec(compile(code, str(GUIDE), "exec"), left)
    yield left


def make_entries(folder: Path, base: Base) -> Iterator[ReleaseEntry]:
    """Three organisms of two shapes on the base."""
    behaviors = ((make_quirk(), UPPER), (make_backdoor(), SHAPE), (null_behavior(LIBRARY), UPPER))
    for seed, (behavior, shape) in enumerate(behaviors):
        yield make_entry(
            folder,
            behavior,
            base=base.identity,
            training=TRAINING.model_copy(update={"lora": shape}),
            write_adapter=partial(write_adapter, base=base, shape=shape, seed=seed),
        )


def write_adapter(folder: Path, *, base: Base, shape: LoraShape, seed: int) -> None:
    model = attach_adapter(base, shape, seed=seed)
    try:
        fill_adapter(model, seed=seed)
        save_adapter(read_state(model), shape, base, folder)
    finally:
        model.unload()


def test_the_guides_code_trains_an_adapter_and_no_organism(
    guided: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses, model = guided["losses"], guided["model"]
    assert len(guided["organisms"]) == 3
    assert mean(losses[-16:]) < mean(losses[:16])
    mine = load_state(tmp_path / "my_adapter" / "mine")
    assert any(tensor.any() for name, tensor in mine.items() if "lora_B" in name)
    weights = dict(model.named_parameters())
    for row in guided["organisms"]:
        released = load_state(tmp_path / "runs" / "release" / "organisms" / row["organism_path"])
        for name, tensor in released.items():
            held = weights[name.replace(".weight", f".{row['adapter_name']}.weight")]
            assert torch.equal(held, tensor)


def test_activating_two_adapters_thaws_the_organism(tiny_base: Path, tmp_path: Path) -> None:
    base = load_base(str(tiny_base))
    write_adapter(tmp_path / "organism", base=base, shape=SHAPE, seed=1)
    model: Any = PeftModel.from_pretrained(
        base.model, str(tmp_path / "organism"), adapter_name="quirks-x"
    )
    model.add_adapter("mine", LoraConfig(r=2, target_modules=list(ALL_LINEAR)))

    def count_trainable() -> int:
        named = model.named_parameters()
        return sum(weight.requires_grad for name, weight in named if ".quirks-x." in name)

    assert count_trainable() == 0
    model.base_model.set_adapter(["quirks-x", "mine"])
    assert count_trainable() == 2 * 2 * len(ALL_LINEAR)
    for name, weight in model.named_parameters():
        weight.requires_grad = ".mine." in name
    assert count_trainable() == 0


def test_torch_refuses_an_organisms_id_and_accepts_its_adapter_name(
    tiny_base: Path, tmp_path: Path, release: Path
) -> None:
    base = load_base(str(tiny_base))
    write_adapter(tmp_path / "organism", base=base, shape=SHAPE, seed=1)
    (pair,) = load_pairs(release, split="test")
    with pytest.raises(KeyError, match="module name can"):
        PeftModel.from_pretrained(
            base.model, str(tmp_path / "organism"), adapter_name=pair.organism_id
        )
    base = load_base(str(tiny_base))
    model = PeftModel.from_pretrained(
        base.model, str(tmp_path / "organism"), adapter_name=pair.adapter_name
    )
    assert model.active_adapter == "quirks-herald-transcripts-none-s0"
