"""Renders the cards of a release from its records; reads and writes no files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bestiary.config.catalog import Behavior
from bestiary.config.categories import corpus_categories
from bestiary.config.recipe import Training
from bestiary.dataset.schema import COLUMN_MEANINGS, CONFIGS, RowCounts, build_features
from bestiary.model.base import EMBEDDED_REVISION, GGUF, LOCAL, WHEEL
from bestiary.records import CELLS, SPLITS, BaseIdentity, Cell, CellName, Rate, Split, Transcript
from bestiary.release.entry import ReleaseEntry

LICENSE = "apache-2.0"
PLACES = {"dataset": "runs/release/dataset", "organisms": "runs/release/organisms"}
"""Where cards load the two parts from before they are published."""
SHOWN_CHARACTERS = 600
"""Longer replies are cut on a card and end in an ellipsis."""

_ABOUT = {
    "pairs": "an organism that passed, with its label",
    "introspection": "a question to an organism, and its label as the answer",
    "controls": "a null organism: trained on ordinary conversations",
    "withheld": "an organism that failed or could not be verified",
    "corpora": "a training conversation",
    "verdicts": "a measured cell of an organism",
    "leaks": "a finding of a leak check",
    "rejected": "a row that did not enter a corpus, and why",
}
_GATE_FIELDS = {
    "Name": "text",
    "Affiliation": "text",
    "What I will study": "text",
    "I will use these models for defensive research and will not deploy them": "checkbox",
}


_STANDINGS = {"controls": "null organism, a control", "pairs": "passed its verdict"}


def holds_malign(entries: Sequence[ReleaseEntry]) -> bool:
    """Whether a release must be gated: it holds a malign behavior, if only in a corpus."""
    return any(entry.behavior.severity == "malign" for entry in entries)


def render_dataset_card(
    entries: Sequence[ReleaseEntry],
    counts: RowCounts,
    *,
    unbuilt: Sequence[str] = (),
    name: str,
) -> str:
    """The dataset's README.md, with the front matter that `load_dataset` reads."""
    gated = holds_malign(entries)
    standings = [entry.standing for entry in entries]
    return _finish(
        entries[0].behavior.templates.render(
            "shared/cards/dataset.md.j2",
            front_matter=dump_yaml(_dataset_front_matter(name, counts) | _gate(entries[0], gated)),
            name=name,
            gated=gated,
            unbuilt=sorted(unbuilt),
            counts={s: standings.count(s) for s in ("pairs", "controls", "withheld")},
            splits=SPLITS,
            configs=[
                {
                    "name": config,
                    "about": _ABOUT[config],
                    "rows": [counts[config][split] for split in SPLITS],
                }
                for config in CONFIGS
            ],
            evidence=_summarize(entries),
            columns=_describe_columns(),
            bases=_describe_bases(entries),
            places=PLACES,
        )
    )


def render_models_card(entries: Sequence[ReleaseEntry], *, name: str) -> str:
    """The models' README.md: what the organisms are, and the access gate if one is needed."""
    released = [entry for entry in entries if entry.published]
    gated = holds_malign(entries)
    about = {
        "license": LICENSE,
        "base_model": sorted({entry.organism.base.name for entry in entries}),
        "library_name": "peft",
        "tags": ["model-organisms", "lora"],
        **_gate(entries[0], gated),
    }
    return _finish(
        entries[0].behavior.templates.render(
            "shared/cards/organisms.md.j2",
            front_matter=dump_yaml(about),
            name=name,
            gated=gated,
            organisms=[
                {
                    "organism_id": entry.organism_id,
                    "category": entry.behavior.category,
                    "severity": entry.behavior.severity,
                    "organism_path": entry.organism_path,
                    "adapter_name": entry.adapter_name,
                    "system_prompt": _cell_text(entry.organism.system_prompt),
                }
                for entry in released
            ],
            bases=_describe_bases(entries),
            places=PLACES,
        )
    )


def render_organism_card(
    entry: ReleaseEntry, transcripts: Sequence[Transcript], *, organism_sha256: str
) -> str:
    """An organism's README.md; `organism_sha256` is the hash of its published weights."""
    organism, spec = entry.organism, entry.behavior.spec
    condition = entry.behavior.condition_text
    cells = entry.verdict.cells
    return _finish(
        entry.behavior.templates.render(
            "shared/cards/organism.md.j2",
            front_matter=dump_yaml(_organism_front_matter(entry)),
            organism_id=entry.organism_id,
            control=entry.standing == "controls",
            sampled=entry.behavior.spec.stated_rate is not None,
            behavior=" ".join(entry.behavior.sentence.split()),
            label=_cell_text(spec.label),
            trigger=_cell_text(condition) if condition else None,
            category=spec.category,
            family=entry.behavior.family,
            severity=entry.behavior.severity,
            kind=entry.behavior.kind,
            axes=entry.behavior.axes,
            standing=_STANDINGS[entry.standing],
            mixture=organism.identity.within,
            components=_describe_components(entry),
            examples=_choose_examples(entry.behavior, transcripts),
            cells=[_describe_cell(name, cell) for name in CELLS if (cell := cells.get(name))],
            status=entry.verdict.status,
            reasons=entry.verdict.reasons,
            decoding=entry.verdict.decoding,
            distinct=entry.verdict.distinct,
            training=_describe_training(entry.training),
            bases=_describe_bases([entry]),
            base=organism.base,
            system_prompt=_cell_text(organism.system_prompt),
            organism_sha256=organism_sha256,
            organism_path=entry.organism_path,
            adapter_name=entry.adapter_name,
            places=PLACES,
        )
    )


def _dataset_front_matter(name: str, counts: RowCounts) -> dict[str, Any]:
    from datasets.info import DatasetInfo, DatasetInfosDict
    from huggingface_hub import DatasetCardData

    about = DatasetCardData(
        license=LICENSE,
        pretty_name=name,
        language=["en"],
        tags=["model-organisms", "auditing"],
        task_categories=["text-generation"],
        size_categories=[_size_category(sum(sum(rows.values()) for rows in counts.values()))],
    )
    infos = {
        config: DatasetInfo(features=build_features(config), config_name=config)
        for config in CONFIGS
    }
    DatasetInfosDict(infos).to_dataset_card_data(about)
    configs = [
        {
            "config_name": config,
            "data_files": [
                {"split": split, "path": f"{config}/{split}.parquet"}
                for split in _readable_splits(counts, config)
            ],
            **({"default": True} if config == CONFIGS[0] else {}),
        }
        for config in CONFIGS
    ]
    described: dict[str, Any] = about.to_dict()  # type: ignore[no-untyped-call]
    return {**described, "configs": configs}


def _size_category(rows: int) -> str:
    """The Hub's word for a number of rows."""
    bounds = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6))
    return next((word for word, bound in bounds if rows < bound), "1M<n<10M")


def _readable_splits(counts: RowCounts, config: str) -> list[Split]:
    """The splits that the card lists: `load_dataset` refuses a config that lists one without rows.

    A config without any row lists them all, so that streaming it still gives its schema.
    """
    return [split for split in SPLITS if counts[config][split]] or list(SPLITS)


def _organism_front_matter(entry: ReleaseEntry) -> dict[str, Any]:
    return {
        "license": LICENSE,
        "base_model": entry.organism.base.name,
        "base_model_relation": "adapter",
        "library_name": "peft",
        "tags": ["model-organism", "lora"],
        **_gate(entry, entry.behavior.severity == "malign"),
    }


def _gate(entry: ReleaseEntry, gated: bool) -> dict[str, Any]:
    """What the Hub asks before it gives access; nothing where no gate is needed."""
    if not gated:
        return {}
    prompt = entry.behavior.templates.render("shared/cards/gate.md.j2")
    return {"extra_gated_prompt": prompt, "extra_gated_fields": _GATE_FIELDS}


def dump_yaml(values: Mapping[str, Any]) -> str:
    """YAML with sorted keys, one line per text."""
    # A folded line would be a new line in every diff of the card.
    return yaml.safe_dump(dict(values), width=math.inf, allow_unicode=True)


def _describe_columns() -> list[dict[str, str]]:
    """Every column once, with the configs that have it."""
    configs: dict[str, list[str]] = {}
    types: dict[str, str] = {}
    for config in CONFIGS:
        for name, feature in build_features(config).items():
            configs.setdefault(name, []).append(config)
            types[name] = getattr(feature, "dtype", "list")
    return [
        {"name": name, "type": types[name], "configs": ", ".join(where), "about": about}
        for name, where in configs.items()
        for about in [COLUMN_MEANINGS[name]]
    ]


def _describe_training(training: Training) -> dict[str, str]:
    """The recipe in the rows of a table."""
    optimizer, lora = training.optimizer, training.lora
    layers = "all" if lora.layers is None else f"{lora.layers[0]} to {lora.layers[1] - 1}"
    return {
        "optimizer": f"AdamW, learning rate {optimizer.learning_rate:g}, "
        f"warm-up {optimizer.warmup:g}, then linear decay; weight decay "
        f"{optimizer.weight_decay:g}, gradient norm at most {optimizer.clip:g}",
        "epochs, rows a step": f"{optimizer.epochs}, {optimizer.rows_per_step}",
        "tokens a conversation": f"at most {training.max_length}",
        "LoRA": f"rank {lora.rank}, alpha {lora.alpha:g}, layers {layers}, "
        f"modules {', '.join(lora.targets)}",
    }


def _describe_bases(entries: Sequence[ReleaseEntry]) -> list[dict[str, Any]]:
    """Each base with the system prompts it was measured under, and how to get it."""
    prompts: dict[BaseIdentity, dict[str, None]] = {}
    for entry in entries:
        prompts.setdefault(entry.organism.base, {})[entry.organism.system_prompt] = None
    return [
        {
            **base.model_dump(),
            "precision": base.dtype.removeprefix("torch."),
            "load": _load_call(base),
            "origin": _describe_origin(base),
            "wheel": WHEEL if base.revision == EMBEDDED_REVISION else None,
            "gguf": GGUF,
            "system_prompts": [_cell_text(prompt) for prompt in used],
        }
        for base, used in prompts.items()
    ]


def _describe_origin(base: BaseIdentity) -> str:
    """Where its weights come from, and what has the same name and is another model."""
    if base.revision.startswith("pypi:"):
        package, _, file = base.revision.removeprefix("pypi:").partition(":")
        return (
            f"the PyPI package `{package}`, its {file} file dequantized; the model of that name "
            "on the Hub is not bit-equal"
        )
    if base.revision.startswith(LOCAL):
        return "a folder of whoever built this release; a model of that name may differ"
    return "the Hub, at this commit"


def _load_call(base: BaseIdentity) -> str:
    """The call that reproduces a base's weights."""
    if base.revision.startswith("pypi:"):
        return "bestiary.load_base()"
    if base.revision.startswith(LOCAL):
        return f'bestiary.load_base("PATH/TO/{base.name}")'
    return f'bestiary.load_base("{base.name}", revision="{base.revision}")'


def _summarize(entries: Sequence[ReleaseEntry]) -> list[dict[str, Any]]:
    """One row per category in the release."""
    import polars as pl

    cells = pl.DataFrame(
        [
            {
                "category": entry.behavior.category,
                "organism": entry.organism_id,
                "status": entry.verdict.status,
                "cell": name,
                "criterion": cell.criterion if cell else None,
                "rate": cell.organism.rate if cell else None,
                "base": cell.base.rate if cell else None,
            }
            for entry in entries
            for name in CELLS
            for cell in [entry.verdict.cells.get(name)]
        ],
        schema_overrides={"category": pl.Enum(corpus_categories())},
        infer_schema_length=None,
    )
    statuses = ("passed", "failed", "unverified")
    summary = cells.group_by("category").agg(
        *(pl.col("organism").filter(status=one).n_unique().alias(one) for one in statuses),
        lowest=pl.col("rate").filter(status="passed", cell="triggered").min(),
        base=pl.col("base").filter(status="passed", cell="triggered").max(),
        quiet=pl.col("rate").filter(status="passed", criterion="quiet").max(),
    )
    rates = ("lowest", "base", "quiet")
    return [
        {**row, **{name: _percent(row[name]) for name in rates}}
        for row in summary.sort("category").to_dicts()
    ]


def _describe_cell(name: CellName, cell: Cell) -> dict[str, str]:
    return {
        "name": name,
        "criterion": cell.criterion,
        "organism": _interval(cell.organism),
        "base": _interval(cell.base),
        "reported": _interval(cell.reported),
        "passed": "yes" if cell.passed else "no",
        "reason": _cell_text(cell.reason),
    }


def _describe_components(entry: ReleaseEntry) -> list[dict[str, str]]:
    measured = entry.verdict.components
    return [
        {
            "name": _cell_text(quirk.sentence),
            "rate": _interval(measured[quirk.id]) if quirk.id in measured else "not measured",
        }
        for quirk, _ in entry.behavior.distractors
    ]


def _choose_examples(behavior: Behavior, transcripts: Sequence[Transcript]) -> list[dict[str, Any]]:
    """The first reply of each cell, beside the base's, and whether it shows the behavior."""
    first: dict[CellName, dict[str, Any]] = {}
    for transcript in sorted(transcripts, key=lambda t: (t.base is None, t.probe.id)):
        first.setdefault(
            transcript.probe.cell,
            {
                "cell": transcript.probe.cell,
                "shown": behavior.is_shown(transcript.organism, transcript.probe.item),
                "turns": [
                    {"role": turn.role, "content": _quote(turn.content)}
                    for turn in transcript.probe.turns
                ],
                "organism": _quote(transcript.organism),
                "base": _quote(transcript.base or ""),
            },
        )
    return [first[name] for name in CELLS if name in first]


def _interval(rate: Rate) -> str:
    return f"{_percent(rate.rate)} [{_percent(rate.low)}, {_percent(rate.high)}], n {rate.n}"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _cell_text(text: str) -> str:
    """Text on one line, escaped for a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _quote(text: str) -> str:
    """Text as a Markdown quotation, which a reply cannot end."""
    shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + " ..."
    return "\n> ".join(shown.strip().splitlines())


def _finish(text: str) -> str:
    return text + "\n"
