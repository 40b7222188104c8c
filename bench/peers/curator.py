"""bespokelabs-curator as its users call it, with rates that never hold it back."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peers.lap import KEY, MODEL, SYSTEM, TOKENS, Orders, run_lap

LITELLM = find_spec("litellm")
assert LITELLM is not None and LITELLM.origin is not None
VOCABULARY = Path(LITELLM.origin).parent / "litellm_core_utils" / "tokenizers"
"""Brought by a package that curator needs; else it would be downloaded."""
os.environ |= {
    "TIKTOKEN_CACHE_DIR": str(VOCABULARY),
    "OPENAI_API_KEY": KEY,
    "TELEMETRY_ENABLED": "false",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
from bespokelabs import curator  # type: ignore[import-not-found]  # noqa: E402

ENDLESS = 10**9
"""Requests, and tokens, a minute."""


class Judge(curator.LLM):  # type: ignore[misc]
    """Asks a text, and keeps the reply beside it."""

    def prompt(self, input: dict[str, str]) -> str:
        """The text of a row."""
        return input["text"]

    def parse(self, input: dict[str, str], response: str) -> dict[str, Any]:
        """The row that comes of a reply."""
        return {"text": input["text"], "reply": response}


def ask_all(orders: Orders) -> int:
    """RequestGroup everything, so many at once."""
    judge = Judge(
        model_name=MODEL,
        backend="openai",
        system_prompt=SYSTEM,
        generation_params={"max_tokens": TOKENS},
        backend_params={
            "base_url": orders.url,
            "max_concurrent_requests": orders.in_flight,
            "max_requests_per_minute": ENDLESS,
            "max_tokens_per_minute": ENDLESS,
        },
    )
    found = judge([{"text": text} for text in orders.list_texts()], working_dir=str(orders.folder))
    return sum(bool(row["reply"]) for row in found.dataset)


if __name__ == "__main__":
    run_lap(ask_all)
