"""Language models as a file describes them: how each is reached, what it costs, what it bears."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from bestiary.records import Record

Dollars = Annotated[float, Field(ge=0)]
"""US dollars per million tokens."""


StructuredOutput = Literal["schema", "prompt", "none"]
"""How a model is told what to write: its server holds answers to a JSON Schema; the schema stands
in the prompt, where the server knows none; or, for a model too small to follow instructions, a
behavior's demonstrations stand before each message. The last writes replies alone: messages come
from the prompt banks, and it judges nothing."""


class LanguageModel(Record):
    """One model of one provider."""

    provider: Literal["anthropic", "openai"]
    """Whose interface it speaks: openai is every server with chat completions."""
    url: str | None = None
    """Of another server than the provider's own."""
    served_as: str | None = None
    """How its server calls it, where that is not its name here."""
    structured_output: StructuredOutput = "schema"
    key: str | None
    """The environment variable that holds the key; null where the server wants none."""
    input: Dollars
    output: Dollars
    cache_write: Dollars
    cache_read: Dollars
    batch: float | None = Field(default=None, gt=0, le=1)
    """What a batch costs, as a share of single calls; null where there are no batches."""
    cache_from: int = Field(default=1024, ge=1)
    """Tokens of the shortest beginning that is cached."""
    batch_hits: float = Field(default=0.3, ge=0, le=1)
    """Of a batch's requests that begin alike, the share that a plan takes to find the beginning
    cached. No provider promises any; Anthropic names 30 to 98%, and this is the least of them."""
    in_flight: int = Field(default=256, ge=1)
    """Single calls at once, at most; how many the server bears is found out below it."""
    batch_requests: int = Field(default=10_000, ge=1)
    """Requests of one batch, at most."""
    batch_megabytes: int = Field(default=50, ge=1)
    """Size of one batch, at most."""
    temperature: float | None = Field(default=None, ge=0)
    """Null for models that take none, which draw as they please."""
    thinking: int = Field(default=0, ge=0)
    """Tokens that it may think before it answers, billed as what it writes."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds to wait for one answer."""


class ModelFile(Record):
    """A file of models, with the day on which its prices were looked up."""

    checked: date
    sources: tuple[str, ...] = ()
    """Where the prices were read."""
    models: dict[str, LanguageModel]
