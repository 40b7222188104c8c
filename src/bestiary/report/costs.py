"""Rows and tables of estimated and actual costs, for `plan` and `spend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import polars as pl
from polars import selectors
from rich import box
from rich.table import Table

from bestiary.author.dry_run import Step
from bestiary.config.plan import Plan
from bestiary.estimate import ASKED, WAYS, Estimate, choose_mode, price_steps
from bestiary.llm.ledger import Spent
from bestiary.llm.models import LanguageModel
from bestiary.llm.price import PICO, show_dollars
from bestiary.records import shorten_id

if TYPE_CHECKING:
    from bestiary.pilot import Pilot
    from bestiary.training.forecast import Forecast

GIB = 2**30


def estimate_rows(estimate: Estimate) -> list[dict[str, Any]]:
    """A row per organism and a total: requests, tokens, and dollars by way of asking."""
    named = {**estimate.steps, "all": estimate.everything}
    return [
        {"organism_id": name, **describe_steps(steps, estimate.models)}
        for name, steps in named.items()
    ]


def describe_steps(steps: Sequence[Step], models: Mapping[str, LanguageModel]) -> dict[str, Any]:
    """Requests, tokens and dollars of some steps."""
    costs = price_steps(steps, models)
    dollars = {way: None if pico is None else pico / PICO for way, pico in costs.items()}
    return {
        "requests": sum(step.requests for step in steps),
        "read_tokens": round(sum(step.read_tokens for step in steps)),
        "written_tokens": round(sum(step.written_tokens for step in steps)),
        "dollars": dollars,
        "cheaper": ASKED[choose_mode(costs)],
    }


def count_rows(plan: Plan) -> int:
    """Conversations in all corpora of a roster."""
    return sum(sum(behavior.row_counts.values()) for behavior, _ in plan.organisms)


def describe_pilot(pilot: Pilot, plan: Plan) -> dict[str, Any]:
    """What the corpora of a whole roster take, by what its pilot measured."""
    whole = {"organisms": len(plan.adapters), "conversations": count_rows(plan)}
    if pilot.estimate is None:
        return {**whole, "dollars": 0}
    steps = describe_steps(pilot.estimate.everything, pilot.estimate.models)
    dollars = steps["dollars"][ASKED[pilot.estimate.mode]]
    if dollars is None:  # its models have no batches: each request has its own price
        dollars = steps["dollars"][ASKED["single"]]
    hours = None if pilot.hours is None else round(pilot.hours, 4)
    return {
        **whole,
        "requests": steps["requests"],
        "mode": pilot.estimate.mode,
        "dollars": round(dollars, 4),
        "hours": hours,
    }


def describe_training(forecast: Forecast, plan: Plan, gpu: str) -> dict[str, Any]:
    """What training a roster takes on a GPU."""
    kind = plan.library.gpus[gpu]
    return {
        "recipe": plan.recipe.name,
        "base": plan.recipe.base,
        "gpu": gpu,
        "organisms": len(plan.adapters),
        "side_by_side": forecast.plan.slots,
        "recompute_layers": forecast.plan.recompute,
        "peak_gib": round(forecast.plan.peak / GIB, 1),
        "memory_gib": kind.memory_gib,
        "tokens": forecast.tokens,
        "petaflop": round(forecast.operations / 1e15, 3),
        "hours": None if forecast.hours is None else round(forecast.hours, 4),
        "tflops_reached": kind.training_tflops,
        "measured": kind.measured,
    }


def estimate_table(estimate: Estimate) -> Table:
    """One line per organism, and a total."""
    table = Table(
        title="what the corpora take: requests, tokens, dollars",
        caption="cached: with prompt caching",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("category.organism", overflow="fold")
    ways = (way.replace(" + caching", ", cached") for way in WAYS)
    for header in ("requests", "read", "written", *ways):
        table.add_column(header, justify="right", no_wrap=True)
    for row in estimate_rows(estimate):
        if row["organism_id"] == "all":
            table.add_section()
        table.add_row(
            shorten_id(row["organism_id"]),
            f"{row['requests']:,}",
            *(show_thousands(row[name]) for name in ("read_tokens", "written_tokens")),
            *(_show(row["dollars"][way]) for way in WAYS),
        )
    return table


def _show(dollars: float | None) -> str:
    return "-" if dollars is None else show_dollars(dollars * PICO)


def spend_rows(spent: Sequence[Spent]) -> list[dict[str, Any]]:
    """A row per behavior, stage, model and mode."""
    return _tabulate(spent).to_dicts()


def _tabulate(spent: Sequence[Spent]) -> pl.DataFrame:
    # Stated, so that a ledger without requests has the same columns.
    types = {field.name: pl.Int64 if field.type == "int" else pl.String for field in fields(Spent)}
    return pl.DataFrame(spent, schema=types).select(
        pl.col("project").alias("behavior"),  # a build's projects are its behaviors
        *("stage", "model", "mode", "requests"),
        input_tokens="input",
        cached_tokens="cached",
        output_tokens="output",
        dollars=pl.col("pico") / PICO,
        unknown_dollars=pl.col("unknown") / PICO,
    )


def spend_table(spent: Sequence[Spent]) -> Table:
    """Requests and costs by behavior, and in total."""
    rows = _tabulate(spent)
    replayed = rows.filter(mode="replay")["requests"].sum()
    table = Table(
        title="requests and bills",
        caption=f"and {replayed:,} requests answered from the ledger" if replayed else None,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for header in ("behavior, stage", "model"):
        table.add_column(header, overflow="fold")
    for header in ("requests", "read", "cached", "written", "billed", "unknown"):
        table.add_column(header, justify="right", no_wrap=True)
    asked = rows.filter(pl.col("mode") != "replay")
    for (behavior,), group in asked.group_by("behavior", maintain_order=True):
        table.add_row(str(behavior))
        for row in group.to_dicts():
            stage = row["stage"] + (", batch" if row["mode"] == "batch" else "")
            table.add_row(f"  {stage}", row["model"], *_cells(row))
        table.add_section()
    (total,) = asked.select(selectors.numeric().sum()).to_dicts()
    table.add_row("all", "", *_cells(total))
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    tokens = (row[name] for name in ("input_tokens", "cached_tokens", "output_tokens"))
    return [
        f"{row['requests']:,}",
        *(show_thousands(count) for count in tokens),
        *(show_dollars(row[name] * PICO) for name in ("dollars", "unknown_dollars")),
    ]


def show_thousands(count: int) -> str:
    """A count of tokens in thousands."""
    return f"{count / 1000:,.0f}k"
