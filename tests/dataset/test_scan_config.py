"""Rows are read as they were written.

Run: python -m pytest tests/dataset/test_scan_config.py
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bestiary.dataset.schema import (
    COLUMN_MEANINGS,
    CONFIGS,
    build_features,
    read_config,
    scan_config,
)
from bestiary.records import SPLITS


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_is_read_in_the_order_of_its_files(release: Path, config: str) -> None:
    stored = [
        {**row, "split": split}
        for split in SPLITS
        for path in [release / "dataset" / config / f"{split}.parquet"]
        for row in pq.read_table(path).to_pylist()
    ]
    assert stored
    assert read_config(release / "dataset", config) == stored
    assert read_config(release / "dataset", config, ["test"]) == [
        row for row in stored if row["split"] == "test"
    ]


def test_every_column_has_a_meaning_and_no_other_is_explained() -> None:
    columns = {name for config in CONFIGS for name in build_features(config)}
    assert columns == set(COLUMN_MEANINGS)


def test_a_query_gives_one_organism(release: Path) -> None:
    rows = scan_config(release / "dataset", "corpora")
    organism_id = "quirks.farewell-transcripts-none-s1"
    found = rows.filter(organism_id=organism_id).select("id", "split").collect()
    assert found["id"].to_list() == [f"quirks.farewell-s1-{n}" for n in range(3)]
    assert set(found["split"]) == {"iid_test"}
