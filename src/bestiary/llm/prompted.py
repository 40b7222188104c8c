"""A named language model and the requests made to it, each in the form that the model needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bestiary.llm.models import LanguageModel
from bestiary.llm.request import ModelRequest
from bestiary.llm.structured import Form, describe_form, schema_of
from bestiary.records import Message

TOKEN_CHARACTERS = 4
"""Characters per token of English, roughly."""


@dataclass(frozen=True)
class PromptedModel:
    """A model under its name in the model file."""

    name: str
    model: LanguageModel

    @property
    def follows_instructions(self) -> bool:
        """Whether it follows instructions; if not, it can only continue examples."""
        return self.model.structured_output != "none"

    @property
    def identity(self) -> tuple[str | float | None, ...]:
        """What its answers depend on besides the request's text."""
        model = self.model
        return (
            self.name,
            model.provider,
            model.served_as,
            model.structured_output,
            model.temperature,
            *self._dialect,
        )

    @property
    def _dialect(self) -> tuple[str, ...]:
        """What its server is sent beyond the usual."""
        model = self.model
        role = () if model.system_role == "system" else (model.system_role,)
        return (
            *role,
            *([json.dumps(model.extra_body, sort_keys=True)] if model.extra_body else []),
            *([f"thinking {model.thinking}"] if model.thinking else []),
        )

    def ask(
        self,
        system: str,
        *turns: Message,
        max_tokens: int,
        form: type[Form] | None = None,
        sample: int = 0,
    ) -> ModelRequest:
        """A request for the next turn; a long enough system prompt is cached.

        `max_tokens` limits the answer; the model's thinking budget is added to it.
        """
        schema = None if form is None else schema_of(form)
        if schema is not None and self.model.structured_output == "prompt":
            system, schema = f"{system}\n\n{describe_form(schema)}", None
        return ModelRequest(
            provider=self.model.provider,
            model=self.name,
            served_as=self.model.served_as,
            system=system,
            messages=turns,
            max_tokens=max_tokens + self.model.thinking,
            temperature=self.model.temperature,
            reply_schema=schema,
            system_role=self.model.system_role,
            extra_body=self.model.extra_body,
            sample=sample,
            shared=len(system) >= TOKEN_CHARACTERS * self.model.cache_from,
        )

    def few_shot(
        self,
        system: str,
        examples: Sequence[tuple[str, str]],
        *turns: Message,
        max_tokens: int,
        sample: int = 0,
    ) -> ModelRequest:
        """A request for one more reply like those of `examples`, (user, assistant) pairs."""
        before = [
            Message(role=role, content=text)
            for example in examples
            for role, text in zip(("user", "assistant"), example, strict=True)
        ]
        return self.ask(system, *before, *turns, max_tokens=max_tokens, sample=sample)
