"""Chats and completions as OpenAI's clients ask and hear them."""

from __future__ import annotations

from typing import Any, Literal

from ninja import Schema
from pydantic import ConfigDict, Field

MOST_TOP = 20


_HELLO: Any = {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


class StreamOptions(Schema):
    """What a stream tells besides."""

    include_usage: bool = False


class Common(Schema):
    """What both kinds of questions say."""

    model: str = Field(min_length=1, max_length=512)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=1_048_576)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=128)


class MessageAsked(Schema):
    """A turn of a chat; `content` is text, or parts that are text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]


class ChatAsked(Common):
    """A chat to be gone on with."""

    model_config = ConfigDict(json_schema_extra={"examples": [_HELLO]})

    messages: list[MessageAsked] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_048_576)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP)


class CompletionAsked(Common):
    """A text to be gone on with."""

    prompt: str | list[str] = Field(max_length=1_000_000)
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool = False


class Usage(Schema):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Top(Schema):
    """A token with its natural logarithm of probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Top):
    """The token that was chosen, and the likeliest at its place."""

    top_logprobs: list[Top]


class ChatLogprobs(Schema):
    """The probabilities of an answer, token by token."""

    content: list[TokenLogprob] | None
    refusal: None = None


class ChatMessage(Schema):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None


class ChatChoice(Schema):
    """The one answer to a chat."""

    index: int = 0
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class GraftTimes(Schema):
    """Seconds until the first token, and in all."""

    first_token_seconds: float
    seconds: float


class ChatCompletion(Schema):
    """An answered chat."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str
    graft: GraftTimes


class TextLogprobs(Schema):
    """The probabilities of a text, as the older interface has them."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Schema):
    """The one continuation of a text."""

    index: int = 0
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(Schema):
    """A text gone on with."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    system_fingerprint: str
    graft: GraftTimes
