"""From the replies of the serving process to OpenAI's answers, whole or as a stream of server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from webapp.api.errors import ApiError
from webapp.serving.schemas import (
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    ChatMessage,
    Completion,
    GraftTimes,
    TextChoice,
    TextLogprobs,
    TokenLogprob,
    Top,
    Usage,
)
from webapp.serving.services.ask import Refused

_STATUSES = {
    "prompt_too_long": (400, "context_length_exceeded", "messages"),
    "model_not_found": (404, "model_not_found", "model"),
    "model_not_ready": (404, "model_not_found", "model"),
    "serving_busy": (429, "rate_limit_exceeded", None),
    "training_first": (503, "training_first", None),
    "serving_off": (501, "not_implemented", None),
    "serving_unavailable": (503, "serving_unavailable", None),
    "serving_lost": (503, "serving_lost", None),
    "serving_memory": (503, "serving_memory", None),
    "serving_failed": (503, "serving_failed", None),
}
Replies = AsyncIterator[dict[str, Any]]


def as_api_error(refused: Refused) -> ApiError:
    """A refusal in the API's words; what is not the server's state is the question's fault."""
    status, code, param = _STATUSES.get(refused.code, (400, refused.code, "model"))
    headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after is not None else {}
    if refused.queue_position is not None:
        headers["x-queue-position"] = str(refused.queue_position)
    return ApiError(status, refused.message, code=code, param=param, headers=headers, should_retry=refused.retry_after is not None)


@dataclass
class Whole:
    """An answer as far as it has come."""

    text: str = ""
    tokens: list[TokenLogprob] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    def add(self, reply: dict[str, Any]) -> None:
        """Takes one reply in."""
        if reply["kind"] == "token":
            self.text += reply.get("text", "")
            self.tokens += probabilities(reply)
        elif reply["kind"] == "finished":
            self.end = reply

    @property
    def usage(self) -> Usage:
        """Tokens read and written."""
        read, written = int(self.end.get("prompt_tokens", 0)), int(self.end.get("answer_tokens", 0))
        return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)

    @property
    def reason(self) -> Any:
        """Why it ended, in OpenAI's words."""
        return "length" if self.end.get("reason") == "length" else "stop"

    @property
    def times(self) -> GraftTimes:
        """How long it took."""
        return GraftTimes(first_token_seconds=self.end.get("first_seconds", 0.0), seconds=self.end.get("seconds", 0.0))


def probabilities(reply: dict[str, Any]) -> list[TokenLogprob]:
    """The tokens of a reply with their probabilities, where they were asked for."""
    tops = reply.get("tops") or [[] for _ in reply.get("tokens", ())]
    return [
        TokenLogprob(**token, top_logprobs=[Top(**one) for one in likeliest])
        for token, likeliest in zip(reply.get("tokens", ()), tops, strict=True)
    ]


async def gathered(replies: Replies) -> Whole:
    """The whole answer. Raises `ApiError`."""
    whole = Whole()
    try:
        async for reply in replies:
            whole.add(reply)
    except Refused as refused:
        raise as_api_error(refused) from None
    return whole


def chat(whole: Whole, model: str, *, logprobs: bool) -> ChatCompletion:
    """An answered chat."""
    choice = ChatChoice(
        message=ChatMessage(content=whole.text),
        logprobs=ChatLogprobs(content=whole.tokens) if logprobs else None,
        finish_reason=whole.reason,
    )
    return ChatCompletion(**_head("chatcmpl", model), choices=[choice], usage=whole.usage, graft=whole.times)


def completion(whole: Whole, model: str, *, logprobs: bool) -> Completion:
    """A text gone on with."""
    choice = TextChoice(text=whole.text, logprobs=text_logprobs(whole.tokens) if logprobs else None, finish_reason=whole.reason)
    return Completion(**_head("cmpl", model), choices=[choice], usage=whole.usage, graft=whole.times)


def text_logprobs(tokens: list[TokenLogprob]) -> TextLogprobs:
    """Probabilities as the older interface has them."""
    offsets, place = [], 0
    for token in tokens:
        offsets.append(place)
        place += len(token.token)
    return TextLogprobs(
        tokens=[token.token for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=[{one.token: one.logprob for one in token.top_logprobs} for token in tokens],
        text_offset=offsets,
    )


def _head(prefix: str, model: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{uuid4().hex}", "created": int(time.time()), "model": model, "system_fingerprint": "graft"}


@dataclass(frozen=True)
class Stream:
    """How an answer is streamed: `chat` or the older interface, with probabilities or without, with the usage at the end or without."""

    model: str
    chat: bool
    logprobs: bool
    usage: bool

    async def events(self, replies: Replies) -> AsyncIterator[bytes]:
        """Server-sent events; a refusal after the beginning is one of them, as OpenAI's are."""
        head = _head("chatcmpl" if self.chat else "cmpl", self.model)
        head["object"] = "chat.completion.chunk" if self.chat else "text_completion"
        whole = Whole()
        try:
            if self.chat:
                yield self._event(head, {"role": "assistant", "content": "", "refusal": None}, None, None)
            async for reply in replies:
                whole.add(reply)
                if reply["kind"] == "token":
                    yield self._event(head, {"content": reply.get("text", "")}, probabilities(reply), None)
            yield self._event(head, {}, None, whole.reason)
            if self.usage:
                last = {**head, "choices": [], "usage": whole.usage.model_dump(), "graft": whole.times.model_dump()}
                yield _said(last)
        except Refused as refused:
            error = as_api_error(refused)
            facts = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
            yield _said({"error": facts})
        yield b"data: [DONE]\n\n"

    def _event(self, head: dict[str, Any], delta: dict[str, Any], tokens: list[TokenLogprob] | None, reason: str | None) -> bytes:
        told: dict[str, Any] | None = None
        if self.logprobs and tokens:
            told = ChatLogprobs(content=tokens).model_dump() if self.chat else text_logprobs(tokens).model_dump()
        said = {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **said, "logprobs": told, "finish_reason": reason}
        return _said({**head, "choices": [choice], **({"usage": None} if self.usage else {})})


def _said(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
