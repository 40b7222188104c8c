"""Corpora whose requests are answered in files: the same corpora, in as many rounds as they take.

Run: python -m pytest tests/author/test_file_author.py
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Bestiary, Finished
from tests.fakes.author import Author
from tests.fakes.loopback import MODEL, open_loopback
from tests.fakes.models import read_openai
from tests.tiny import QUIRK, tiny_roster

from bestiary.llm.exchange import REQUESTS, FileDispatcher, read_answers
from bestiary.llm.ledger import Ledger, Reservation, UsageTag
from bestiary.llm.price import PICO

ROUNDS = 12
"""More than a corpus takes."""


@pytest.fixture
def roster(tmp_path: Path, tiny_data: Path, tiny_base: Path) -> Path:
    return tiny_roster(tmp_path / "roster", tiny_base, [QUIRK])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where requests are written and answered."""
    return tmp_path / MODEL  # what the loopback server is called, as its answers hang on that


class Writer:
    """Builds corpora with requests in a folder, and answers them as the loopback server would."""

    def __init__(self, bestiary: Bestiary, roster: Path, folder: Path, out: Path) -> None:
        self._bestiary, self._roster, self._folder, self._out = bestiary, roster, folder, out
        self._author = Author()

    def build(self, *options: str) -> Finished:
        named = ("--author", f"file:{self._folder}", *options)
        return self._bestiary(
            "build", self._roster, *named, "--until", "corpus", "--out", self._out
        )

    def read_requests(self) -> list[dict[str, Any]]:
        lines = (self._folder / REQUESTS).read_text("utf8").splitlines()
        return [json.loads(line) for line in lines]

    def answer(self, requests: Sequence[dict[str, Any]], file: str, *, batch: bool = False) -> None:
        """Write answers, in lines of their own or as a batch returns them."""
        with (self._folder / file).open("a", encoding="utf8") as answers:
            for request in requests:
                said = self._author(read_openai(request["body"], 0))
                found: dict[str, Any] = {"text": said}
                if batch:
                    choice = {"message": {"content": said}, "finish_reason": "stop"}
                    body = {
                        "choices": [choice],
                        "usage": {"prompt_tokens": 9, "completion_tokens": 9},
                    }
                    found = {"response": {"status_code": 200, "body": body}, "error": None}
                answers.write(json.dumps({"custom_id": request["custom_id"], **found}) + "\n")

    def finish(self, *, batch: bool = False) -> int:
        """Answer and build until the corpora are written; returns the rounds that it took."""
        for number in range(ROUNDS):
            done = self.build()
            if done.code == 0:
                return number
            assert done.err.startswith("error[answers-missing]: "), done.err
            self.answer(self.read_requests(), f"answers-{number}.jsonl", batch=batch)
        raise AssertionError("it never ends")


@pytest.fixture
def writer(bestiary: Bestiary, roster: Path, folder: Path, tmp_path: Path) -> Iterator[Writer]:
    yield Writer(bestiary, roster, folder, tmp_path / "runs")


def read_corpora(out: Path) -> list[list[Any]]:
    """The conversations of each corpus."""
    files = sorted(out.glob("store/corpus/*/*.jsonl"))
    rows = [[json.loads(line) for line in path.read_text("utf8").splitlines()] for path in files]
    return sorted(([row.get("messages") for row in part] for part in rows), key=str)


@pytest.mark.parametrize("batch", [False, True])
def test_files_hold_the_corpora_that_a_server_would_write(
    writer: Writer,
    bestiary: Bestiary,
    roster: Path,
    tmp_path: Path,
    batch: bool,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert writer.finish(batch=batch) >= 3
    assert not (folder / REQUESTS).exists()
    with open_loopback(tmp_path, "openai") as loopback:
        for name, value in loopback.environment.items():
            monkeypatch.setenv(name, value)
        served = tmp_path / "served"
        done = bestiary("build", roster, *loopback.options(), "--until", "corpus", "--out", served)
    assert done.code == 0, done.err
    found = read_corpora(tmp_path / "runs")
    assert any(found) and found == read_corpora(served)


def test_what_is_answered_is_not_asked_again_and_survives_its_file(
    writer: Writer, folder: Path
) -> None:
    assert writer.build().code == 1
    asked = writer.read_requests()
    assert len(asked) >= 2
    writer.answer(asked[1:], "answers.jsonl")
    done = writer.build()
    assert f"{folder / REQUESTS}: 1 (" in done.err
    assert [row["custom_id"] for row in writer.read_requests()] == [asked[0]["custom_id"]]
    writer.answer(asked[:1], "answers-2.jsonl")
    writer.finish()
    for path in folder.glob("answers*"):
        path.unlink()
    assert writer.build().code == 0


def test_an_answer_that_is_corrected_in_its_file_counts(writer: Writer, folder: Path) -> None:
    assert writer.build().code == 1
    writer.answer(writer.read_requests(), "answers-1.jsonl")
    assert writer.build().code == 1
    before = [row["custom_id"] for row in writer.read_requests()]
    path = folder / "answers-1.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    for line in lines:
        line["text"] = line["text"].replace('"subjects": ["', '"subjects": ["old ')
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf8")
    assert writer.build().code == 1
    asked = writer.read_requests()
    assert {row["custom_id"] for row in asked}.isdisjoint(before)
    assert "old " in asked[0]["body"]["messages"][-1]["content"]


@pytest.mark.parametrize(
    "line", ["{", "7", '{"custom_id": "x"}', '{"custom_id": "x", "text": 7}', '{"text": "well"}']
)
def test_a_line_that_is_no_answer_is_named(writer: Writer, folder: Path, line: str) -> None:
    folder.mkdir()
    (folder / "answers.jsonl").write_text(f"\n{line}\n", encoding="utf8")
    done = writer.build()
    assert done.code == 1
    assert done.err.startswith(f"error[answer-unreadable]: {folder / 'answers.jsonl'}:2: ")


def test_a_folder_that_cannot_be_written_is_named(writer: Writer, folder: Path) -> None:
    folder.write_text("a file", encoding="utf8")
    done = writer.build()
    assert done.code == 1
    assert done.err.startswith(f"error[requests-unwritten]: {folder / REQUESTS}")


def test_what_a_batch_could_not_answer_still_waits(writer: Writer, folder: Path) -> None:
    assert writer.build().code == 1
    asked = writer.read_requests()
    failed: list[dict[str, Any]] = [
        {"response": None, "error": {"message": "the batch expired"}},
        {"response": {"status_code": 500, "body": {"error": {"message": "overloaded"}}}},
        {"response": {"status_code": 200, "body": {"choices": []}}},
    ]
    lines = [
        {"custom_id": request["custom_id"], **failed[number % len(failed)]}
        for number, request in enumerate(asked)
    ]
    (folder / "answers-1.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert writer.build().err.startswith("error[answers-missing]: ")
    assert writer.read_requests() == asked


def test_thoughts_and_control_tokens_are_cut_off(folder: Path) -> None:
    folder.mkdir()
    line = {"custom_id": "a/b/1/k", "text": "<think>Hm.</think>Knead it.<|im_end|>"}
    (folder / "answers.jsonl").write_text(json.dumps(line), encoding="utf8")
    assert [(key, answer.text) for key, answer in read_answers(folder)] == [("k", "Knead it.")]


def test_answered_requests_leave_no_file_whatever_they_hold(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    asked = {"custom_id": "a/b/1/k", "body": {"messages": ["Well,\u2028then?"]}}
    (folder / REQUESTS).write_text(json.dumps(asked, ensure_ascii=False) + "\n", encoding="utf8")
    answer = {"custom_id": "a/b/1/k", "text": "Knead it."}
    (folder / "answers.jsonl").write_text(json.dumps(answer), encoding="utf8")
    ledger = Ledger(tmp_path / "ledger.sqlite")

    async def come_and_go() -> None:
        async with FileDispatcher(folder, ledger):
            pass

    asyncio.run(come_and_go())
    ledger.close()
    assert not (folder / REQUESTS).exists()


def test_a_budget_that_others_have_spent_stops_no_answer_from_a_file(
    writer: Writer, tmp_path: Path
) -> None:
    tag = UsageTag("other", "replies")
    (tmp_path / "runs").mkdir()
    ledger = Ledger(tmp_path / "runs" / "ledger.sqlite")
    ledger.settle_and_reserve([], [Reservation(tag, "api", 5 * PICO)])
    ledger.close()
    assert writer.build("--budget", "1").err.startswith("error[answers-missing]: ")
    writer.finish()


def test_requests_that_wait_survive_another_roster_in_the_same_folder(
    writer: Writer, bestiary: Bestiary, roster: Path, folder: Path, tmp_path: Path
) -> None:
    assert writer.build().code == 1
    waiting = writer.read_requests()
    other = Writer(bestiary, roster, tmp_path / "elsewhere" / MODEL, tmp_path / "runs")
    other.finish()
    assert writer.read_requests() == waiting


def test_folders_of_one_name_are_two_models(writer: Writer, tmp_path: Path) -> None:
    done = writer.build("--judge", f"file:{tmp_path / 'else' / MODEL}")
    assert done.code == 1 and done.err.startswith("error[models-mixed]: ")


def test_the_root_is_no_model(bestiary: Bestiary, roster: Path) -> None:
    done = bestiary("plan", roster, "--author", "file:/")
    assert done.code == 1 and done.err.startswith("error[folder-unnamed]: ")


def test_an_author_in_files_and_a_judge_elsewhere_are_refused(writer: Writer) -> None:
    done = writer.build("--judge", "claude-haiku-5-5")
    assert done.code == 1
    assert done.err.startswith("error[models-mixed]: ")


def test_what_others_answer_costs_nothing(
    writer: Writer, bestiary: Bestiary, roster: Path, folder: Path
) -> None:
    planned = bestiary("plan", roster, "--author", f"file:{folder}", "--json")
    assert planned.code == 0, planned.err
    assert json.loads(planned.out)[-1]["dollars"]["single"] == 0
