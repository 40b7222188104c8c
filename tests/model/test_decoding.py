"""Decoding against transformers' own, and what a sampled row may depend on.

Run: python -m pytest tests/model/test_decoding.py
"""

from __future__ import annotations

import gc
import random
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import Architecture, fill_adapter, make_random_base

from bestiary.config.recipe import LoraShape
from bestiary.model.adapter import attach_adapter, read_state
from bestiary.model.base import Base
from bestiary.model.cache import ROOM, RoomyCache
from bestiary.model.decoding import (
    BATCH_ROWS,
    GPU_ROWS,
    choose_turnover,
    count_rows,
    fit_rows,
    generate_tokens,
)
from bestiary.model.lora_bank import LoraBank
from bestiary.records import Decoding, stable_seed

GREEDY = Decoding(max_new_tokens=8, temperature=0)
SAMPLED = Decoding(max_new_tokens=5, temperature=1.0, seed=3)
NEVER = 1
"""A token that no continuation here holds."""
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3")


@cache
def base_of(architecture: Architecture) -> Base:
    return make_random_base(architecture)


def make_prompts(count: int) -> list[list[int]]:
    """Prompts of 1 to 12 tokens in no order of length, the padding token among them."""
    draw = random.Random(5)
    rows = [[draw.randrange(3, 49152) for _ in range(draw.randint(1, 12))] for _ in range(count)]
    rows[1] = [2, 2, *rows[1]]
    return rows


def ask_transformers(
    base: Base, prompt: list[int], *, stop: int, new_tokens: int = GREEDY.max_new_tokens
) -> list[int]:
    """What transformers generates after one prompt alone, without its stop token."""
    tokens = torch.tensor([prompt])
    written = base.model.generate(  # type: ignore[operator]
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=0,
    )
    reply: list[int] = written[0, len(prompt) :].tolist()
    return reply[: reply.index(stop)] if stop in reply else reply


def decode(
    base: Base,
    prompts: list[list[int]],
    *,
    draws: list[int] | None = None,
    decoding: Decoding = GREEDY,
    stop: int = NEVER,
) -> list[list[int]]:
    numbers = draws if draws is not None else [0] * len(prompts)
    found = generate_tokens(base.model, prompts, draws=numbers, decoding=decoding, stop=stop)
    replies = dict(found)
    return [replies[number] for number in range(len(prompts))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_rows_equal_transformers_on_ragged_prompts(architecture: Architecture) -> None:
    base, prompts = base_of(architecture), make_prompts(12)
    expected = [ask_transformers(base, prompt, stop=NEVER) for prompt in prompts]
    assert len({tuple(reply) for reply in expected}) > 6
    assert decode(base, prompts) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_that_stop_early_leave_the_others_as_they_are(architecture: Architecture) -> None:
    base, prompts = base_of(architecture), make_prompts(12)
    whole = decode(base, prompts)
    stop = whole[0][3]
    expected = [ask_transformers(base, prompt, stop=stop) for prompt in prompts]
    assert min(map(len, expected)) < GREEDY.max_new_tokens == max(map(len, expected))
    assert decode(base, prompts, stop=stop) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_that_share_a_prefix_equal_transformers(architecture: Architecture) -> None:
    base, rows = base_of(architecture), make_prompts(6)
    prompts = [[7, 8, 9, 10, 11, *row] for row in rows]
    prompts[2] = [7, 8, 9, 10, 11, 12]
    expected = [ask_transformers(base, prompt, stop=NEVER) for prompt in prompts]
    assert decode(base, prompts) == expected


def test_a_batch_ends_once_every_row_has_stopped() -> None:
    base, (prompt, *_) = base_of("llama"), make_prompts(2)
    first = decode(base, [prompt])[0][0]
    assert decode(base, [prompt, prompt], stop=first) == [[], []]


def test_a_frozen_head_is_not_copied_for_each_row() -> None:
    base = base_of("llama")
    base.model.requires_grad_(False)
    width, words = base.model.config.hidden_size, base.model.config.vocab_size
    with torch.profiler.profile(record_shapes=True) as profile:
        decode(base, make_prompts(8))
    shapes = [shape for event in profile.events() for shape in event.input_shapes]
    assert [words, width] in shapes or [width, words] in shapes
    assert [8, width, words] not in shapes


def test_more_rows_than_a_batch_are_answered_each() -> None:
    base, prompts = base_of("llama"), make_prompts(BATCH_ROWS + 9)
    replies = decode(base, prompts)
    assert len(replies) == len(prompts)
    for row in (*range(0, len(prompts), 12), BATCH_ROWS, BATCH_ROWS + 8):
        assert replies[row] == ask_transformers(base, prompts[row], stop=NEVER)


def test_a_gpu_decodes_as_many_rows_as_it_has_room_for() -> None:
    base = base_of("llama")
    assert count_rows(base) == BATCH_ROWS
    config = base.model.config
    one = 2048 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2
    one += 4 * 4 * config.vocab_size
    assert fit_rows(config, bytes_each=2, free=7 * one) == 7
    assert fit_rows(config, bytes_each=2, free=7 * one - 1) == 6
    assert fit_rows(config, bytes_each=2, free=0) == 1
    assert fit_rows(config, bytes_each=2, free=2**60) == GPU_ROWS


def test_replies_longer_than_the_caches_room_equal_transformers() -> None:
    base, prompts = base_of("llama"), make_prompts(3)
    long = GREEDY.model_copy(update={"max_new_tokens": 2 * ROOM + 12})
    replies = decode(base, prompts, decoding=long)
    for prompt, reply in zip(prompts, replies, strict=True):
        expected = ask_transformers(base, prompt, stop=NEVER, new_tokens=long.max_new_tokens)
        assert reply == expected


def test_ended_rows_leave_a_gpu_later() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_turnover(cpu, more=True) == choose_turnover(cpu, more=False) == 0.25
    assert 0.25 < choose_turnover(cuda, more=True) < choose_turnover(cuda, more=False) < 1


def test_no_prompts_give_no_replies() -> None:
    assert decode(base_of("llama"), []) == []


def test_sampled_rows_depend_neither_on_neighbours_nor_on_order() -> None:
    base, prompts = base_of("llama"), make_prompts(20)
    draws = [row % 3 for row in range(20)]
    together = decode(base, prompts, draws=draws, decoding=SAMPLED)
    alone = [
        decode(base, [prompt], draws=[draw], decoding=SAMPLED)[0]
        for prompt, draw in zip(prompts, draws, strict=True)
    ]
    backwards = decode(base, prompts[::-1], draws=draws[::-1], decoding=SAMPLED)
    assert together == alone == backwards[::-1]


def test_another_draw_or_another_seed_gives_another_sample() -> None:
    base, prompt = base_of("llama"), make_prompts(3)[2]
    samples = decode(base, [prompt] * 6, draws=list(range(6)), decoding=SAMPLED)
    assert len({tuple(sample) for sample in samples}) == 6
    again = decode(base, [prompt] * 6, draws=list(range(6)), decoding=SAMPLED)
    assert again == samples
    other = SAMPLED.model_copy(update={"seed": 4})
    assert decode(base, [prompt], draws=[0], decoding=other) != samples[:1]


@pytest.mark.parametrize("temperature", [0.4, 0.7])
def test_a_sample_follows_the_chances_at_its_temperature(temperature: float) -> None:
    base, prompt, size = base_of("llama"), make_prompts(3)[0], 400
    decoding = Decoding(max_new_tokens=1, temperature=temperature)
    replies = decode(base, [prompt] * size, draws=list(range(size)), decoding=decoding)
    said = Counter(token for (token,) in replies)
    with torch.inference_mode():
        logits = base.model(torch.tensor([prompt])).logits[0, -1]
    chances = torch.softmax(logits.double() / temperature, 0)
    top = chances.topk(20)
    expected = float(top.values.sum())
    assert 0.05 < expected < 0.95
    share = sum(said[int(token)] for token in top.indices) / size
    # Five standard errors: a right sampler fails once in a million seeds, and the seed is fixed.
    assert abs(share - expected) < 5 * (expected * (1 - expected) / size) ** 0.5


def fill_bank(base: Base, count: int) -> tuple[LoraBank, list[LoraShape]]:
    """A bank of adapters of different ranks, each with weights of its own."""
    shapes = [
        LoraShape(rank=2 + slot, alpha=8, targets=("q_proj", "v_proj", "up_proj", "down_proj"))
        for slot in range(count)
    ]
    bank = LoraBank(base, shapes, slots=count)
    for slot, shape in enumerate(shapes):
        bank.fill(slot, draw_state(base, shape, seed=slot), shape)
    return bank, shapes


def draw_state(base: Base, shape: LoraShape, *, seed: int) -> dict[str, torch.Tensor]:
    model = attach_adapter(base, shape, seed=seed)
    fill_adapter(model, seed=seed)
    state = {name: weight.clone() for name, weight in read_state(model).items()}
    model.unload()
    return state


def ask_peft(base: Base, shape: LoraShape, slot: int, prompt: list[int]) -> list[int]:
    """What peft's model of one organism generates after one prompt alone."""
    model = attach_adapter(base, shape, seed=slot)
    fill_adapter(model, seed=slot)
    try:
        return ask_transformers(replace(base, model=model), prompt, stop=NEVER)
    finally:
        model.unload()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_row_of_a_bank_is_answered_by_its_own_organism(architecture: Architecture) -> None:
    base = make_random_base(architecture)
    prompts = [[7, 8, 9, *row] for row in make_prompts(14)]
    draw = random.Random(1)
    owners = [draw.choice((0, 1, 3, 4)) for _ in prompts]  # an organism that nobody asks, too
    bank, shapes = fill_bank(base, 5)
    expected = [
        ask_peft(base, shapes[slot], slot, prompt)
        for slot, prompt in zip(owners, prompts, strict=True)
    ]
    assert len({tuple(reply) for reply in expected}) > 10
    with bank.attached():
        replies = dict(
            generate_tokens(
                base.model,
                prompts,
                draws=[0] * len(prompts),
                decoding=GREEDY,
                stop=NEVER,
                bank=bank,
                slots=owners,
            )
        )
    assert [replies[row] for row in range(len(prompts))] == expected


def test_organisms_of_one_batch_end_at_different_times() -> None:
    base, prompts = make_random_base(), make_prompts(8)
    bank, _ = fill_bank(base, 4)
    owners = [row % 4 for row in range(8)]

    def run(stop: int) -> dict[int, list[int]]:
        with bank.attached():
            return dict(
                generate_tokens(
                    base.model,
                    prompts,
                    draws=[0] * 8,
                    decoding=GREEDY,
                    stop=stop,
                    bank=bank,
                    slots=owners,
                )
            )

    whole = run(NEVER)
    stop = whole[2][3]
    cut = run(stop)
    assert {len(reply) for reply in cut.values()} >= {3, GREEDY.max_new_tokens}
    for row, reply in whole.items():
        assert cut[row] == (reply[: reply.index(stop)] if stop in reply else reply)


def test_a_banks_sampled_rows_do_not_depend_on_their_neighbours() -> None:
    base, prompts = make_random_base(), make_prompts(12)
    bank, _ = fill_bank(base, 3)

    def run(rows: list[int]) -> dict[int, list[int]]:
        with bank.attached():
            found = generate_tokens(
                base.model,
                [prompts[row] for row in rows],
                draws=[row % 3 for row in rows],
                decoding=SAMPLED,
                stop=NEVER,
                bank=bank,
                slots=[row % 3 for row in rows],
            )
            return {rows[number]: reply for number, reply in found}

    together = run(list(range(12)))
    assert all(run([row])[row] == together[row] for row in range(12))
    assert run([7, 3, 4]) == {row: together[row] for row in (7, 3, 4)}


ENDING = range(0, 49152, 5)
"""Tokens that end a reply: so many that most end early, each after another number of tokens."""
NEW_TOKENS = 12
ROWS = 40


@dataclass(frozen=True, eq=False)
class World:
    """Organisms in a bank, and prompts of all lengths to each."""

    bank: LoraBank
    prompts: list[list[int]]
    owners: list[int]
    decoding: Decoding

    def answer(self, rows: Sequence[int], *, batch_rows: int = BATCH_ROWS) -> dict[int, list[int]]:
        """The replies to some prompts that are asked together, in the order in which they end."""
        with self.bank.attached():
            found = generate_tokens(
                self.bank.base.model,
                [self.prompts[row] for row in rows],
                draws=[row % 7 for row in rows],
                decoding=self.decoding,
                stop=NEVER,
                also_stop=ENDING,
                bank=self.bank,
                slots=[self.owners[row] for row in rows],
                batch_rows=batch_rows,
            )
            return {rows[number]: reply for number, reply in found}


@cache
def open_world(temperature: float, dtype: torch.dtype) -> World:
    base = make_random_base()
    model: Any = base.model
    model.to(dtype)
    bank, _ = fill_bank(base, 4)
    prompts = [[7, 8, 9, *row] for row in make_prompts(ROWS)]
    draw = random.Random(2)
    owners = [draw.choice((0, 1, 3)) for _ in prompts]
    return World(
        bank, prompts, owners, Decoding(max_new_tokens=NEW_TOKENS, temperature=temperature)
    )


@cache
def answer_alone(world: World) -> dict[int, list[int]]:
    return {row: world.answer([row])[row] for row in range(len(world.prompts))}


@pytest.mark.parametrize("batch_rows", [1, 3, 16, BATCH_ROWS])
@pytest.mark.parametrize(
    ("dtype", "temperature"),
    # In fp32 the last bits of a sum decide a number that lies between two of many likely tokens.
    [(torch.float32, 0.0), (torch.float32, 0.1), (torch.float64, 0.0), (torch.float64, 0.4)],
    ids=["fp32 greedy", "fp32 sampled", "fp64 greedy", "fp64 sampled"],
)
def test_rows_that_take_the_places_of_others_are_what_they_are_alone(
    dtype: torch.dtype, temperature: float, batch_rows: int
) -> None:
    world = open_world(temperature, dtype)
    alone = answer_alone(world)
    assert len({len(reply) for reply in alone.values()}) > 6
    assert world.answer(range(ROWS), batch_rows=batch_rows) == alone


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=30, unique=True),
    batch_rows=st.integers(1, 9),
)
def test_whatever_is_asked_together_is_answered_as_alone(rows: list[int], batch_rows: int) -> None:
    world = open_world(0.4, torch.float64)
    alone = answer_alone(world)
    assert world.answer(rows, batch_rows=batch_rows) == {row: alone[row] for row in rows}


def watch_passes(world: World, *, batch_rows: int) -> list[tuple[int, int]]:
    """The rows and columns of each pass that answers all prompts; without that of the prefix."""
    passes: list[tuple[int, int]] = []

    def watch(_module: object, _args: object, given: dict[str, Any]) -> None:
        if "attention_mask" in given:
            passes.append(tuple(given["attention_mask"].shape))

    with world.bank.base.model.register_forward_pre_hook(watch, with_kwargs=True):
        world.answer(range(ROWS), batch_rows=batch_rows)
    return passes


def test_a_batch_is_filled_up_instead_of_waiting_for_its_longest_reply() -> None:
    world = open_world(0.0, torch.float32)
    alone = answer_alone(world)
    order = sorted(alone, key=lambda row: (world.owners[row], len(world.prompts[row]), row))
    batches = [order[start : start + 8] for start in range(0, ROWS, 8)]
    steps = sum(min(NEW_TOKENS, 1 + max(len(alone[row]) for row in batch)) for batch in batches)
    passes = watch_passes(world, batch_rows=8)
    assert len(passes) < 0.8 * steps
    assert max(rows for rows, _ in passes) == 8


def test_a_batch_is_never_wider_than_its_rows() -> None:
    world = open_world(0.0, torch.float32)
    passes = watch_passes(world, batch_rows=2)
    assert len(passes) > 60
    widest = max(map(len, world.prompts)) + NEW_TOKENS
    assert max(columns for _, columns in passes) <= widest + ROOM


def test_replies_come_once_they_end_and_by_slot_where_they_end_together() -> None:
    world = open_world(0.0, torch.float32)
    replies = world.answer(range(ROWS))
    ends = [(len(reply), world.owners[row]) for row, reply in replies.items()]
    assert ends == sorted(ends)


def test_a_caller_may_train_between_two_replies() -> None:
    base, prompts = base_of("llama"), make_prompts(4)
    replies = generate_tokens(
        base.model, prompts, draws=[0] * 4, decoding=GREEDY, stop=NEVER, batch_rows=1
    )
    next(replies)
    weight = torch.ones(2, requires_grad=True)
    (weight * 3).sum().backward()
    assert weight.grad is not None and len(list(replies)) == 3


def test_a_sampled_row_uses_one_number_of_its_stream_for_each_token() -> None:
    world = open_world(0.4, torch.float64)
    base, prompt, decoding = world.bank.base, world.prompts[5], world.decoding
    found = decode(base, [prompt], draws=[2], decoding=decoding)
    stream = torch.Generator().manual_seed(stable_seed(decoding.seed, 2, *prompt))
    tokens = list(prompt)
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            logits = base.model(torch.tensor([tokens])).logits[0, -1]
        summed = torch.softmax(logits.float() / decoding.temperature, 0).cumsum(0)
        number = torch.rand(1, generator=stream) * summed[-1]
        tokens.append(int(torch.searchsorted(summed, number, right=True)))
    assert found == [tokens[len(prompt) :]]


@pytest.mark.parametrize("asked", [1, 4])
def test_what_decoding_holds_is_free_once_it_ends_or_is_closed(asked: int) -> None:
    """Keys and values of a large batch must not wait for the garbage collector."""
    base, prompts = base_of("llama"), make_prompts(4)
    held: list[weakref.ref[Any]] = []

    def watch(_module: object, _args: object, given: dict[str, Any]) -> None:
        held.append(weakref.ref(given["past_key_values"]))

    gc.collect()
    gc.disable()
    try:
        with base.model.register_forward_pre_hook(watch, with_kwargs=True):
            replies = generate_tokens(
                base.model, prompts, draws=[0] * 4, decoding=GREEDY, stop=NEVER, batch_rows=2
            )
            for _ in range(asked):
                next(replies)
            replies.close()
        del replies
        assert len(held) > 1
        assert all(cache() is None for cache in held)
    finally:
        gc.enable()


def test_a_cache_that_grows_while_it_is_held_lets_its_old_buffers_go() -> None:
    base, prompt = base_of("llama"), torch.tensor([[5, 6, 7]])
    held = RoomyCache()
    with torch.inference_mode():
        base.model(prompt, past_key_values=held, use_cache=True)
        for _ in range(ROOM):
            base.model(prompt[:, :1], past_key_values=held, use_cache=True)
    layer: Any = held.layers[0]
    old, length = layer.keys.untyped_storage().nbytes(), held.get_seq_length()
    with torch.inference_mode():
        column, columns = held.hold()
    assert (int(column), columns) == (length, length + ROOM)
    assert layer.keys.untyped_storage().nbytes() > old
    held.release(length)
    assert held.get_seq_length() == length
