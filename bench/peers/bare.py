"""The openai SDK with the aiohttp transport that it brings, in a loop: nothing is kept."""

from __future__ import annotations

import asyncio

import openai

from peers.lap import KEY, MODEL, SYSTEM, TOKENS, Orders, run_lap


async def ask_all(orders: Orders) -> int:
    """RequestGroup everything, so many at once."""
    room = asyncio.Semaphore(orders.in_flight)
    async with openai.AsyncOpenAI(
        api_key=KEY,
        base_url=orders.url,
        max_retries=0,
        http_client=openai.DefaultAioHttpClient(),
    ) as client:

        async def ask(text: str) -> str | None:
            async with room:
                completion = await client.chat.completions.create(
                    model=MODEL,
                    messages=[
                        {"role": "system", "content": SYSTEM},
                        {"role": "user", "content": text},
                    ],
                    max_tokens=TOKENS,
                )
            return completion.choices[0].message.content

        replies = await asyncio.gather(*map(ask, orders.list_texts()))
    return sum(reply is not None for reply in replies)


if __name__ == "__main__":
    run_lap(lambda orders: asyncio.run(ask_all(orders)))
