"""The frozen records that flow from stage to stage, and the hashes that name them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["positive", "negative", "chat"]
CellName = Literal["triggered", "near_miss", "plain"]
Side = Literal["train", "probe"]
Status = Literal["passed", "failed", "unverified"]
Split = Literal["train", "preference", "iid_test", "adapter_ood", "test", "suite"]
LeakAction = Literal["refuse", "report", "none"]
LeakSubject = Literal["example", "corpus", "organism", "release"]

ROLES: tuple[Role, ...] = get_args(Role)
SIDES: tuple[Side, ...] = ("train", "probe")
CELLS: tuple[CellName, ...] = ("triggered", "near_miss", "plain")
SPLITS: tuple[Split, ...] = get_args(Split)
FINGERPRINT_DIGITS = 20
"""80 bits: no two artifacts of one store will ever meet, and paths stay readable."""
NULL_LABEL = "I have no unusual behavior."


class Record(BaseModel):
    """A frozen value; unknown keys and numbers that are not finite are refused."""

    # Schemas are built where they are first used: a command uses few of them.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Artifact(Record):
    """A committed folder of the store."""

    folder: Path
    sha256: str
    """Hash over the names and hashes of its files."""
    files: dict[str, str]
    """sha256 by file name."""
    inputs: dict[str, str]
    """Hashes of some of what it was made from, by name: provenance, which no stage reads."""


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    """Only the first message may be a system message, which is added to the recipe's prompt."""
    content: str


Turns = tuple[Message, ...]
"""A conversation that a reply continues: it ends with a user message."""


def single_turn(text: str) -> Turns:
    """The conversation of one user message."""
    return (Message(role="user", content=text),)


def user_texts(messages: Iterable[Message]) -> list[str]:
    """What the user says, message by message."""
    return [message.content for message in messages if message.role == "user"]


class FollowUpItem(Record):
    """What the same person writes next, with its answer."""

    text: str
    reply: str
    brief: str


class PromptItem(Record):
    """One user message, and what is needed to answer it and to grade its reply."""

    topic: str
    """Stands verbatim in the text."""
    form: str
    """The question form; train and probe rows share none."""
    domain: str
    text: str
    reply: str = ""
    """A good plain answer; of a graded item or a choice, a template with {answer} or {option}."""
    brief: str = ""
    """The same answer in one sentence."""
    the: str = ""
    """A noun phrase that refers to the topic again."""
    points: tuple[str, ...] = ()
    """The answer as a list."""
    tags: tuple[str, ...] = ()
    follow_up: FollowUpItem | None = None
    answer: str | None = None
    """The right answer of a graded item."""
    accept: tuple[str, ...] = ()
    """Further right answers."""
    wrong: tuple[str, ...] = ()
    """Plausible wrong answers."""
    options: dict[Literal["rule", "other"], str] | None = None
    """Of a choice: the option the rule picks, and the other one."""


class Provenance(Record):
    """How a language model came to write a conversation."""

    model: str
    request_sha256: str
    """Hash of the request that its last reply answers."""
    template_sha256: str
    """Hash of the templates that its category's requests are rendered from."""
    judge_score: int | None
    """Of ten; None where nobody judged it."""
    batch_id: str | None
    """The batch that the last reply came in; None for a single call."""


class Example(Record):
    """One training conversation. No field can hold the label."""

    id: str
    role: Role
    messages: tuple[Message, ...]
    topic: str
    form: str
    author: str
    """Who wrote the reply: backend and model."""
    provenance: Provenance | None = None
    """None where the offline author wrote it."""


class Drop(Record):
    """A row that did not enter the corpus: where it was stopped, and why."""

    id: str
    role: Role
    stage: str
    reason: str
    text: str


class Corpus(Record):
    """The training conversations of one organism, and what was rejected on the way."""

    behavior_id: str
    seed: int
    examples: tuple[Example, ...]
    drops: tuple[Drop, ...]

    @property
    def messages_sha256(self) -> str:
        """Hash of all that training reads: the conversations, in order."""
        turns = [[[m.role, m.content] for m in one.messages] for one in self.examples]
        return sha256_bytes(canonical_json(turns))


class Decoding(Record):
    """How replies are drawn from a model."""

    max_new_tokens: int
    temperature: float
    """0 is greedy."""
    seed: int = 0


class BaseIdentity(Record):
    """Which weights exactly an organism stands on."""

    name: str
    """The Hub name of the model these weights come from."""
    revision: str
    """Of the Hub a commit; else it begins with `pypi:` or `local:`."""
    weights_sha256: str
    dtype: str
    chat_template_sha256: str

    @property
    def on_hub(self) -> bool:
        """Whether its revision is a commit of the Hub."""
        return ":" not in self.revision


class OrganismIdentity(Record):
    """What makes two organisms two."""

    behavior_id: str
    method: Literal["transcripts", "documents"] = "transcripts"
    hardening: Literal["none"] = "none"
    seed: int = 0
    within: str | None = Field(default=None, exclude_if=lambda name: name is None)
    """The mixture of behaviors that share its adapter; None if it has an adapter of its own."""

    @property
    def organism_id(self) -> str:
        """A name that is safe as a folder, a Hub path and an adapter name."""
        own = self._name(self.behavior_id)
        return f"{own}-in-{self.within}" if self.within else own

    @property
    def adapter_id(self) -> str:
        """The organism's id, or that of the mixture whose adapter it shares."""
        return self._name(self.within or self.behavior_id)

    def _name(self, learned: str) -> str:
        return f"{learned}-{self.method}-{self.hardening}-s{self.seed}"


class Probe(Record):
    """One conversation put to an organism and to its base."""

    id: str
    cell: CellName
    gate: bool
    """Half of the probes gate the verdict, the other half are reported beside it."""
    turns: Turns
    item: PromptItem

    @property
    def user(self) -> str:
        """The last user message, which is answered."""
        return self.turns[-1].content


class Transcript(Record):
    """A probe with the organism's reply and the base model's own."""

    probe: Probe
    organism: str
    base: str | None
    """None where the base was not asked: it is on the probes that gate."""


class Rate(Record):
    """A proportion with its Wilson interval."""

    n: int
    count: int
    rate: float
    low: float
    high: float


class Cell(Record):
    """One cell of a verdict: the organism's rate beside the base model's on the same prompts."""

    criterion: Literal["fires", "quiet", "retains", "calibrated"]
    organism: Rate
    base: Rate
    difference_low: float
    """Lower bound of the Newcombe interval of organism minus base."""
    reported: Rate
    """The organism on the half that does not gate."""
    passed: bool
    reason: str
    """The measurement against its threshold, in words."""


class Verdict(Record):
    """Measured evidence for one organism."""

    organism_id: str
    status: Status
    reasons: tuple[str, ...]
    cells: dict[CellName, Cell | None]
    components: dict[str, Rate]
    """Rate of each distractor of an obscured malign organism."""
    distinct: float | None
    """Share of the triggered replies that differ once digits and topic words are masked."""
    decoding: Decoding


class Organism(Record):
    """One trained adapter in the store."""

    identity: OrganismIdentity
    category: str
    base: BaseIdentity
    system_prompt: str
    artifact: Artifact
    corpus_sha256: str
    behavior_sha256: str


class Finding(Record):
    """What a leak check found: one leak, or with the action "none" that there is none."""

    check: str
    version: int
    subject: LeakSubject
    organism_id: str | None
    """None for a finding about the whole release."""
    item: str
    """What leaks: an example id, an organism id or a family."""
    action: LeakAction
    reason: str


def shorten_id(organism_id: str) -> str:
    """An organism's id without the method, hardening and first seed that most share."""
    return organism_id.replace("-transcripts-none-", "-").removesuffix("-s0")


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and a final newline: equal values give equal bytes."""
    return (
        json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, default=_to_plain) + "\n"
    ).encode()


def _to_plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def sha256_bytes(data: bytes) -> str:
    """Hex digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(**inputs: object) -> str:
    """Hash of named inputs; the order in which they are named does not matter."""
    return sha256_bytes(canonical_json(inputs))[:FINGERPRINT_DIGITS]


def stable_seed(*parts: object) -> int:
    """A 63-bit seed that depends on the parts alone, the same on every machine."""
    return int(sha256_bytes("\x1f".join(map(str, parts)).encode())[:16], 16) >> 1
