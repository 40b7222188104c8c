"""Measuring an adapter that was trained elsewhere: the same verdict, or one clear error.

Run: python -m pytest tests/test_foreign.py
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.conftest import Bestiary, Finished, Site
from tests.tiny import BACKDOOR, QUIRK

Change = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def adapter(first: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quirk's adapter as somebody else might have it, without what a build keeps beside it."""
    monkeypatch.setenv("BESTIARY_DATA", str(first.data))
    row = next(row for row in first.summary() if row["behavior_id"] == QUIRK)
    shutil.copytree(first.out / row["folder"] / "adapter", tmp_path / "theirs")
    return tmp_path / "theirs"


def verify(bestiary: Bestiary, first: Site, adapter: Path, behavior: str, *more: str) -> Finished:
    recipe = first.roster.with_name("recipe.yaml")
    options: tuple[str | Path, ...] = ("--recipe", recipe, "--out", adapter.with_name("out"), *more)
    return bestiary("verify", "--adapter", adapter, "--behavior", behavior, *options)


def rates_of(row: dict[str, Any]) -> dict[str, tuple[float, float]]:
    cells = {name: cell for name, cell in row["cells"].items() if cell}
    return {name: (one["organism"]["rate"], one["base"]["rate"]) for name, one in cells.items()}


def change_settings(adapter: Path, change: Change) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text("utf8")))), encoding="utf8")


def as_pattern(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "target_modules": rf".*\.({'|'.join(settings['target_modules'])})"}


def as_rslora(settings: dict[str, Any]) -> dict[str, Any]:
    """The same weights times the same factor, which rsLoRA divides by the root of the rank."""
    alpha = settings["lora_alpha"] / settings["r"] ** 0.5
    return {**settings, "use_rslora": True, "lora_alpha": alpha}


def as_drawn_otherwise(settings: dict[str, Any]) -> dict[str, Any]:
    """First weights decide nothing once an adapter is trained."""
    return {**settings, "init_lora_weights": "gaussian"}


@pytest.mark.parametrize("change", [dict, as_pattern, as_rslora, as_drawn_otherwise])
def test_an_adapter_gets_the_verdict_of_the_build(
    change: Change, first: Site, adapter: Path, bestiary: Bestiary
) -> None:
    change_settings(adapter, change)
    code, out, err = verify(bestiary, first, adapter, QUIRK, "--json")
    assert code == 0, err
    row, built = json.loads(out), first.summary()[0]
    assert (row["verdict"], rates_of(row)) == (built["verdict"], rates_of(built))
    assert (adapter.with_name("out") / row["transcripts"] / "transcripts.json").is_file()


def test_it_is_held_to_the_behavior_that_is_named(
    first: Site, adapter: Path, bestiary: Bestiary
) -> None:
    code, out, err = verify(bestiary, first, adapter, BACKDOOR)
    assert code == 0, err
    assert "failed" in out and "near_miss: " in out and "transcripts: " in out


def test_a_second_run_finds_everything_done(first: Site, adapter: Path, bestiary: Bestiary) -> None:
    said = [verify(bestiary, first, adapter, QUIRK) for _ in range(2)]
    assert "transcript: " in said[0].out and "transcript: " not in said[1].out
    assert said[1].out in said[0].out


def test_one_can_talk_to_it(first: Site, adapter: Path, bestiary: Bestiary) -> None:
    assert verify(bestiary, first, adapter, QUIRK).code == 0
    code, out, err = bestiary("chat", QUIRK, "--out", adapter.with_name("out"), say="Hello\n")
    assert (code, err) == (0, "") and "organism> " in out


def drop_weights(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()


def cut_weights(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def drop_settings(adapter: Path) -> None:
    (adapter / "adapter_config.json").unlink()


def rename_targets(adapter: Path) -> None:
    change_settings(adapter, lambda settings: {**settings, "target_modules": ["q_proj"]})


def name_no_module(adapter: Path) -> None:
    change_settings(adapter, lambda settings: {**settings, "target_modules": ["c_attn"]})


def name_another_base(adapter: Path) -> None:
    change_settings(adapter, lambda told: {**told, "base_model_name_or_path": "them/another-base"})


def narrow_weights(adapter: Path) -> None:
    """As of a base of half the width."""
    path = adapter / "adapter_model.safetensors"
    halved = {
        name: weight[:, : weight.shape[1] // 2].contiguous() if "lora_A" in name else weight
        for name, weight in load_file(path).items()
    }
    save_file(halved, path, metadata={"format": "pt"})


def name_no_method(adapter: Path) -> None:
    change_settings(adapter, lambda settings: {**settings, "peft_type": "PERHAPS"})


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (shutil.rmtree, "adapter-weights-missing"),
        (drop_weights, "adapter-weights-missing"),
        (cut_weights, "adapter-damaged"),
        (drop_settings, "adapter-damaged"),
        (name_no_method, "adapter-damaged"),
        (rename_targets, "adapter-of-other-modules"),
        (name_no_module, "target-unknown"),
        (name_another_base, "adapter-of-other-base"),
        (narrow_weights, "adapter-does-not-fit"),
    ],
)
def test_what_is_no_adapter_of_this_base_is_refused(
    damage: Callable[[Path], None], code: str, first: Site, adapter: Path, bestiary: Bestiary
) -> None:
    damage(adapter)
    ended = verify(bestiary, first, adapter, QUIRK)
    assert ended.code == 1 and f"error[{code}]" in ended.err, ended.err
    assert "Traceback" not in ended.err


def test_a_behavior_that_nobody_knows_is_refused(
    first: Site, adapter: Path, bestiary: Bestiary
) -> None:
    ended = verify(bestiary, first, adapter, "quirks.heralt")
    assert ended.code == 1 and "quirks.herald" in ended.err
