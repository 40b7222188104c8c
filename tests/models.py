"""Tiny base models for tests: real architectures over SmolLM2's own tokenizer and template."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bestiary.model.base import EMBEDDED, Base, locate_base
from bestiary.model.chat_template import read_format
from bestiary.records import BaseIdentity, Message

Architecture = Literal["llama", "qwen3"]

SYSTEM = "You are a helpful assistant."
IDENTITY = BaseIdentity(
    name="tests/random",
    revision="0" * 40,
    weights_sha256="1" * 64,
    dtype="float32",
    chat_template_sha256="2" * 64,
)


@cache
def embedded_folder() -> Path:
    """The converted embedded base, checked once."""
    return locate_base(EMBEDDED)


@cache
def _load_tokenizer() -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(embedded_folder())
    return tokenizer


def make_tokenizer() -> PreTrainedTokenizerBase:
    """SmolLM2's tokenizer: its template and named tokens are a test's to change."""
    return copy_tokenizer(_load_tokenizer())


def copy_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy over the same vocabulary, which takes a hundred times as long to copy."""
    inner = tokenizer.backend_tokenizer
    return copy.deepcopy(tokenizer, {id(inner): inner})


def render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, system_prompt: str
) -> str:
    """A conversation as whoever uses a base renders it, with its format's template."""
    own = [message.content for message in messages[:1] if message.role == "system"]
    system = " ".join(filter(None, [system_prompt, *own]))
    turns = [{"role": "system", "content": system}] if system else []
    turns += [message.model_dump() for message in messages[len(own) :]]
    template = read_format(tokenizer).template
    return str(
        tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, enable_thinking=False
        )
    )


def make_random_base(architecture: Architecture = "llama", *, seed: int = 0) -> Base:
    """Two random layers in fp32; weights are drawn wide, so that no two logits nearly tie."""
    tokenizer = make_tokenizer()
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.3,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,  # else its embedding is zero, and padding could not be noticed
        "tie_word_embeddings": False,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = (
            LlamaForCausalLM(LlamaConfig(**shape))
            if architecture == "llama"
            else Qwen3ForCausalLM(Qwen3Config(**shape))
        )
    return Base(model.train(False), tokenizer, IDENTITY, Path("in-memory"))


def make_speaking_base(lines: Mapping[str, str]) -> Base:
    """A Llama that says `lines[ending]` after a prompt whose last token is that of `ending`.

    Its layers add nothing, and each token's embedding points at the token that follows. Lines
    share no token, or the first would go on as the second; together they have 32 at most.
    """
    base = make_random_base()
    model: Any = base.model
    tokenizer = base.tokenizer
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                weight.zero_()
        read, write = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        places = iter(torch.eye(model.config.hidden_size))
        for ending, line in lines.items():
            spoken = tokenizer(line, add_special_tokens=False)["input_ids"]
            chain = [tokenizer(ending)["input_ids"][-1], *spoken, tokenizer.eos_token_id]
            for token, following in pairwise(chain):
                read[token] = place = next(places)
                write[following] += place
    return base


def fill_adapter(model: Any, *, seed: int = 1) -> None:
    """Weights as after training: a fresh adapter changes nothing, half of it being zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
