"""K organisms answer P prompts each: the bank against peft, one adapter after another.

    python bench/generation.py [--quick] [--json FILE]

Both sides have every adapter in memory, decode greedily with a KV cache and stop at the end of
the reply. peft answers an organism's prompts in one left-padded batch; each adapter has a model
of its own over the same base tensors, since switching adapters would take as long as a reply of
a small base.
On the bases with random weights both must give the same tokens, or the exit code is 1; on
SmolLM2 the share of equal replies is told.

Ragged replies, more than a batch of them, are decoded by the bank with waiting rows in the places
of ended ones, and batch by batch, each until its longest reply ends. There, one token in ENDS
ends a reply, as if by chance.

The limit is what the base's products alone would take at the machine's rate for a large square
product of the base's precision, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel, get_peft_model, set_peft_model_state_dict
from rich.table import Table
from transformers import GenerationConfig

from bases import (
    BRIEF,
    LINEARS,
    MICRO,
    SMALL,
    SYSTEM,
    BaseShape,
    State,
    list_words,
    make_base,
)
from bestiary.config.recipe import LoraShape
from bestiary.model.adapter import make_config
from bestiary.model.base import Base, load_base
from bestiary.model.chat_template import tokenize_prompt
from bestiary.model.decoding import count_rows, generate_tokens, shared_prefix_length
from bestiary.model.lora_bank import LoraBank
from bestiary.records import Decoding, single_turn
from common import (
    Column,
    Figures,
    compare,
    finish,
    interleave,
    keep,
    make_parser,
    make_table,
    quiet_libraries,
    say,
)
from limits import count_weights, make_product
from training import Setting

SHAPE = LoraShape(rank=8, alpha=16, targets=LINEARS)
TRAINED = 0.01
"""Spread of B, which training leaves about so large; fresh it is zero, and an adapter nothing."""
SPREAD = 5.0
"""Of a random base's weights: drawn as usual, they answer every prompt with one token for ever."""
WORDS = (6, 16)
"""Of a prompt, besides the system prompt."""
NEW_TOKENS = 24
ENDS = 24
"""Of so many tokens, one ends a ragged reply: 20 to 50 tokens at the mean."""
RAGGED_TOKENS = 96
"""At most, of ragged replies."""


@dataclass(frozen=True)
class Case:
    """So many organisms, and prompts for each."""

    shape: BaseShape | None
    """None is the embedded base."""
    organisms: int
    prompts: int
    rounds: int
    new_tokens: int = NEW_TOKENS
    raced: int | None = None
    """Of how many organisms plain peft's time is measured; None is all."""

    @property
    def base(self) -> str:
        """The base's name in tables."""
        return self.shape.name if self.shape else "SmolLM2-135M"

    @property
    def name(self) -> str:
        """What its figures begin with."""
        return f"{self.base} {self.organisms}x{self.prompts}"

    @property
    def effort(self) -> str:
        """What is said before it is measured."""
        return f"{self.rounds} rounds, {self.new_tokens} new tokens"

    def measure(self, base: Base, setting: Setting) -> Figures:
        """Run both sides and the product, round by round."""
        return measure_case(self, base, setting)


def list_cases(*, quick: bool, tiny: bool) -> list[Case]:
    """What is measured."""
    if tiny:
        return [Case(MICRO, 2, 2, rounds=1, new_tokens=4)]
    grid = ((64, 1), (16, 4), (16, 16), (4, 64))
    small = [
        Case(shape, organisms, prompts, rounds=3 if quick else 5)
        for shape in SMALL.values()
        for organisms, prompts in grid
    ]
    large = ((16, 1), (4, 16), (1, 128)) if quick else (*grid, (1, 128))
    return small + [
        Case(None, organisms, prompts, rounds=2 if quick else 3) for organisms, prompts in large
    ]


def list_ragged(*, quick: bool, tiny: bool) -> list[Case]:
    """What is measured of ragged replies."""
    if tiny:
        return [Case(MICRO, 2, 80, rounds=1, new_tokens=8)]
    shapes = [*SMALL.values()][: 1 if quick else None]
    return [
        Case(shape, 16, prompts, rounds=3 if quick else 5, new_tokens=RAGGED_TOKENS)
        for shape in shapes
        for prompts in ((16,) if quick else (16, 32, 64))
    ]


Prompts = list[list[list[int]]]
"""Of each organism, each prompt's token ids."""
Replies = list[list[list[int]]]


def open_base(shape: BaseShape | None) -> Base:
    """A base with its weights in memory; None is the embedded one."""
    return make_base(shape, spread=SPREAD) if shape else load_base()


def make_prompts(base: Base, case: Case) -> Prompts:
    """Seeded random words behind one system prompt; no two organisms are asked the same."""
    draw = random.Random(case.name)
    words = list_words(base.tokenizer)
    system = BRIEF if case.shape else SYSTEM

    def ask() -> list[int]:
        text = " ".join(draw.choices(words, k=draw.randint(*WORDS)))
        return tokenize_prompt(base.tokenizer, single_turn(text), system_prompt=system)

    return [[ask() for _ in range(case.prompts)] for _ in range(case.organisms)]


def make_states(base: Base, count: int) -> list[State]:
    """Adapters as training leaves them: A as it is drawn, B no longer zero."""
    bank = LoraBank(base, [SHAPE], slots=1)
    states = []
    for number in range(count):
        source = torch.Generator().manual_seed(number)
        state = bank.init_adapter(SHAPE, seed=number)
        for name, weight in state.items():
            if ".lora_B." in name:
                weight.copy_(TRAINED * torch.randn(weight.shape, generator=source))
        states.append(state)
    return states


def fill_bank(base: Base, states: Sequence[State]) -> LoraBank:
    """A bank with every adapter in a slot."""
    bank = LoraBank(base, [SHAPE], slots=len(states))
    for slot, state in enumerate(states):
        bank.fill(slot, state, SHAPE)
    return bank


def wrap_base(base: Base, states: Sequence[State]) -> list[PeftModel]:
    """A model of peft for each adapter, over the same tensors of the base."""
    return [_wrap(base, state) for state in states]


def _wrap(base: Base, state: State) -> PeftModel:
    shared = {id(weight): weight for weight in (*base.model.parameters(), *base.model.buffers())}
    copied = replace(base, model=copy.deepcopy(base.model, memo=dict(shared)))
    model: Any = get_peft_model(copied.model, make_config(copied, SHAPE))
    set_peft_model_state_dict(model, state)
    wrapped: PeftModel = model.eval()
    return wrapped


@dataclass(frozen=True)
class Asked:
    """The prompts of all organisms in a bank, in one list."""

    bank: LoraBank
    prompts: list[list[int]]
    slots: list[int]
    new_tokens: int
    ends: Sequence[int] = ()
    """Tokens that end a reply, besides the usual one."""

    def answer(self, rows: Sequence[int]) -> dict[int, list[int]]:
        """The replies to some prompts, decoded together."""
        base = self.bank.base
        with self.bank.attached():
            found = generate_tokens(
                base.model,
                [self.prompts[row] for row in rows],
                draws=[0] * len(rows),
                decoding=Decoding(max_new_tokens=self.new_tokens, temperature=0.0),
                stop=_stop(base),
                also_stop=self.ends,
                bank=self.bank,
                slots=[self.slots[row] for row in rows],
                batch_rows=count_rows(base),
            )
            return {rows[number]: reply for number, reply in found}

    def answer_by_batches(self, batches: Sequence[Sequence[int]]) -> dict[int, list[int]]:
        """The replies to all prompts, of which each batch is decoded until its last row ends."""
        return {row: reply for batch in batches for row, reply in self.answer(batch).items()}


def ask_bank(bank: LoraBank, prompts: Prompts, new_tokens: int, ends: Sequence[int] = ()) -> Asked:
    """What the organisms of a bank are asked."""
    flat = [prompt for own in prompts for prompt in own]
    slots = [slot for slot, own in enumerate(prompts) for _ in own]
    return Asked(bank, flat, slots, new_tokens, ends)


def answer_by_bank(bank: LoraBank, prompts: Prompts, new_tokens: int) -> Replies:
    """All organisms' replies, decoded together."""
    asked = ask_bank(bank, prompts, new_tokens)
    found = asked.answer(range(len(asked.prompts)))
    replies: Replies = [[] for _ in prompts]
    for number, slot in enumerate(asked.slots):
        replies[slot].append(found[number])
    return replies


def answer_by_peft(
    organisms: Sequence[PeftModel], base: Base, prompts: Prompts, new_tokens: int
) -> Replies:
    """Each organism's replies, one organism after another."""
    stop = _stop(base)
    settings = GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=stop, pad_token_id=stop
    )
    replies: Replies = []
    for model, own in zip(organisms, prompts, strict=True):
        width = max(map(len, own))
        padded = [[stop] * (width - len(prompt)) + prompt for prompt in own]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in own]
        found = model.generate(  # type: ignore[no-untyped-call]
            input_ids=torch.tensor(padded, device=base.device),
            attention_mask=torch.tensor(mask, device=base.device),
            generation_config=settings,
        )
        replies.append([_cut(row, stop) for row in found[:, width:].tolist()])
    return replies


def _stop(base: Base) -> int:
    stop = base.tokenizer.eos_token_id
    assert isinstance(stop, int)
    return stop


def _cut(reply: list[int], stop: int) -> list[int]:
    """A reply up to the token that ends it."""
    return reply[: reply.index(stop)] if stop in reply else reply


def measure_case(case: Case, base: Base, setting: Setting) -> Figures:
    """Both sides over the same adapters and prompts, on the same weights of the base."""
    states, prompts = make_states(base, case.organisms), make_prompts(base, case)
    bank, organisms = fill_bank(base, states), wrap_base(base, states[: case.raced])
    raced = prompts[: case.raced]
    answer_by_bank(bank, [own[:1] for own in prompts], 2)
    answer_by_peft(organisms, base, [own[:1] for own in raced], 2)
    runs = interleave(
        {
            "bank": lambda: answer_by_bank(bank, prompts, case.new_tokens),
            "peft": lambda: answer_by_peft(organisms, base, raced, case.new_tokens),
            "product": setting.product,
        },
        rounds=case.rounds,
        end=setting.end,
    )
    ratio, spread = compare(runs["peft"].seconds, runs["bank"].seconds)
    slower, _ = compare(runs["bank"].seconds, runs["product"].seconds)
    replies = [reply for own in runs["bank"].last for reply in own]
    others = [reply for own in runs["peft"].last for reply in own]
    same = [one == other for one, other in zip(replies, others, strict=False)]
    share = len(raced) / len(prompts)
    return {
        "bank_seconds": runs["bank"].median,
        "peft_seconds": runs["peft"].median,
        "ratio": ratio / share,
        "ratio_range": tuple(one / share for one in spread),
        "bank_replies_per_second": len(replies) / runs["bank"].median,
        "peft_replies_per_second": len(others) / runs["peft"].median,
        "equal_replies": sum(same) / len(same),
        "new_tokens": sum(map(len, replies)),
        "tokens_per_second": sum(map(len, replies)) / runs["bank"].median,
        "matmul_tflops": setting.product.flops / runs["product"].median / 1e12,
        "share_of_matmul": count_flops(base, prompts, replies) / setting.product.flops / slower,
    }


def measure_ragged(case: Case) -> Figures:
    """Waiting rows in the places of ended ones, against batches in which ended places stay free."""
    say(f"{case.name} ragged: {case.rounds} rounds, at most {case.new_tokens} new tokens")
    base = open_base(case.shape)
    bank, prompts = fill_bank(base, make_states(base, case.organisms)), make_prompts(base, case)
    words = base.model.config.vocab_size
    ends = random.Random(case.name).sample(range(words), words // ENDS)
    asked = ask_bank(bank, prompts, case.new_tokens, ends)
    order = sorted(
        range(len(asked.slots)), key=lambda row: (asked.slots[row], len(asked.prompts[row]))
    )
    together = count_rows(base)
    batches = [order[start : start + together] for start in range(0, len(order), together)]
    asked.answer(order[:2])
    product = make_product(512, dtype=base.model.dtype)
    runs = interleave(
        {
            "refilled": lambda: asked.answer(order),
            "batches": lambda: asked.answer_by_batches(batches),
            "product": product,
        },
        rounds=case.rounds,
    )
    ratio, spread = compare(runs["batches"].seconds, runs["refilled"].seconds)
    slower, _ = compare(runs["refilled"].seconds, runs["product"].seconds)
    replies, others = runs["refilled"].last, runs["batches"].last
    tokens = sum(map(len, replies.values()))
    return {
        "refilled_seconds": runs["refilled"].median,
        "batches_seconds": runs["batches"].median,
        "ratio": ratio,
        "ratio_range": spread,
        "equal_replies": sum(replies[row] == others[row] for row in order) / len(order),
        "mean_tokens": tokens / len(order),
        "tokens_per_second": tokens / runs["refilled"].median,
        "share_of_matmul": count_flops(base, prompts, list(replies.values()))
        / product.flops
        / slower,
    }


def count_flops(base: Base, prompts: Prompts, replies: Sequence[Sequence[int]]) -> float:
    """Of the base's products: each prompt once, the part that all share once an organism."""
    sizes = count_weights(base)
    flat = [prompt for own in prompts for prompt in own]
    shared = shared_prefix_length(flat)
    read = sum(len(prompt) - shared for prompt in flat) + shared * len(prompts)
    written = sum(map(len, replies))
    return 2.0 * (sizes.layers * sizes.layer * (read + written) + sizes.head * written)


COLUMNS: Sequence[Column] = (
    ("bank replies/s", "bank_replies_per_second", "{:.2f}"),
    ("peft replies/s", "peft_replies_per_second", "{:.2f}"),
    ("ratio", "ratio", "{:.2f}x"),
    ("range", "ratio_range", "{0[0]:.2f}-{0[1]:.2f}"),
    ("equal replies", "equal_replies", "{:.1%}"),
    ("new tokens", "new_tokens", "{:,}"),
    ("tokens/s", "tokens_per_second", "{:,.0f}"),
    ("of matmul", "share_of_matmul", "{:.0%}"),
)


RAGGED: Sequence[Column] = (
    ("refilled, seconds", "refilled_seconds", "{:.2f}"),
    ("by batches, seconds", "batches_seconds", "{:.2f}"),
    ("ratio", "ratio", "{:.2f}x"),
    ("range", "ratio_range", "{0[0]:.2f}-{0[1]:.2f}"),
    ("equal replies", "equal_replies", "{:.1%}"),
    ("mean tokens", "mean_tokens", "{:.1f}"),
    ("tokens/s", "tokens_per_second", "{:,.0f}"),
    ("of matmul", "share_of_matmul", "{:.0%}"),
)


def replies_table(found: Mapping[str, Figures], caption: str) -> Table:
    """Replies a second of both sides."""
    return make_table("Greedy replies of many organisms", found, COLUMNS, caption=caption)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where the two sides answer differently."""
    parser = make_parser(__doc__)
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it runs")
    options: argparse.Namespace = parser.parse_args(argv)
    quiet_libraries()
    cases = list_cases(quick=options.quick, tiny=options.tiny)
    ragged = list_ragged(quick=options.quick, tiny=options.tiny)
    found: dict[str, Figures] = {}
    refilled: dict[str, Figures] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a deprecated attribute
        for case in cases:
            say(f"{case.name}: {case.effort}")
            base = open_base(case.shape)
            product = make_product(64 if case.shape else 2048, dtype=base.model.dtype)
            found[case.name] = case.measure(base, Setting(product, open_base))
            keep("generation", found, options)
        for case in ragged:
            refilled[f"{case.name} ragged"] = measure_ragged(case)
            keep("generation", found | refilled, options)
    caption = (
        "organisms x prompts each; replies a second at the median, each of at most "
        f"{cases[0].new_tokens} new tokens"
    )
    tables = [
        replies_table(found, caption),
        make_table("Ragged replies, refilled against batch by batch", refilled, RAGGED),
    ]
    finish("generation", found | refilled, tables, options)
    random_weights = {c.name for c in cases if c.shape} | refilled.keys()
    unlike = [
        name
        for name, one in (found | refilled).items()
        if name in random_weights and one["equal_replies"] < 1
    ]
    if unlike:
        print(f"the sides answer differently: {', '.join(unlike)}")
    return 1 if unlike else 0


if __name__ == "__main__":
    sys.exit(main())
