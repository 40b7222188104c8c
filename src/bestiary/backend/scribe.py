"""A language model as it is asked: one request for each step, in the way that it understands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bestiary.backend.forms import Form, schema_of
from bestiary.backend.request import ModelRequest
from bestiary.records import Message
from bestiary.spec.behavior import Demonstration
from bestiary.spec.brief import render_form, render_imitation
from bestiary.spec.models import LanguageModel

TOKENS = {
    "subjects": 900,
    "prompts": 1600,
    "replies": 400,
    "followups": 120,
    "judge": 300,
    "rewrite": 400,
}
"""Of an answer at most, by stage."""
IMITATION_TOKENS = 96
"""Of an imitation at most: a small model that has not ended by then goes in circles."""
TOKEN_CHARACTERS = 4
"""Of English, roughly."""


@dataclass(frozen=True)
class Scribe:
    """A model, as it is asked."""

    name: str
    model: LanguageModel

    @property
    def follows(self) -> bool:
        """Whether it follows instructions; another only continues examples."""
        return self.model.guided_by != "examples"

    @property
    def identity(self) -> tuple[str | float | None, ...]:
        """What its answers depend on besides what it is asked."""
        model = self.model
        return self.name, model.provider, model.served_as, model.guided_by, model.temperature

    def ask(
        self,
        stage: str,
        system: str,
        *turns: Message,
        form: type[Form] | None = None,
        sample: int = 0,
    ) -> ModelRequest:
        """A request of a stage; a system prompt that is long enough is cached."""
        schema = None if form is None else schema_of(form)
        if schema is not None and self.model.guided_by == "words":
            system, schema = f"{system}\n\n{render_form(schema)}", None
        return ModelRequest(
            provider=self.model.provider,
            model=self.name,
            served_as=self.model.served_as,
            system=system,
            messages=turns,
            max_tokens=TOKENS[stage] + self.model.thinking,
            temperature=self.model.temperature,
            reply_schema=schema,
            sample=sample,
            shared=len(system) >= TOKEN_CHARACTERS * self.model.cache_from,
        )

    def imitate(
        self, shown: Sequence[Demonstration], *turns: Message, sample: int = 0
    ) -> ModelRequest:
        """A request for one more reply like those shown, which stand before it as turns."""
        before = [
            Message(role=role, content=text)
            for example in shown
            for role, text in (("user", example.user), ("assistant", example.assistant))
        ]
        request = self.ask("replies", render_imitation(), *before, *turns, sample=sample)
        return replace(request, max_tokens=IMITATION_TOKENS)
