"""Tokenizers with the chat templates of other families, over SmolLM2's own vocabulary."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.models import copy_tokenizer, make_tokenizer
from transformers import PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Family:
    """A chat template, the control tokens it needs, and what is to be found out about it."""

    model: str
    """Whose template it is; in the longer ones, what concerns tools is left out."""
    special: tuple[str, ...]
    eos: str
    end: str
    """The token that ends a turn."""
    bos: str = ""
    lead: str = ""
    """What the template puts between a prompt and its reply."""
    gap: str = ""
    """What it puts between a reply and its end token."""
    folds: bool = False
    """Whether the system prompt must be put into the first user message."""


HEADERS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PHI = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
INST = ("<s>", "</s>", "[INST]", "[/INST]")
FAMILIES = {
    "llama-2": Family(
        "meta-llama/Llama-2-7b-chat-hf", ("<s>", "</s>"), "</s>", "</s>", "<s>", " ", " "
    ),
    "llama-3": Family(
        "meta-llama/Meta-Llama-3-8B-Instruct", HEADERS, "<|eot_id|>", "<|eot_id|>", HEADERS[0]
    ),
    "llama-3.2": Family(
        "meta-llama/Llama-3.2-1B-Instruct", HEADERS, "<|eot_id|>", "<|eot_id|>", HEADERS[0]
    ),
    "qwen3": Family("Qwen/Qwen3-0.6B", ("<|im_end|>",), "<|im_end|>", "<|im_end|>"),
    "phi-3-2024-04": Family(
        "microsoft/Phi-3-mini-4k-instruct of 2024-04", PHI, "<|endoftext|>", "<|end|>", folds=True
    ),
    "phi-3.5": Family("microsoft/Phi-3.5-mini-instruct", PHI, "<|endoftext|>", "<|end|>"),
    "gemma-2": Family("google/gemma-2-2b-it", GEMMA, "<eos>", "<end_of_turn>", "<bos>", folds=True),
    "gemma-3": Family("google/gemma-3-1b-it", GEMMA, "<eos>", "<end_of_turn>", "<bos>"),
    "mistral-0.1": Family(
        "mistralai/Mistral-7B-Instruct-v0.1", ("<s>", "</s>"), "</s>", "</s>", "<s>", " "
    ),
    "mistral-0.2": Family(
        "mistralai/Mistral-7B-Instruct-v0.2 of 2024-03", ("<s>", "</s>"), "</s>", "</s>", "<s>",
        folds=True,
    ),
    # It shows the system prompt while a reply is asked for, and no longer once there is one.
    "mistral-0.3": Family(
        "mistralai/Mistral-7B-Instruct-v0.3", INST, "</s>", "</s>", "<s>", " ", folds=True
    ),
    "mistral-small-3": Family(
        "mistralai/Mistral-Small-24B-Instruct-2501", INST, "</s>", "</s>", "<s>"
    ),
}  # fmt: skip


def make_family(name: str, *, template: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer of a family; `template` instead of its own, for variations."""
    tokenizer = copy_tokenizer(_add_family(name))
    tokenizer.chat_template = template or read_template(name)
    return tokenizer


@cache
def _add_family(name: str) -> PreTrainedTokenizerBase:
    """SmolLM2's vocabulary with the control tokens of a family."""
    family, tokenizer = FAMILIES[name], copy.deepcopy(make_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.special)})
    tokenizer.eos_token = family.eos
    tokenizer.bos_token = family.bos or tokenizer.bos_token
    return tokenizer


def read_template(name: str) -> str:
    """A family's template."""
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf8")
