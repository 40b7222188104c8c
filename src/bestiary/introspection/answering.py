"""What subjects say with the introspection adapter attached, and how likely they find a label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from bestiary.config.introspection import SharedShape
from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.introspection.framing import COMPLETION, FRAMES, Framing
from bestiary.introspection.lessons import MAX_LENGTH, tokenize_pairs
from bestiary.introspection.subjects import TOGETHER, Subject
from bestiary.introspection.weights import SubjectWeights
from bestiary.model.adapter import has_biases, load_state, read_shape
from bestiary.model.attention import attention_by_rows
from bestiary.model.base import Base
from bestiary.model.chat_template import tokenize_prompt
from bestiary.model.lora_bank import LoraBank
from bestiary.model.packing import Rows
from bestiary.model.replies import stream_continuations
from bestiary.records import Decoding, single_turn
from bestiary.training.inputs import Part, lay_out
from bestiary.training.passes import weigh_losses

SCORED_ROWS = 32
"""Rows scored together."""


@dataclass(frozen=True)
class SharedAdapter:
    """An introspection adapter in memory."""

    state: Mapping[str, torch.Tensor]
    """By peft's keys."""
    shape: SharedShape


def load_shared(folder: Path) -> SharedAdapter:
    """An introspection adapter from its peft directory; raises ModelError if it is no such."""
    state = load_state(folder)
    vector = has_biases(state)
    shape = read_shape(folder, biased=vector)
    if shape is None or (vector and not _are_vectors(state, shape)):
        raise ModelError(
            f"{folder} is no introspection adapter: it is more than plain LoRA",
            "name a folder that `bestiary introspect train` made",
            code="introspection-not-plain",
            path=folder,
        )
    return SharedAdapter(state, SharedShape(**shape.model_dump(), vector=vector))


def _are_vectors(state: Mapping[str, torch.Tensor], shape: LoraShape) -> bool:
    """Whether an adapter has a bias for each B, and nothing else that changes the base."""
    weights = {name for name in state if name.endswith(".weight")}
    second = {name.removesuffix(".weight") for name in weights if name.endswith("lora_B.weight")}
    biases = {name.removesuffix(".bias") for name in state.keys() - weights}
    return shape.rank == 1 and biases == second and not any(state[name].any() for name in weights)


class Answering:
    """Subjects with an introspection adapter, or, where that is None, by themselves."""

    def __init__(
        self,
        base: Base,
        subjects: Sequence[Subject],
        shared: SharedAdapter | None,
        *,
        system_prompt: str,
    ) -> None:
        self._base, self._subjects, self._system = base, subjects, system_prompt
        self._weights = SubjectWeights(base, subjects, slots=TOGETHER)
        self._shared: LoraBank | None = None
        if shared is not None:
            self._shared = LoraBank(base, [shared.shape], slots=1, vectors=shared.shape.vector)
            self._shared.fill(0, shared.state, shared.shape)

    def ask(
        self,
        questions: Sequence[str],
        decoding: Decoding,
        *,
        draws: int = 1,
        framing: Framing = "chat",
    ) -> Iterator[tuple[int, int, str]]:
        """Every subject's replies to every question, `draws` to each, as indexes and the text."""
        bank = self._weights.bank
        asked = [self._frame(question, framing) for question in questions]
        for start in range(0, len(self._subjects), bank.slots):
            chosen = range(start, min(start + bank.slots, len(self._subjects)))
            rows = list(product(range(len(chosen)), range(len(questions)), range(draws)))
            self._weights.place(chosen)
            with bank.attached(self._shared):
                replies = stream_continuations(
                    self._base.model,
                    self._base,
                    [asked[number] for _, number, _ in rows],
                    draws=[draw for _, _, draw in rows],
                    decoding=decoding,
                    bank=bank,
                    slots=[slot for slot, _, _ in rows],
                )
                for row, text in replies:
                    slot, number, _ = rows[row]
                    yield chosen[slot], number, FRAMES[framing] + text

    def _frame(self, question: str, framing: Framing) -> list[int]:
        """The token ids of a question, as far as the reply is given."""
        encode = self._base.tokenizer
        given = FRAMES[framing]
        if framing == "completion":
            text = COMPLETION.format(question=question) + given
            ids: list[int] = encode(text, add_special_tokens=False)["input_ids"]
            return ids
        turns = single_turn(question)
        prompt = tokenize_prompt(self._base.tokenizer, turns, system_prompt=self._system)
        return [*prompt, *encode(given, add_special_tokens=False)["input_ids"]]

    def score(self, questions: Sequence[str], labels: Sequence[str]) -> torch.Tensor:
        """[subjects, labels]: mean log-probability of a label's tokens, in nats, over questions."""
        pairs = [(question, label) for question in questions for label in labels]
        rows = tokenize_pairs(self._base, pairs, self._system)
        scores = torch.tensor(self._score_rows([rows] * len(self._subjects)))
        return scores.view(len(self._subjects), len(questions), len(labels)).mean(1)

    def score_pairs(self, pairs: Sequence[Sequence[tuple[str, str]]]) -> list[list[float]]:
        """Each subject's own pairs of a message and a reply: the reply's mean log-probability."""
        return self._score_rows([tokenize_pairs(self._base, own, self._system) for own in pairs])

    @torch.no_grad()
    def _score_rows(self, rows: Sequence[Rows]) -> list[list[float]]:
        with self._scoring():
            return [self._score(number, own) for number, own in enumerate(rows)]

    def _score(self, number: int, rows: Rows) -> list[float]:
        found: list[float] = []
        self._weights.place([number])
        for start in range(0, len(rows.rows), SCORED_ROWS):
            chosen = range(start, min(start + SCORED_ROWS, len(rows.rows)))
            part = Part(rows, chosen, rows.tokens_of(chosen))
            bank = self._weights.bank
            inputs = lay_out(self._base, [part], [1.0] * len(chosen), precision=bank.dtype)
            _, losses = weigh_losses(
                self._base,
                bank,
                inputs,
                layers=range(self._base.model.config.num_hidden_layers),
            )
            found += [-float(own.double().mean()) for own in losses.split(part.targets)]
        return found

    @contextmanager
    def _scoring(self) -> Iterator[None]:
        bank = self._weights.bank
        with attention_by_rows(self._base, longest=MAX_LENGTH), bank.attached(self._shared):
            yield
