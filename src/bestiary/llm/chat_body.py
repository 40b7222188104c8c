"""The body of a chat completions request."""

from __future__ import annotations

from typing import Any, Literal

from bestiary.llm.request import ModelRequest

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"


def write_body(request: ModelRequest, *, token_limit: str) -> dict[str, Any]:
    """The parameters of the call; `token_limit` names the one that limits an answer's tokens."""
    turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
    if request.system_role != "none":
        turns.insert(0, {"role": request.system_role, "content": request.system})
    elif request.system:
        turns[0]["content"] = f"{request.system}\n\n{turns[0]['content']}"
    params: dict[str, Any] = {
        "model": request.model_on_wire,
        "messages": turns,
        token_limit: request.max_tokens,
        **request.extra_body,
    }
    if request.reply_schema is not None:
        schema = {"name": "reply", "schema": request.reply_schema, "strict": True}
        params["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.temperature is not None:
        params["temperature"] = request.temperature
    return params


def write_batch_line(custom_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """A request as a line of a batch file."""
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
