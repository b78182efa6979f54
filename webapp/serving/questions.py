"""From what a client asks to what the serving process is asked. Raises `ApiError` 400 that names the field at fault."""

from __future__ import annotations

import secrets
from typing import Any

from webapp.api.errors import ApiError
from webapp.serving.schemas import ChatAsked, Common, CompletionAsked

_MOST_STOPS = 4
# What OpenAI's older interface writes where nothing is said.
_COMPLETION_TOKENS = 16
_CHAT_TOKENS = 1024


def chat_question(asked: ChatAsked) -> dict[str, Any]:
    """The fields of `jobs.serving.spec.Ask` but its id and model."""
    if asked.top_logprobs and not asked.logprobs:
        raise ApiError(400, "'top_logprobs' needs 'logprobs' to be true.", code="invalid_value", param="top_logprobs")
    messages = [
        # Models know no developer; OpenAI's own older ones called it system.
        {"role": "system" if turn.role == "developer" else turn.role, "content": _text(turn.content, index)}
        for index, turn in enumerate(asked.messages)
    ]
    tokens = asked.max_completion_tokens or asked.max_tokens or _CHAT_TOKENS
    return {"messages": messages, "max_tokens": tokens, "top": (asked.top_logprobs or 0) if asked.logprobs else -1, **_common(asked)}


def completion_question(asked: CompletionAsked) -> dict[str, Any]:
    """The same for a text."""
    prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
    if len(prompts) != 1:
        raise ApiError(400, "One prompt at a time is answered.", code="unsupported_value", param="prompt")
    if asked.echo:
        raise ApiError(400, "'echo' is not supported.", code="unsupported_value", param="echo")
    top = asked.logprobs if asked.logprobs is not None else -1
    return {"text": prompts[0], "max_tokens": asked.max_tokens or _COMPLETION_TOKENS, "top": top, **_common(asked)}


def _common(asked: Common) -> dict[str, Any]:
    if asked.n not in (None, 1):
        raise ApiError(400, "One answer at a time: 'n' must be 1.", code="unsupported_value", param="n")
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if len(stops) > _MOST_STOPS or not all(0 < len(stop) <= 1000 for stop in stops):
        raise ApiError(400, f"'stop' takes at most {_MOST_STOPS} texts of 1 to 1000 characters.", code="invalid_value", param="stop")
    return {
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        # Negative seeds are seeds too; where none is said, each answer is another.
        "seed": secrets.randbelow(2**63) if asked.seed is None else asked.seed % 2**63,
        "stop": stops or None,
    }


def _text(content: str | list[dict[str, Any]], index: int) -> str:
    if isinstance(content, str):
        return content
    for part in content:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ApiError(400, "Only text can be read here.", code="unsupported_value", param=f"messages.{index}.content")
    return "".join(part["text"] for part in content)
