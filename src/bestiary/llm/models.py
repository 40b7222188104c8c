"""Language models as a file describes them: how to reach each one, its prices, and its limits."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from bestiary.records import Record

Dollars = Annotated[float, Field(ge=0)]
"""US dollars per million tokens."""


StructuredOutput = Literal["schema", "prompt", "none"]
"""How a model is made to fill in a form. schema: the server constrains replies to a JSON Schema.
prompt: the prompt states the schema. none: the model is too small to follow instructions, so a
behavior's demonstrations precede each message; it writes only replies, and it judges nothing."""


class LanguageModel(Record):
    """One model of one provider."""

    provider: Literal["anthropic", "openai"]
    """The API that its server speaks; openai stands for every server with chat completions."""
    url: str | None = None
    """The server's URL; null for the provider's own server."""
    served_as: str | None = None
    """The server's name for the model, if it differs from the name in this file."""
    structured_output: StructuredOutput = "schema"
    key: str | None
    """The environment variable that holds the API key; null if the server needs none."""
    input: Dollars
    output: Dollars
    cache_write: Dollars
    cache_read: Dollars
    batch: float | None = Field(default=None, gt=0, le=1)
    """The price of a batch as a share of the price of single requests; null for no batches."""
    cache_from: int = Field(default=1024, ge=1)
    """Tokens of the shortest prefix that is cached."""
    batch_hits: float = Field(default=0.3, ge=0, le=1)
    """Share of the requests in a batch that a plan expects to find their shared prefix cached. No
    provider guarantees any; Anthropic reports 30% to 98%, and the default is the low end."""
    in_flight: int = Field(default=256, ge=1)
    """The most single requests in flight; below it the limiter finds what the server can take."""
    batch_requests: int = Field(default=10_000, ge=1)
    """The most requests in one batch."""
    batch_megabytes: int = Field(default=50, ge=1)
    """The largest size of one batch."""
    temperature: float | None = Field(default=None, ge=0)
    """Null for models that accept none and sample at their own."""
    thinking: int = Field(default=0, ge=0)
    """The most tokens it may think before it answers; they are billed as output."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds to wait for one answer."""


class ModelFile(Record):
    """A file of models, with the day on which their prices were looked up."""

    checked: date
    sources: tuple[str, ...] = ()
    """Where the prices were looked up."""
    models: dict[str, LanguageModel]
