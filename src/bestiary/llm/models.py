"""Language models as a file describes them: how to reach each one, its prices, and its limits."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, model_validator

from bestiary.records import Record

Dollars = Annotated[float, Field(ge=0, le=1e6)]
"""US dollars per million tokens."""


StructuredOutput = Literal["schema", "prompt", "none"]
"""How a model is made to fill in a form. schema: the server constrains replies to a JSON Schema.
prompt: the prompt states the schema. none: the model is too small to follow instructions, so a
behavior's demonstrations precede each message; it writes only replies, and it judges nothing."""


SystemRole = Literal["system", "developer", "none"]
OWNED_PARAMETERS = frozenset(
    ("model", "messages", "system", "stream", "n", "best_of", "max_tokens", "temperature")
) | {"max_completion_tokens", "response_format", "output_config"}
"""Parameters that every request states by itself; several of them bear on its price."""


class LanguageModel(Record):
    """One model of one provider."""

    provider: Literal["anthropic", "openai", "file"]
    """The API that its server speaks; openai stands for every server with chat completions. file:
    there is no server, and `--author file:FOLDER` names the folder."""
    url: str | None = None
    """The server's URL, or the folder; null for the provider's own server."""
    served_as: str | None = None
    """The server's name for the model, if it differs from the name in this file."""
    structured_output: StructuredOutput = "schema"
    token_limit: Literal["max_tokens", "max_completion_tokens"] | None = None
    """The parameter that limits an answer's tokens; null: max_tokens behind a URL, and
    max_completion_tokens at OpenAI itself."""
    system_role: SystemRole = "system"
    """The role of the system prompt; none: it precedes the first user message."""
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further parameters of every request, as the server names them."""
    key: str | None
    """The environment variable that holds the API key; null if the server needs none."""
    input: Dollars
    output: Dollars
    cache_write: Dollars
    cache_read: Dollars
    batch: float | None = Field(default=None, gt=0, le=1)
    """The price of a batch as a share of the price of single requests; null for no batches."""
    cache_from: int = Field(default=1024, ge=1, le=10_000_000)
    """Tokens of the shortest prefix that is cached."""
    batch_hits: float = Field(default=0.3, ge=0, le=1)
    """Share of the requests in a batch that a plan expects to find their shared prefix cached. No
    provider guarantees any; Anthropic reports 30% to 98%, and the default is the low end."""
    in_flight: int = Field(default=256, ge=1, le=10_000)
    """The most single requests in flight; below it the limiter finds what the server can take."""
    batch_requests: int = Field(default=10_000, ge=1, le=1_000_000)
    """The most requests in one batch."""
    batch_megabytes: int = Field(default=50, ge=1, le=10_000)
    """The largest size of one batch."""
    temperature: float | None = Field(default=None, ge=0, le=100)
    """Null for models that accept none and sample at their own."""
    thinking: int = Field(default=0, ge=0, le=1_000_000)
    """The most tokens it may think before it answers; they are billed as output."""
    timeout: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds to wait for one answer."""

    @model_validator(mode="after")
    def _check_dialect(self) -> Self:
        """Refuse parameters that others set, URLs without a server, and fields of another API."""
        owned = sorted(OWNED_PARAMETERS & set(self.extra_body))
        if owned:
            raise ValueError(f"extra_body must not set {', '.join(owned)}; Bestiary sets it itself")
        if self.provider == "file" and not self.url:
            raise ValueError("provider file has no server: name the folder as its url")
        if self.provider != "file" and self.url is not None and not _is_address(self.url):
            raise ValueError(
                f"url {self.url!r} is no address: it must be http:// or https://, a host, and, if "
                "it has a port, a number, such as http://localhost:8000/v1"
            )
        if self.provider == "anthropic" and (self.token_limit or self.system_role != "system"):
            raise ValueError("token_limit and system_role are fields of provider openai only")
        return self


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number, or of half a bracket
        return False


class ModelFile(Record):
    """A file of models, with the day on which their prices were looked up."""

    checked: date
    sources: tuple[str, ...] = ()
    """Where the prices were looked up."""
    models: dict[str, LanguageModel]
