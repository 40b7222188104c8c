"""A language model with the ways in which it can be asked: a request for each question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bestiary.llm.models import LanguageModel
from bestiary.llm.request import ModelRequest
from bestiary.llm.structured import Form, describe_form, schema_of
from bestiary.records import Message

TOKEN_CHARACTERS = 4
"""Of English, roughly."""


@dataclass(frozen=True)
class PromptedModel:
    """A model and its name, from which requests to it are made."""

    name: str
    model: LanguageModel

    @property
    def follows_instructions(self) -> bool:
        """Whether it follows instructions; another model only continues examples."""
        return self.model.structured_output != "none"

    @property
    def identity(self) -> tuple[str | float | None, ...]:
        """What its answers depend on besides what it is asked."""
        model = self.model
        return (
            self.name,
            model.provider,
            model.served_as,
            model.structured_output,
            model.temperature,
        )

    def ask(
        self,
        system: str,
        *turns: Message,
        max_tokens: int,
        form: type[Form] | None = None,
        sample: int = 0,
    ) -> ModelRequest:
        """A request for the next turn; a system prompt that is long enough is cached.

        `max_tokens` bounds the answer; what the model may think comes on top.
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
