"""distilabel's OpenAILLM, asked without the pipeline around it."""

from __future__ import annotations

import asyncio
from typing import Any

from distilabel.models import OpenAILLM  # type: ignore[import-not-found]

from peers.lap import KEY, MODEL, SYSTEM, TOKENS, Orders, run_lap


async def ask_all(orders: Orders) -> int:
    """RequestGroup everything, so many at once."""
    room = asyncio.Semaphore(orders.in_flight)
    model = OpenAILLM(model=MODEL, base_url=orders.url, api_key=KEY)
    model.load()

    async def ask(text: str) -> Any:
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        async with room:
            return await model.agenerate(input=turns, max_new_tokens=TOKENS)

    replies = await asyncio.gather(*map(ask, orders.list_texts()))
    return sum(all(reply["generations"]) for reply in replies)


if __name__ == "__main__":
    run_lap(lambda orders: asyncio.run(ask_all(orders)))
