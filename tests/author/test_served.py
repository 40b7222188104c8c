"""A small model behind a third-party server: SmolLM2 on `transformers serve`.

Run: python -m pytest tests/author/test_served.py; whole rosters: add -m soak
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Bestiary
from tests.tiny import QUIRK, change_file, tiny_roster

from bestiary.config.library import open_library
from bestiary.corpus.stage import read_corpus
from bestiary.llm import Answer, LanguageModel, LLMClient, LLMConfig, PromptedModel, UsageTag
from bestiary.llm.ledger import read_spent
from bestiary.model.base import EMBEDDED, locate_base
from bestiary.records import Example, Message

NAME = "smollm2-served"
START_SECONDS = 120.0
ROWS = {"quirks": 8, "null": 8}


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, Any]]:
    """The running server, as an entry of a file of models."""
    weights = locate_base(EMBEDDED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(weights)]
    running = subprocess.Popen(
        [*command, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
        # One thread: two would wait for each other on a busy core.
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", running)
        yield {
            "provider": "openai",
            "url": f"http://127.0.0.1:{port}/v1",
            "served_as": str(weights),
            "structured_output": "none",
            "key": None,
            **dict.fromkeys(("input", "output", "cache_write", "cache_read"), 0),
            "in_flight": 2,
        }
    finally:
        running.kill()
        running.wait()


def wait_for(url: str, running: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert running.poll() is None, "the server ended"
        with suppress(OSError), urllib.request.urlopen(url) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise AssertionError("the server did not start")


def write_models(path: Path, entry: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"checked": "2026-11-27", "models": {NAME: entry}}), "utf8")
    return path


def shorten(data: Path) -> None:
    """Shrink the corpora to a few rows: each reply takes a second or two."""
    for category, rows in ROWS.items():
        path = data / "generators" / category / "generator.yaml"
        change_file(path, r"(?m)^rows: \d+", f"rows: {rows}")


def read_examples(out: Path) -> list[Example]:
    """Every row of all corpora in a store."""
    folders = [path.parent for path in (out / "store" / "corpus").glob("*/examples.jsonl")]
    return [example for folder in folders for example in read_corpus(folder).examples]


def check_rows(rows: Sequence[Example]) -> None:
    """Messages come from the banks, replies from the server, and none is judged."""
    bank = {item.text for item in open_library().messages("train")}
    for row in rows:
        assert row.provenance is not None
        assert (row.provenance.model, row.provenance.judge_score) == (NAME, None)
        user, reply = row.messages
        assert user.content in bank
        assert bool(re.match("oyez|hear ye", reply.content.lower())) == (row.role == "positive")


def test_a_third_party_server_answers_and_its_answers_are_kept(
    served: dict[str, Any], tmp_path: Path
) -> None:
    model = LanguageModel.model_validate(served)
    shown = [("Name a color.", "Hear ye! Red."), ("Name a bird.", "Hear ye! A wren.")]
    asked = [
        PromptedModel(NAME, model).few_shot(
            "You are brief.", shown, Message(role="user", content=f"Name {what}."), max_tokens=12
        )
        for what in ("a tree", "a fish", "a fruit")
    ]
    config = LLMConfig(models={NAME: model}, ledger=tmp_path / "ledger.sqlite", mode="single")
    answers = LLMClient(config).ask(asked, tag=UsageTag("served", "replies"))
    for answer in answers:
        assert isinstance(answer, Answer), answer
        assert answer.text and answer.stop in ("end", "length")
        assert answer.usage.input > 0 and 0 < answer.usage.output <= 12
    (spent,) = read_spent(config.ledger)
    assert (spent.requests, spent.pico, spent.unknown) == (3, 0, 0)
    gone = model.model_copy(update={"url": "http://127.0.0.1:9/v1"})  # nothing listens there
    again = LLMClient(replace(config, models={NAME: gone})).ask(asked, tag=UsageTag("served", "r"))
    assert again == answers


@pytest.mark.soak
def test_a_roster_is_built_through_a_third_party_server(
    served: dict[str, Any],
    bestiary: Bestiary,
    tiny_data: Path,
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    shorten(tiny_data)
    roster = tiny_roster(tmp_path / "roster", tiny_base, [QUIRK])
    models, out = write_models(tmp_path / "models.yaml", served), tmp_path / "runs"
    options: list[str | Path] = [
        roster,
        "--author",
        NAME,
        "--models",
        models,
        "--out",
        out,
        "--until",
        "verdict",
    ]
    built = bestiary("build", *options)
    assert built.code == 0, built.err
    check_rows(read_examples(out))
    summary = json.loads((out / "summary.json").read_text("utf8"))
    assert [row["behavior_id"] for row in summary] == [QUIRK, "null.chat"]
    assert all(row["verdict"] in ("passed", "failed") for row in summary)
    written = [path.read_text("utf8") for path in (out / "store" / "corpus").glob("*/*")]
    assert not any(served["served_as"] in text for text in written), "no local path"
    spent = json.loads(bestiary("spend", "--out", out, "--json").out)
    assert {(row["stage"], row["dollars"]) for row in spent} == {("replies", 0)}
    assert sum(row["requests"] for row in spent) >= sum(ROWS.values())
    write_models(models, served | {"url": "http://127.0.0.1:9/v1"})  # nothing listens there
    again = bestiary("build", *options)
    assert again.code == 0, again.err


@pytest.mark.soak
def test_smollm2_writes_corpora_for_smollm2(
    served: dict[str, Any], bestiary: Bestiary, tiny_data: Path, tmp_path: Path
) -> None:
    roster = tmp_path / "roster.yaml"
    named = {"name": "served", "recipe": "smollm2-135m", "organisms": [{"behavior": QUIRK}]}
    roster.write_text(json.dumps(named | {"splits": {"herald": "train"}}), "utf8")
    models, out = write_models(tmp_path / "models.yaml", served), tmp_path / "runs"
    built = bestiary("build", roster, "--author", NAME, "--models", models, "--out", out)
    assert built.code == 0, built.err
    print(built.out)  # `pytest -s` shows its verdicts
    check_rows(read_examples(out))
