"""`/v1/chat/completions` and `/v1/completions`: ask a base model or a tuned one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Router

from webapp.accounts.scopes import Scope
from webapp.api.auth import Caller, needs_async
from webapp.api.naming import find
from webapp.serving.answers import Replies, Stream, as_api_error, chat, completion, gathered
from webapp.serving.questions import chat_question, completion_question
from webapp.serving.schemas import ChatAsked, ChatCompletion, Common, Completion, CompletionAsked
from webapp.serving.services.ask import Refused, ask
from webapp.serving.services.models import model_of

router = Router(tags=["Chat"])


@router.post("/chat/completions", auth=needs_async(Scope.MODELS_READ), response=ChatCompletion, operation_id="createChatCompletion")
async def create_chat(request: HttpRequest, asked: ChatAsked) -> Any:
    """Goes on with a chat; with `stream` as server-sent events."""
    question = chat_question(asked)
    replies = await _asked(request, asked, question)
    if asked.stream:
        return _streamed(Stream(asked.model, chat=True, logprobs=bool(asked.logprobs), usage=_wants_usage(asked)), replies)
    return chat(await gathered(replies), asked.model, logprobs=bool(asked.logprobs))


@router.post("/completions", auth=needs_async(Scope.MODELS_READ), response=Completion, operation_id="createCompletion")
async def create_completion(request: HttpRequest, asked: CompletionAsked) -> Any:
    """Goes on with a text, as it stands; with `stream` as server-sent events."""
    question = completion_question(asked)
    replies = await _asked(request, asked, question)
    told = asked.logprobs is not None
    if asked.stream:
        return _streamed(Stream(asked.model, chat=False, logprobs=told, usage=_wants_usage(asked)), replies)
    return completion(await gathered(replies), asked.model, logprobs=told)


async def _asked(request: HttpRequest, asked: Common, question: dict[str, Any]) -> Replies:
    """The replies, from the first on: what is refused at once is an answer with a status of its own. Raises `ApiError`."""
    caller: Caller = request.auth  # type: ignore[attr-defined]

    def look_up() -> dict[str, Any]:
        return model_of(find(caller.user, caller.team, asked.model))

    try:
        replies = ask(await sync_to_async(look_up)(), question)
        first = await anext(replies)
        while first["kind"] == "loading":
            first = await anext(replies)
    except Refused as refused:
        raise as_api_error(refused) from None
    return _behind(first, replies)


async def _behind(first: dict[str, Any], replies: Replies) -> AsyncIterator[dict[str, Any]]:
    try:
        yield first
        async for reply in replies:
            yield reply
    finally:
        await replies.aclose()  # type: ignore[attr-defined]


def _wants_usage(asked: Common) -> bool:
    return asked.stream_options is not None and asked.stream_options.include_usage


def _streamed(stream: Stream, replies: Replies) -> StreamingHttpResponse:
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(stream.events(replies), content_type="text/event-stream", headers=headers)
