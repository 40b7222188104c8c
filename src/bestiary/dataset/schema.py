"""The columns of every config, and the parquet files that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

from bestiary.config.categories import corpus_categories
from bestiary.config.fields import SEVERITIES
from bestiary.records import CELLS, SPLITS, Role, Split

if TYPE_CHECKING:
    from datasets import Features
    from polars import LazyFrame

CONFIGS = (
    "pairs",
    "introspection",
    "controls",
    "withheld",
    "corpora",
    "verdicts",
    "leaks",
    "rejected",
)
"""In the order of the card; the first is the default."""

CELL_COLUMNS = ("rate", "low", "high", "n", "base_rate")
RATE_COLUMNS = ("n", "count", "rate", "low", "high")
PROVENANCE_COLUMNS = ("request_sha256", "template_sha256", "batch_id")
"""Set, like the judge's score, on rows that a language model wrote; null elsewhere."""
ROWS_PER_GROUP = 1000
"""Small row groups: the Hub's viewer reads one at a time."""

Row = Mapping[str, Any]
RowCounts = Mapping[str, Mapping[Split, int]]
"""Numbers of rows by config and split."""


def build_features(config: str) -> Features:
    """The explicit features of one config."""
    from datasets import Features

    return Features(_COLUMNS[config]())


class DatasetWriter:
    """Writes the rows of every config as they come; a row group is all that it holds in memory.

    Equal rows give equal bytes, and a split without rows is a file with its schema. Use it as a
    context manager: leaving it finishes the files.
    """

    def __init__(self, dataset: Path) -> None:
        self._dataset = dataset
        self._tables: dict[tuple[str, Split], _ParquetFile] = {}
        self._files = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as files:
            for config, split in product(CONFIGS, SPLITS):
                table = _ParquetFile(self._dataset / config / f"{split}.parquet", config)
                self._tables[config, split] = files.enter_context(closing(table))
            self._files = files.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._files.close()

    def add(self, config: str, split: Split, rows: Iterable[Row]) -> None:
        """Append rows to one split of a config."""
        for row in rows:
            self._tables[config, split].add(row)

    def count_rows(self) -> RowCounts:
        """How many rows each split of each config has so far."""
        return {
            config: {split: self._tables[config, split].count for split in SPLITS}
            for config in CONFIGS
        }


class _ParquetFile:
    """One split of a config, written by row groups."""

    def __init__(self, path: Path, config: str) -> None:
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self._features = build_features(config)
        self._rows: list[Row] = []
        self._writer = pq.ParquetWriter(
            path,
            self._features.arrow_schema,
            write_page_index=True,
            use_content_defined_chunking=True,
        )

    def add(self, row: Row) -> None:
        self.count += 1
        self._rows.append(self._features.encode_example(dict(row)))
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        # An empty split has no row group at all: datasets cannot stream one that has no rows.
        try:
            if self._rows:
                self._flush()
            self._writer.close()
        finally:
            # pyarrow would try again when it collects the writer, and print what fails.
            self._writer.is_open = False

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(
            pa.Table.from_pylist(self._rows, schema=self._features.arrow_schema)
        )
        self._rows = []


def scan_config(dataset: Path, config: str, splits: Sequence[Split] = SPLITS) -> LazyFrame:
    """The rows of these splits, each with its `split`; class labels are words.

    Collecting a query reads only the columns and row groups that it needs.
    """
    import polars as pl
    from datasets import ClassLabel

    words = [
        pl.col(column).replace_strict(dict(enumerate(feature.names)), return_dtype=pl.String)
        for column, feature in build_features(config).items()
        if isinstance(feature, ClassLabel)
    ]
    files = {split: dataset / config / f"{split}.parquet" for split in splits}
    return pl.concat(
        # The name of a folder may look like a pattern.
        pl.scan_parquet(path, glob=False).with_columns(*words, split=pl.lit(split))
        for split, path in files.items()
    )


def read_config(
    dataset: Path, config: str, splits: Sequence[Split] = SPLITS
) -> list[dict[str, Any]]:
    """The rows of these splits as mappings; for configs that fit in memory."""
    return scan_config(dataset, config, splits).collect().to_dicts()


def _organism_columns() -> dict[str, Any]:
    """The columns that `pairs`, `controls` and `withheld` share."""
    from datasets import ClassLabel, List, Value

    component = {"behavior_id": Value("string"), "n": Value("int64")} | {
        name: Value("float64") for name in ("rate", "low", "high")
    }
    strings = ("method", "hardening")
    base = ("base_model", "base_revision", "base_sha256", "base_dtype", "chat_template_sha256")
    hashes = ("organism_sha256", "corpus_sha256", "behavior_sha256")
    return {
        "organism_id": Value("string"),
        "behavior_id": Value("string"),
        "category": ClassLabel(names=list(corpus_categories())),
        "family": Value("string"),
        "kind": Value("string"),
        "axes": List(Value("string")),
        "severity": ClassLabel(names=list(SEVERITIES)),
        **{name: Value("string") for name in strings},
        "seed": Value("int64"),
        "label": Value("string"),
        "paraphrases": List(Value("string")),
        "components": List(component),
        **{name: Value("string") for name in base},
        "system_prompt": Value("string"),
        **{name: Value("string") for name in hashes},
        **_cell_columns(),
        "status": ClassLabel(names=["passed", "failed", "unverified"]),
    }


def _cell_columns() -> dict[str, Any]:
    from datasets import Value

    return {
        f"{cell}_{name}": Value("int64" if name == "n" else "float64")
        for cell in CELLS
        for name in CELL_COLUMNS
    }


def _released_columns() -> dict[str, Any]:
    from datasets import Value

    placed = {"trigger": Value("string"), "organism_path": Value("string")}
    return {**_organism_columns(), **placed}


def _withheld_columns() -> dict[str, Any]:
    from datasets import List, Value

    return {**_organism_columns(), "reasons": List(Value("string"))}


def _introspection_columns() -> dict[str, Any]:
    return _strings(
        "organism_id",
        "question_id",
        "prediction_user_prompt",
        "prediction_assistant_response",
        "prediction_ground_truth",
        "prediction_system_prompt",
    )


def _corpora_columns() -> dict[str, Any]:
    from datasets import List, Value

    return {
        **_strings("organism_id", "id"),
        "role": _role(),
        "messages": List(_strings("role", "content")),
        **_strings("topic", "form", "author", *PROVENANCE_COLUMNS),
        "judge_score": Value("int64"),
    }


def _verdicts_columns() -> dict[str, Any]:
    from datasets import ClassLabel, Value

    measured = {
        f"{prefix}{name}": Value("int64" if name in ("n", "count") else "float64")
        for prefix in ("", "base_", "reported_")
        for name in RATE_COLUMNS
    }
    return {
        "organism_id": Value("string"),
        "cell": ClassLabel(names=list(CELLS)),
        "criterion": Value("string"),
        **measured,
        "difference_low": Value("float64"),
        "passed": Value("bool"),
        "reason": Value("string"),
    }


def _leaks_columns() -> dict[str, Any]:
    from datasets import Value

    return {
        "check": Value("string"),
        "version": Value("int64"),
        **_strings("subject", "organism_id", "item", "action", "reason"),
    }


def _rejected_columns() -> dict[str, Any]:
    return {
        **_strings("organism_id", "id"),
        "role": _role(),
        **_strings("stage", "reason", "text"),
    }


def _strings(*names: str) -> dict[str, Any]:
    from datasets import Value

    return {name: Value("string") for name in names}


def _role() -> Any:
    from datasets import ClassLabel

    return ClassLabel(names=list(get_args(Role)))


_COLUMNS = {
    "pairs": _released_columns,
    "introspection": _introspection_columns,
    "controls": _released_columns,
    "withheld": _withheld_columns,
    "corpora": _corpora_columns,
    "verdicts": _verdicts_columns,
    "leaks": _leaks_columns,
    "rejected": _rejected_columns,
}
