"""Requests in a file, for others to answer, and their answers, read beside it.

The file is a batch file of chat completions, which inference servers can run as it is. Whoever
answers it, a person, an agent, or a model without a server, needs nothing of Bestiary.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from bestiary.errors import BackendError
from bestiary.llm.chat_body import write_batch_line, write_body
from bestiary.llm.completion import read_openai
from bestiary.llm.ledger import Ledger, UsageTag
from bestiary.llm.models import LanguageModel
from bestiary.llm.online import set_error
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.provider import ProviderFault
from bestiary.llm.request import Answer, ModelRequest, Outcome
from bestiary.progress import show_counts
from bestiary.text import shorten

PREFIX = "file:"
"""Begins the name of a model that is a folder."""
REQUESTS, ANSWERS = "requests.jsonl", "answers*.jsonl"
SETTLING_SECONDS = 0.1
"""Without a further request, after which all that can be asked has been asked."""


def describe_folder(folder: Path) -> PromptedModel:
    """The model that a folder stands for; its name is the folder's, whatever its path.

    Raises BackendError for the root of the file system, which has no name.
    """
    folder = folder.resolve()
    if not folder.name:
        raise BackendError(
            f"{PREFIX}{folder} has no name",
            "name a folder, which is made where it does not exist",
            code="folder-unnamed",
            path=folder,
        )
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
        self._answers = dict(read_answers(folder))
        # An answer that somebody has corrected in its file counts; nobody pays for it twice.
        held = ledger.find(self._answers)
        ledger.correct({key: self._answers[key] for key in held if held[key] != self._answers[key]})
        self._waiting: dict[str, tuple[ModelRequest, UsageTag]] = {}
        self._outcomes: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave no file of requests behind that are all answered."""
        if kind is None and self._is_answered():
            (self._folder / REQUESTS).unlink(missing_ok=True)

    def _is_answered(self) -> bool:
        """Whether the answers are there to all that the file asks, whoever wrote it."""
        with suppress(OSError, ValueError, LookupError, TypeError):
            # Not str.splitlines: a prompt may hold characters that it takes for line ends.
            lines = (self._folder / REQUESTS).read_text("utf8").split("\n")
            asked = [_read_key(json.loads(line)["custom_id"]) for line in lines if line]
            return all(key in self._answers for key in asked)
        return False

    async def ask(self, requests: Sequence[ModelRequest], tag: UsageTag) -> list[Outcome]:
        """Outcomes in order; raises BackendError once all that has no answer is written."""
        missing = [one for one in requests if one.key not in self._answers]
        if missing:
            self._waiting |= {one.key: (one, tag) for one in missing}
            written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._outcomes.append(written)
            await written
        found = {one.key: self._answers[one.key] for one in requests}
        if requests:
            self._ledger.keep(tag, requests[0].model, found)
        return [found[one.key] for one in requests]

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
        # For people: whose request it is. Servers refuse fields that they do not know.
        name = "/".join((*tag, str(request.sample + 1), request.key))
        body = write_body(request, token_limit="max_tokens")
        return json.dumps(write_batch_line(name, body), ensure_ascii=False)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a file so that nobody reads a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(f"{line}\n" for line in lines), encoding="utf8")
    part.replace(path)


_EXAMPLE = '{"custom_id": "...", "text": "..."}'


def read_answers(folder: Path) -> Iterator[tuple[str, Answer]]:
    """The answers in a folder, by the keys of their requests; of two answers, the later one counts.

    What a batch could not answer is left out, so that it still waits. Raises BackendError for a
    line that is no answer at all.
    """
    for path in sorted(folder.glob(ANSWERS)):
        text = path.read_bytes().decode("utf-8-sig", "replace")
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                key, body = _read_line(line, f"{path}:{number}")
                with suppress(ProviderFault):  # no answer, or one of control tokens
                    yield key, read_openai(body, key="")


def _read_line(line: str, place: str) -> tuple[str, dict[str, Any]]:
    """The key of a request, and the chat completion that answers it."""
    try:
        row = json.loads(line)
        key = _read_key(row["custom_id"])
        if "text" not in row:
            response = row["response"] or {"body": {"error": row.get("error")}}
            return key, response["body"]
        if not isinstance(row["text"], str):
            raise TypeError("its text is no string")
        message = {"message": {"content": row["text"]}, "finish_reason": "stop"}
        return key, {"choices": [message]}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as cause:
        raise BackendError(
            f"{place}: {shorten(line)} is no answer ({cause or type(cause).__name__})",
            f"write lines like {_EXAMPLE}, or what a batch of chat completions returns",
            code="answer-unreadable",
            place=place,
        ) from cause


def _read_key(custom_id: str) -> str:
    return custom_id.rpartition("/")[2]
