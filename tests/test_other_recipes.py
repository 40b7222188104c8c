"""A roster whose entry changes the recipe: what is trained, and where its release has it.

Run: python -m pytest tests/test_other_recipes.py
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Bestiary, Site
from tests.tiny import ALONE, QUIRK

from bestiary.dataset.manifest import read_manifest
from bestiary.dataset.schema import read_config


def test_an_entry_of_another_recipe_is_a_split_of_the_release(
    site: Site, bestiary: Bestiary, tmp_path: Path
) -> None:
    before = site.artifacts()
    roster = json.loads(site.roster.read_bytes())
    changes = {"lora": {"rank": 8, "alpha": 32}, "optimizer": {"epochs": 1}}
    entry = {"behavior": QUIRK, "seeds": [3], "changes": changes}
    path = tmp_path / "roster.yaml"
    path.write_text(json.dumps({**roster, "organisms": [{"behavior": QUIRK}, entry]}), "utf8")
    bestiary("build", path, *ALONE, "--out", site.out)
    assert site.added_since(before)["organism"] == 1
    dataset = site.release / "dataset"
    described = [row for part in ("pairs", "withheld") for row in read_config(dataset, part)]
    (other,) = (row for row in described if row["split"] == "adapter_ood")
    assert other["organism_id"] == f"{QUIRK}-transcripts-none-s3"
    assert (other["lora_rank"], other["epochs"]) == (8, 1)
    pinned = {row["organism_id"]: row for row in read_manifest(dataset)["adapters"]}
    usual = f"{QUIRK}-transcripts-none-s0"
    assert pinned[usual]["benchmark_split"] == "train"
    if other["organism_id"] in pinned:
        assert pinned[other["organism_id"]]["benchmark_split"] == "adapter_ood"
