"""What a server accepts: a few requests, one at a time, each varying one field of an entry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

from bestiary.errors import BackendError
from bestiary.llm.client import open_provider
from bestiary.llm.models import LanguageModel
from bestiary.llm.prompted import PromptedModel
from bestiary.llm.provider import InvalidRequest, ProviderFault
from bestiary.llm.request import Answer, Unanswered
from bestiary.llm.structured import Form, read_form
from bestiary.records import Message

MAX_TOKENS = 512
"""Enough for a model that thinks a little before it answers."""


class Color(Form):
    """The form that a server is asked to enforce."""

    color: str


def check_model(name: str, model: LanguageModel) -> LanguageModel:
    """The entry with which the server accepts requests; BackendError if it accepts none."""
    output = "none" if model.structured_output == "none" else "prompt"
    plain = model.model_copy(update={"structured_output": output, "temperature": None})
    words = ""
    for candidate in _vary_dialect(plain):
        found = _ask(name, candidate)
        if isinstance(found, Answer):
            return _check_fields(name, model, candidate)
        words = str(found)
    raise BackendError(
        f"{name}: the server accepts no request: {words}",
        "set what it asks for as extra_body in the model's entry",
        code="model-incompatible",
        model=name,
        reason=words,
    )


def _vary_dialect(model: LanguageModel) -> Iterator[LanguageModel]:
    """The entry as it is, then with other names of the token limit and the system prompt's role."""
    yield model
    if model.provider == "openai":
        for role in ("system", "developer", "none"):
            for limit in ("max_tokens", "max_completion_tokens"):
                yield model.model_copy(update={"token_limit": limit, "system_role": role})


def _check_fields(name: str, model: LanguageModel, accepted: LanguageModel) -> LanguageModel:
    """The accepted entry with the temperature and the structured output of `model` if they work."""
    found = accepted
    warm = accepted.model_copy(update={"temperature": model.temperature})
    if model.temperature is not None and isinstance(_ask(name, warm), Answer):
        found = warm
    if model.structured_output == "none":
        return found
    strict = found.model_copy(update={"structured_output": "schema"})
    answer = _ask(name, strict)
    if isinstance(answer, Answer) and not isinstance(read_form(answer, Color), Unanswered):
        found = strict
    return found


def _ask(name: str, model: LanguageModel) -> Answer | InvalidRequest:
    """The answer to one request, or the server's refusal of it; other faults are raised."""
    request = PromptedModel(name, model).ask(
        "Answer in one word.",
        Message(role="user", content="Which color is the sky?"),
        max_tokens=MAX_TOKENS,
        form=Color if model.structured_output == "schema" else None,
    )

    async def work() -> Answer | InvalidRequest:
        provider = open_provider(name, model)
        try:
            return await provider.ask(request)
        except InvalidRequest as refusal:
            return refusal
        except ProviderFault as fault:
            raise BackendError(
                f"{name}: the server does not answer: {fault}",
                "check the url, the name of the model and the network, and try again",
                code="server-unreachable",
                model=name,
                reason=str(fault),
            ) from None
        finally:
            await provider.close()

    return asyncio.run(work())


def show_entry(name: str, model: LanguageModel) -> str:
    """A model's entry as YAML, without the fields that are as they are by default."""
    fields = model.model_dump(mode="json", exclude_defaults=True)
    lines = [f"    {field}: {json.dumps(value)}" for field, value in fields.items()]
    return "\n".join(["models:", f"  {json.dumps(name)}:", *lines])
