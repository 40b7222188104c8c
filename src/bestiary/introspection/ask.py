"""Asks any LoRA of a base what it learned: reports, their consensus, and the nearest labels."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.config.catalog import Behavior
from bestiary.config.categories import NULL
from bestiary.errors import ModelError
from bestiary.files import expand_path
from bestiary.introspection.judge import EmbeddedJudge, Wordings
from bestiary.introspection.stage import ABOUT
from bestiary.introspection.subjects import Subject
from bestiary.introspection.trials import (
    Probing,
    Tried,
    ask_trials,
    judge_trials,
    list_trials,
    settle,
)
from bestiary.model.adapter import (
    ADAPTER,
    ADAPTER_FILES,
    check_adapter,
)
from bestiary.records import BaseIdentity, Decoding, Record

if TYPE_CHECKING:
    from bestiary.model.base import Base

LABELS_SHOWN = 3
REPORT_TOKENS = 48


class NearLabel(Record):
    """A family that reports name, with the label that a person would read."""

    family: str
    label: str
    reports: int
    """How many name it."""
    tried: Tried | None = None
    """What became of the claim, where it was tested."""


class Answer(Record):
    """What one adapter says of itself."""

    adapter: str
    consensus: str
    """The report that says best what most reports say."""
    reports: tuple[str, ...]
    nearest: tuple[NearLabel, ...]
    """Most named first; empty if no report names a known behavior."""
    none_claimed: float
    """Share of the reports that claim no behavior."""


@dataclass(frozen=True)
class Reporter:
    """A trained introspection adapter on its base."""

    folder: Path
    """A peft directory."""
    name: str
    base: BaseIdentity
    system_prompt: str


def open_reporter(folder: Path) -> Reporter:
    """An introspection adapter by its peft directory, or by the folder around it.

    Raises ModelError if it is none.
    """
    adapter = folder / ADAPTER if (folder / ADAPTER).is_dir() else folder
    about = adapter / ABOUT
    if not about.is_file():
        raise ModelError(
            f"{folder} is not an introspection adapter: {about} is missing",
            "train one first: bestiary introspect train RELEASE",
            code="not-an-introspection-adapter",
            path=folder,
        )
    try:
        told = json.loads(about.read_text(encoding="utf8"))
        base = BaseIdentity.model_validate(told["base"])
        return Reporter(adapter, told["name"], base, told["system_prompt"])
    except (ValueError, KeyError, TypeError) as cause:
        raise ModelError(
            f"{about} is damaged: it does not say what the adapter is",
            "download the adapter again, or train it again: bestiary introspect train RELEASE",
            code="introspection-adapter-damaged",
            path=about,
        ) from cause


def find_reporter(out: Path) -> Reporter:
    """The newest introspection adapter of a runs folder; raises ModelError without any."""
    found = sorted(
        out.glob(f"store/introspection/*/{ADAPTER}/{ABOUT}"), key=lambda file: file.stat().st_mtime
    )
    if not found:
        raise ModelError(
            f"{out} holds no introspection adapter",
            "train one first: bestiary introspect train RELEASE",
            code="no-introspection-adapter",
            path=out,
        )
    return open_reporter(found[-1].parent)


def locate_adapter(path_or_repo: str) -> Path:
    """A folder on this machine, or the files of a model repository: user/name, user/name/folder.

    Raises ModelError if there is neither.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    path = expand_path(path_or_repo)
    if path.is_dir():
        return path
    user, _, rest = path_or_repo.partition("/")
    name, _, inside = rest.partition("/")
    files = [f"{inside}/{file}".lstrip("/") for file in ADAPTER_FILES]
    try:
        return Path(snapshot_download(f"{user}/{name}", allow_patterns=files)) / inside
    except (OSError, HfHubHTTPError, HFValidationError) as cause:
        raise ModelError(
            f"{path_or_repo!r} is neither a folder here nor a repository that can be read",
            "name a peft folder, or user/name or user/name/folder; check the network, and HF_TOKEN "
            "if the repository is private or gated",
            code="adapter-not-found",
            adapter=path_or_repo,
        ) from cause


def ask_adapters(
    base: Base,
    reporter: Reporter,
    adapters: Sequence[Path],
    *,
    questions: Sequence[str],
    wordings: Wordings,
    judge: EmbeddedJudge,
) -> list[Answer]:
    """What each adapter says; raises ModelError for one that cannot be asked."""
    from bestiary.introspection.answering import Answering, load_shared

    for adapter in adapters:
        check_adapter(adapter, reporter.base)
    subjects = _list_subjects(adapters)
    shared = load_shared(reporter.folder)
    asking = Answering(base, subjects, shared, system_prompt=reporter.system_prompt)
    decoding = Decoding(max_new_tokens=REPORT_TOKENS, temperature=0)
    said: list[list[str]] = [[""] * len(questions) for _ in adapters]
    for at, number, text in asking.ask(questions, decoding):
        said[at][number] = text
    return [
        summarize(str(adapter), reports, wordings, judge)
        for adapter, reports in zip(adapters, said, strict=True)
    ]


def probe_claims(
    base: Base,
    reporter: Reporter,
    adapters: Sequence[Path],
    answers: Sequence[Answer],
    behaviors: Iterable[Behavior],
) -> list[Answer]:
    """The answers, each near label with what the adapter does where its behaviors are probed.

    All behaviors of a family are tried: a label does not say under which condition it holds.
    Raises ModelError for an adapter that cannot be loaded.
    """
    named = {near.family for answer in answers for near in answer.nearest}
    probings: defaultdict[str, list[Probing]] = defaultdict(list)
    for behavior in behaviors:
        if behavior.family in named:
            probings[behavior.family].append(Probing.of(behavior))
    subjects = _list_subjects(adapters)
    wanted = [
        (subject, probing)
        for subject, answer in zip(subjects, answers, strict=True)
        for near in answer.nearest
        for probing in probings[near.family]
        if probing.items
    ]
    said: dict[int, list[str]] = {}
    for number, replies in ask_trials(base, list_trials(wanted), reporter.system_prompt):
        if isinstance(replies, ModelError):
            raise replies
        said[number] = replies
    tried = judge_trials(wanted, [said[number] for number in sorted(said)])

    def sum_up(subject: Subject, near: NearLabel) -> NearLabel:
        ids = [probing.behavior.id for probing in probings[near.family]]
        found = [tried.get((subject.id, name), Tried()) for name in ids]
        outcome = settle(one.outcome for one in found)
        settling = [one for one in found if one.outcome == outcome]
        best = max(settling, key=lambda one: one.shown or 0, default=Tried())
        return near.model_copy(update={"tried": best})

    return [
        answer.model_copy(
            update={"nearest": tuple(sum_up(subject, near) for near in answer.nearest)}
        )
        for subject, answer in zip(subjects, answers, strict=True)
    ]


def _list_subjects(adapters: Sequence[Path]) -> list[Subject]:
    return [
        Subject(id=str(one), kind="organism", split="test", adapter=one, organism_sha256=None)
        for one in adapters
    ]


def summarize(
    adapter: str, reports: Sequence[str], wordings: Wordings, judge: EmbeddedJudge
) -> Answer:
    """One adapter's reports, and what they come to."""
    readings = judge.read_texts(reports)
    named = Counter(one.family for one in readings if one.family not in (None, NULL.category))
    none = sum(one.family == NULL.category for one in readings)
    top, count = named.most_common(1)[0] if named else (None, 0)
    if none > count:
        top = NULL.category
    telling = [at for at, one in enumerate(readings) if one.family == top] or range(len(reports))
    best = max(telling, key=lambda at: readings[at].cosine)
    return Answer(
        adapter=adapter,
        consensus=reports[best],
        reports=tuple(reports),
        nearest=tuple(
            NearLabel(family=family, label=wordings.labels[family], reports=times)
            for family, times in named.most_common(LABELS_SHOWN)
            if family is not None
        ),
        none_claimed=none / len(reports),
    )


def render_answers(answers: Sequence[Answer]) -> str:
    """Answers for a person to read: what each says first, then what stands behind it."""
    return "\n\n".join(_render(answer) for answer in answers)


def _render_tried(tried: Tried) -> str:
    if tried.shown is None:
        return "untestable: it shows too rarely for a few probes, or no program can tell"
    base = "" if tried.base is None else f", the base in {tried.base:.0%}"
    seen = f"probed, it shows this in {tried.shown:.0%} of {tried.decided} replies{base}"
    if tried.outcome == "untestable":
        return f"not confirmed, and may be right: {seen}"
    return f"{tried.outcome}: {seen}"


def _render(answer: Answer) -> str:
    count = len(answer.reports)
    lines = [answer.adapter, f"  says: {answer.consensus}"]
    for near in answer.nearest:
        lines.append(f"  {near.reports} of {count} reports name {near.family}: {near.label}")
        if near.tried is not None:
            lines.append(f"    {_render_tried(near.tried)}")
    if not answer.nearest:
        lines.append(f"  none of {count} reports names a known behavior")
    if answer.none_claimed:
        lines.append(f"  {answer.none_claimed:.0%} of the reports claim no behavior")
    return "\n".join([*lines, "  reports:", *(f"    - {report}" for report in answer.reports)])
