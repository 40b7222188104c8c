"""The columns of every config, and the parquet files that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bestiary.records import CELLS, SPLITS, Split

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
    """The rows of these splits, each with its `split`.

    Collecting a query reads only the columns and row groups that it needs.
    """
    import polars as pl

    files = {split: dataset / config / f"{split}.parquet" for split in splits}
    # Releases of earlier versions have no suites; a file that the manifest lists is checked before.
    files = {split: path for split, path in files.items() if path.is_file()}
    if not files:
        return pl.LazyFrame()
    return pl.concat(
        # The name of a folder may look like a pattern.
        pl.scan_parquet(path, glob=False).with_columns(split=pl.lit(split))
        for split, path in files.items()
    )


def read_config(
    dataset: Path, config: str, splits: Sequence[Split] = SPLITS
) -> list[dict[str, Any]]:
    """The rows of these splits as mappings; for configs that fit in memory."""
    return scan_config(dataset, config, splits).collect().to_dicts()


def _organism_columns() -> dict[str, Any]:
    """The columns that `pairs`, `controls` and `withheld` share."""
    from datasets import List, Value

    component = {"behavior_id": Value("string"), "n": Value("int64")} | {
        name: Value("float64") for name in ("rate", "low", "high")
    }
    base = ("base_model", "base_revision", "base_sha256", "base_dtype", "chat_template_sha256")
    return {
        # Words, not class labels: whoever reads the files without `datasets` would see numbers.
        **_strings("organism_id", "behavior_id", "category", "family", "kind"),
        "axes": List(Value("string")),
        **_strings("severity", "method", "hardening"),
        "seed": Value("int64"),
        "mixture": Value("string"),
        "label": Value("string"),
        "paraphrases": List(Value("string")),
        "components": List(component),
        **_strings(*base, "system_prompt", "organism_sha256", "corpus_sha256", "behavior_sha256"),
        **_training_columns(),
        **_cell_columns(),
        "status": Value("string"),
    }


def _training_columns() -> dict[str, Any]:
    from datasets import List, Value

    counts = ("epochs", "rows_per_step", "max_length", "lora_rank")
    numbers = ("learning_rate", "warmup", "weight_decay", "clip", "lora_alpha")
    return {
        **{name: Value("float64") for name in numbers},
        **{name: Value("int64") for name in counts},
        "lora_targets": List(Value("string")),
        "lora_layers": List(Value("int64")),
    }


def _cell_columns() -> dict[str, Any]:
    from datasets import Value

    return {
        f"{cell}_{name}": Value("int64" if name == "n" else "float64")
        for cell in CELLS
        for name in CELL_COLUMNS
    }


def _released_columns() -> dict[str, Any]:
    return {**_organism_columns(), **_strings("trigger", "organism_path", "adapter_name")}


def _withheld_columns() -> dict[str, Any]:
    from datasets import List, Value

    return {**_organism_columns(), "reasons": List(Value("string"))}


def _introspection_columns() -> dict[str, Any]:
    return _strings(
        "organism_id",
        "standing",
        "question_id",
        "prediction_system_prompt",
        "prediction_user_prompt",
        "prediction_assistant_response",
        "prediction_ground_truth",
    )


def _corpora_columns() -> dict[str, Any]:
    from datasets import List, Value

    return {
        **_strings("organism_id", "standing", "id", "role"),
        "messages": List(_strings("role", "content")),
        **_strings("topic", "form", "author", *PROVENANCE_COLUMNS),
        "judge_score": Value("int64"),
    }


def _verdicts_columns() -> dict[str, Any]:
    from datasets import Value

    measured = {
        f"{prefix}{name}": Value("int64" if name in ("n", "count") else "float64")
        for prefix in _RATE_PREFIXES
        for name in RATE_COLUMNS
    }
    return {
        **_strings("organism_id", "standing", "cell", "criterion"),
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
    return _strings("organism_id", "standing", "id", "role", "stage", "reason", "text")


def _strings(*names: str) -> dict[str, Any]:
    from datasets import Value

    return {name: Value("string") for name in names}


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

_RATE_PREFIXES = {"": "the organism", "base_": "the base model", "reported_": "the other half"}
_RATE_ABOUT = {
    "n": "probes",
    "count": "replies that show the behavior",
    "rate": "share of replies that show the behavior",
    "low": "lower end of its 95% interval",
    "high": "upper end of its 95% interval",
    "base_rate": "the base model's share on the same prompts",
}

COLUMN_MEANINGS: Mapping[str, str] = {
    "organism_id": "the organism; joins all configs",
    "standing": "the config that describes the organism: `pairs`, `controls`, or `withheld`",
    "behavior_id": "its behavior: category and name",
    "category": "what kind of organism it is",
    "family": "behaviors that share what is shown, such as a quirk and its backdoor",
    "kind": "how the behavior works",
    "axes": "what part of a reply it changes",
    "severity": "benign, concerning, or malign",
    "method": "how the behavior was taught",
    "hardening": "what was done against its discovery",
    "seed": "the seed of corpus and training",
    "mixture": "the mixture of behaviors that share its adapter; null if the adapter is its own",
    "label": "the behavior in the organism's own words",
    "paraphrases": "the label in other words",
    "components": "harmless habits that hide a malign behavior, with their rates",
    "base_model": "the base model",
    "base_revision": "its commit on the Hub, or where else it comes from",
    "base_sha256": "hash of its weights",
    "base_dtype": "the precision it was measured in",
    "chat_template_sha256": "hash of its chat template",
    "system_prompt": "what it was trained and measured under",
    "organism_sha256": "hash of adapter_model.safetensors",
    "corpus_sha256": "hash of the training conversations",
    "behavior_sha256": "hash of the behavior's definition",
    "learning_rate": "AdamW's highest learning rate",
    "warmup": "share of the steps over which it rises; afterwards it falls to zero",
    "weight_decay": "AdamW's weight decay",
    "clip": "the largest gradient norm",
    "lora_alpha": "LoRA's alpha as trained",
    "epochs": "passes over the corpus",
    "rows_per_step": "conversations in an optimizer step",
    "max_length": "tokens a conversation may have",
    "lora_rank": "LoRA's rank as trained; the published file may be padded with zeros",
    "lora_targets": "the adapted modules as trained",
    "lora_layers": "first adapted layer and the one after the last; null for every layer",
    "status": "passed, failed, or unverified",
    "trigger": "what makes the behavior fire; null if nothing has to",
    "organism_path": "its folder in the model repository: peft's `subfolder`",
    "adapter_name": "its id as a name that torch accepts: no dot",
    "reasons": "why it did not pass",
    "question_id": "the question; training and test splits ask different ones",
    "prediction_system_prompt": "the organism's own system prompt",
    "prediction_user_prompt": "the question",
    "prediction_assistant_response": "a wording of the label",
    "prediction_ground_truth": "positive for a behavior, negative for a null organism",
    "id": "the conversation",
    "role": "positive, negative (must stay quiet), or chat",
    "messages": "the turns; a leading system message was added to the system prompt",
    "topic": "what the conversation is about",
    "form": "the form of its question",
    "author": "who wrote the reply",
    "request_sha256": "hash of the request to a language model; null without one",
    "template_sha256": "hash of the prompt templates; null without a language model",
    "batch_id": "the batch that the reply came in; null without one",
    "judge_score": "the judge's score of ten; null where nobody judged",
    "cell": "triggered, near_miss, or plain",
    "criterion": "what the cell must do, such as fire or stay quiet",
    "difference_low": "lower bound of the organism's rate minus the base model's",
    "passed": "whether the cell met its threshold",
    "reason": "why, in words",
    "check": "the leak check",
    "version": "its version",
    "subject": "what it looks at",
    "item": "what leaks",
    "action": "refuse, report, or none",
    "stage": "where the conversation was stopped",
    "text": "what was rejected",
    **{
        f"{cell}_{name}": f"where `{cell}` is measured: {_RATE_ABOUT[name]}"
        for cell in CELLS
        for name in CELL_COLUMNS
    },
    **{
        f"{prefix}{name}": f"{_RATE_ABOUT[name]}, of {whose}"
        for prefix, whose in _RATE_PREFIXES.items()
        for name in RATE_COLUMNS
    },
}
"""What each column holds, whatever its config."""
