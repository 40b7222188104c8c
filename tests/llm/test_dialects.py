"""Servers that want other parameters: the fields of an entry, and the probe that finds them.

Run: python -m pytest tests/llm/test_dialects.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests.conftest import Bestiary
from tests.expect import expect_error
from tests.fakes.models import KEY, Asked, Body, Fault, ModelServer
from tests.llm.calls import EACH_PROVIDER, KEY_VARIABLE, MODEL, make_model, run

from bestiary.errors import BackendError
from bestiary.llm.client import open_provider
from bestiary.llm.models import LanguageModel
from bestiary.llm.probe import check_model, show_entry
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.provider import InvalidRequest
from bestiary.llm.request import Answer
from bestiary.records import Message

NEW_NAME = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
OLD_NAME = "Unrecognized request argument supplied: max_completion_tokens"
NO_SYSTEM = "System role not supported"
NO_DEVELOPER = "Unexpected message role: developer"
NO_SCHEMA = "response_format json_schema is not supported"
NO_TEMPERATURE = "Unsupported value: 'temperature' does not support 0.7 with this model."


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


def ask(model: LanguageModel) -> Answer:
    request = PromptedModel(MODEL, model).ask(
        "Be brief.", Message(role="user", content="How?"), max_tokens=64
    )

    async def work() -> Answer:
        provider = open_provider(MODEL, model)
        try:
            return await provider.ask(request)
        finally:
            await provider.close()

    return run(work)


def refuse(**words: str) -> Callable[[Body], str]:
    """Refuse requests that have some parameter, or a role in their messages."""

    def read(body: Body) -> str:
        roles = {turn["role"] for turn in body["messages"]}
        return next((said for name, said in words.items() if name in {*body, *roles}), "")

    return read


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_is_sent_under_the_name_of_the_entry(
    name: Any, server: ModelServer, url: str
) -> None:
    ask(make_model("openai", url, token_limit=name))
    (body,) = server.bodies
    assert {key for key in body if key.startswith("max")} == {name}


@pytest.mark.parametrize(
    ("role", "turns"),
    [
        ("system", [("system", "Be brief."), ("user", "How?")]),
        ("developer", [("developer", "Be brief."), ("user", "How?")]),
        ("none", [("user", "Be brief.\n\nHow?")]),
    ],
)
def test_a_system_prompt_has_the_role_of_the_entry(
    role: Any, turns: list[tuple[str, str]], server: ModelServer, url: str
) -> None:
    ask(make_model("openai", url, system_role=role))
    (body,) = server.bodies
    assert [(turn["role"], turn["content"]) for turn in body["messages"]] == turns


@EACH_PROVIDER
def test_further_parameters_are_sent(name: Any, server: ModelServer, url: str) -> None:
    extra = {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}}
    ask(make_model(name, url, extra_body=extra))
    (body,) = server.bodies
    assert {key: body[key] for key in extra} == extra


def test_a_dialect_that_bears_on_answers_is_part_of_a_requests_key() -> None:
    def key(**changes: Any) -> str:
        model = PromptedModel(MODEL, make_model("openai", "http://x", **changes))
        return model.ask("Hi.", Message(role="user", content="How?"), max_tokens=64).key

    assert key() == key(token_limit="max_completion_tokens", system_role="system", extra_body={})
    assert len({key(), key(system_role="none"), key(extra_body={"top_k": 5})}) == 3


@pytest.mark.parametrize(
    "changes",
    [
        *({"extra_body": {name: 1}} for name in ("n", "stream", "max_tokens", "model", "messages")),
        {"extra_body": {"best_of": 8}},
        {"in_flight": 10_001},
        {"batch_requests": 1_000_001},
        {"timeout": 86_401},
        {"input": 1e6 + 1},
        {"thinking": 1_000_001},
        {"provider": "anthropic", "system_role": "none"},
        {"provider": "anthropic", "token_limit": "max_tokens"},
        {"system_role": "assistant"},
    ],
)
def test_an_entry_is_bounded(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_model("openai", "http://x", **changes)


@pytest.mark.parametrize(
    "url",
    [
        *("http://host:port/v1", "localhost:8000/v1", "http://:80/v1", "ftp://host/v1"),
        *("https://[::1/v1", "https://host:70000/v1", "/v1"),
    ],
)
def test_an_entrys_url_must_be_a_servers(url: str) -> None:
    with pytest.raises(ValidationError, match=r"http://localhost:8000/v1"):
        make_model("openai", url)
    folder = make_model("openai", url, provider="file")
    assert folder.url == url
    assert make_model("openai", "https://[::1]:8000/v1").url == "https://[::1]:8000/v1"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (NEW_NAME, "token_limit"),
        (OLD_NAME, "token_limit"),
        (NO_SYSTEM, "system_role"),
        (NO_DEVELOPER, "system_role"),
        ("Conversation roles must alternate user/assistant/user/assistant/...", "system_role"),
        (NO_SCHEMA, "structured_output"),
        ("output_config: Extra inputs are not permitted", "structured_output"),
        (NO_TEMPERATURE, "temperature"),
        ("This prompt is too long", None),
        ("max_tokens: 64 is more than this model allows", None),
    ],
)
def test_a_refused_parameter_is_reported_with_the_field_that_changes_it(
    words: str, field: str | None, server: ModelServer, url: str
) -> None:
    server.dialect = lambda body: words
    with pytest.raises(InvalidRequest) as failed:
        ask(make_model("openai", url))
    assert words in str(failed.value)
    assert ("models check" in str(failed.value)) is (field is not None)
    assert field is None or field in str(failed.value)


def answer_in_form(asked: Asked) -> str:
    return json.dumps({"color": "blue"}) if asked.schema else "Blue."


PROBES: dict[str, tuple[Callable[[Body], str], dict[str, Any]]] = {
    "nothing": (refuse(), {"structured_output": "schema", "temperature": 0.7}),
    "the new name": (refuse(max_tokens=NEW_NAME), {"token_limit": "max_completion_tokens"}),
    "a developer": (refuse(system=NO_SYSTEM), {"system_role": "developer"}),
    "no system": (refuse(system=NO_SYSTEM, developer=NO_DEVELOPER), {"system_role": "none"}),
    "neither": (
        refuse(system=NO_SYSTEM, developer=NO_DEVELOPER, max_tokens=NEW_NAME),
        {"system_role": "none", "token_limit": "max_completion_tokens"},
    ),
    "no schema": (refuse(response_format=NO_SCHEMA), {"structured_output": "prompt"}),
    "no temperature": (refuse(temperature=NO_TEMPERATURE), {"temperature": None}),
}


@pytest.mark.parametrize("case", PROBES)
def test_a_probe_finds_what_a_server_accepts(case: str, server: ModelServer, url: str) -> None:
    server.dialect, expected = PROBES[case]
    server.author = answer_in_form
    model = make_model("openai", url, temperature=0.7)
    found = check_model(MODEL, model)
    assert {name: getattr(found, name) for name in expected} == expected
    assert server.most_in_flight == 1
    entry = yaml.safe_load(show_entry(MODEL, found))["models"][MODEL]
    assert LanguageModel.model_validate(entry) == found
    ask(found)


def test_a_schema_that_a_server_ignores_goes_into_the_prompt(server: ModelServer, url: str) -> None:
    server.author = lambda asked: "Blue."
    assert check_model(MODEL, make_model("openai", url)).structured_output == "prompt"


def test_a_server_that_accepts_nothing_is_reported_in_its_words(
    server: ModelServer, url: str
) -> None:
    server.dialect = lambda body: "the flavor parameter is missing"
    with expect_error(BackendError, "model-incompatible", model=MODEL) as caught:
        check_model(MODEL, make_model("openai", url))
    assert "flavor" in str(caught.error)


def test_a_server_that_fails_is_no_dialect(server: ModelServer, url: str) -> None:
    server.faults = lambda asked: Fault(500)
    with expect_error(BackendError, "server-unreachable", model=MODEL):
        check_model(MODEL, make_model("openai", url))


def test_the_command_prints_the_entry_to_write(
    server: ModelServer, url: str, bestiary: Bestiary, tmp_path: Path
) -> None:
    server.author, server.dialect = answer_in_form, refuse(max_tokens=NEW_NAME)
    entry = make_model("openai", url).model_dump(mode="json", exclude_defaults=True)
    file = tmp_path / "models.yaml"
    file.write_text(json.dumps({"checked": "2026-11-28", "models": {"mine": entry}}))
    code, out, err = bestiary("models", "check", "mine", "--models", file)
    assert (code, err) == (0, "")
    assert yaml.safe_load(out)["models"]["mine"]["token_limit"] == "max_completion_tokens"
