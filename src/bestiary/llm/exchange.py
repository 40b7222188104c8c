"""Requests in a file, for others to answer, and their answers, read beside it.

The file is a batch file of chat completions, which inference servers can run as it is. Whoever
answers it, a person, an agent, or a model without a server, needs nothing of Bestiary.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from bestiary.errors import BackendError
from bestiary.llm.chat_body import write_batch_line, write_body
from bestiary.llm.completion import read_openai
from bestiary.llm.ledger import Ledger, Reservation, Settlement, UsageTag
from bestiary.llm.models import LanguageModel
from bestiary.llm.online import set_error
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.provider import ProviderFault
from bestiary.llm.request import Answer, ModelRequest, Outcome, Usage
from bestiary.progress import show_counts
from bestiary.text import replace_surrogates, shorten

PREFIX = "file:"
"""Begins the name of a model that is a folder."""
REQUESTS, ANSWERS = "requests.jsonl", "answers*.jsonl"
SETTLING_SECONDS = 0.1
"""Without a further request, after which all that can be asked has been asked."""
UNCOUNTED = Usage(input=0, output=0, counted=False)


def describe_folder(folder: Path) -> PromptedModel:
    """The model that a folder stands for; its name is the folder's, whatever its path."""
    folder = folder.absolute()
    model = LanguageModel(
        provider="file",
        url=str(folder),
        served_as=folder.name,
        key=None,
        input=0,
        output=0,
        cache_write=0,
        cache_read=0,
    )
    return PromptedModel(f"{PREFIX}{folder.name}", model)


class FileDispatcher:
    """Answers requests from files, and writes those that have no answer yet."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        self._answers = dict(_read_answers(folder))
        held = ledger.find(self._answers)
        # An answer that somebody has corrected in its file counts; nobody pays for it twice.
        ledger.correct({key: self._answers[key] for key in held})
        self._waiting: dict[str, tuple[ModelRequest, UsageTag]] = {}
        self._outcomes: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave no file of requests behind that are all answered."""
        if not self._waiting:
            (self._folder / REQUESTS).unlink(missing_ok=True)

    async def ask(self, requests: Sequence[ModelRequest], tag: UsageTag) -> list[Outcome]:
        """Outcomes in order; raises BackendError once all that has no answer is written."""
        missing = [one for one in requests if one.key not in self._answers]
        if missing:
            self._waiting |= {one.key: (one, tag) for one in missing}
            written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._outcomes.append(written)
            await written
        return [self._keep(one, tag) for one in requests]

    def flush(self) -> None:
        """Every workflow waits for an answer: write what they ask, once no more comes."""
        if self._timer is None:
            self._settle(-1)

    def _settle(self, seen: int) -> None:
        """Some workflows only wait for the ledger, and ask for more as soon as it answers."""
        found, self._timer = len(self._outcomes), None
        if found != seen:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SETTLING_SECONDS, self._settle, found)
        elif found:
            self._write()

    def _keep(self, request: ModelRequest, tag: UsageTag) -> Answer:
        """Commit an answer to the ledger, where a rerun finds it without the file."""
        answer = self._answers[request.key]
        (spend,) = self._ledger.settle_and_reserve([], [Reservation(tag, request.model, 0, "file")])
        assert spend is not None, "what is free fits any budget"
        self._ledger.settle_and_reserve([Settlement(spend, key=request.key, answer=answer)])
        return answer

    def _write(self) -> None:
        lines = [self._show(*one) for one in self._waiting.values()]
        path = self._folder / REQUESTS
        stages = Counter(
            f"{tag.stage} asked again" if request.sample else tag.stage
            for request, tag in self._waiting.values()
        )
        error = BackendError(
            f"{path}: {show_counts(stages)} requests wait for an answer",
            f"run it as a batch file, or write lines like {_EXAMPLE}, into a file {ANSWERS} beside "
            "it, and run the same command again",
            code="answers-missing",
            path=path,
            requests=len(lines),
        )
        try:
            _write_lines(path, lines)
        except OSError as cause:
            error = BackendError(
                f"{path}: cannot be written ({cause.strerror})",
                "free some space, or name another folder with --author file:FOLDER",
                code="requests-unwritten",
                path=path,
                reason=cause.strerror,
            )
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            set_error(outcome, error)

    def _show(self, request: ModelRequest, tag: UsageTag) -> str:
        body = write_body(request, token_limit="max_tokens")
        body["metadata"] = {**tag._asdict(), "attempt": str(request.sample + 1)}
        return json.dumps(write_batch_line(request.key, body), ensure_ascii=False)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a file so that nobody reads a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(f"{line}\n" for line in lines), encoding="utf8")
    part.replace(path)


_EXAMPLE = '{"custom_id": "...", "text": "..."}'


def _read_answers(folder: Path) -> Iterator[tuple[str, Answer]]:
    """The answers in a folder, by the keys of their requests; of two answers, the later one counts.

    Raises BackendError for a line that is none.
    """
    for path in sorted(folder.glob(ANSWERS)):
        text = path.read_bytes().decode("utf-8-sig", "replace")
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _read_line(line, f"{path}:{number}")


def _read_line(line: str, place: str) -> tuple[str, Answer]:
    try:
        row = json.loads(line)
        return str(row["custom_id"]), _read_answer(row)
    except (ValueError, LookupError, TypeError, RecursionError, ProviderFault) as cause:
        raise BackendError(
            f"{place}: {shorten(line)} is no answer ({cause or type(cause).__name__})",
            f"write lines like {_EXAMPLE}, or what a batch of chat completions returns",
            code="answer-unreadable",
            place=place,
        ) from cause


def _read_answer(row: dict[str, Any]) -> Answer:
    if "text" in row:
        if not isinstance(row["text"], str):
            raise TypeError("its text is no string")
        return Answer(text=replace_surrogates(row["text"]), stop="end", usage=UNCOUNTED, id="file")
    return read_openai(row["response"]["body"], key="")
