"""Chatting with models through the official client: a real serving process, base model and tuned model, whole and streamed."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import psutil
import pytest
from openai import AsyncOpenAI, OpenAI

from jobs.commands.generate import prompt_ids
from jobs.evaluation.generation import answers
from jobs.models.opened import open_model
from tests.browser.conftest import start_web
from tests.flow.site import wait_for
from tests.openai_client.conftest import MODEL, QUICK, World, sent
from webapp.runs.models import Record

pytestmark = pytest.mark.timeout(600)
HELLO: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def serving(world: World) -> World:
    world.site.start_worker("serve", queue="serve", GRAFT_SERVING_IDLE_SECONDS="60")
    return world


def alone(world: World, tokens: int) -> str:
    opened = open_model(world.base.folder, None)
    (found,) = answers(opened.model, opened.tokenizer, [prompt_ids(HELLO, opened.tokenizer, raw=False)], max_new_tokens=tokens)
    return found.text


def processes(world: World) -> list[psutil.Process]:
    """Those that answer, of this site."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if line[2:4] == ["jobs", "serve"] and str(world.site.var) in line:
            found.append(process)
    return found


def test_a_base_model_answers_whole_and_streamed(serving: World, client: OpenAI) -> None:
    expected = alone(serving, 12)
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason, whole.model) == (expected, "length", MODEL)
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.usage.total_tokens) == (12, whole.usage.prompt_tokens + 12)

    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (chunks[-2].choices[0].finish_reason, chunks[-1].usage) == ("length", whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1

    told = client.chat.completions.create(logprobs=True, top_logprobs=2, **asked).choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert [len(token.top_logprobs) for token in told.content] == [2] * 12
    assert all(token.logprob == token.top_logprobs[0].logprob <= 0 for token in told.content)

    drawn = [client.chat.completions.create(**{**asked, "temperature": 1, "seed": seed}).choices[0].message.content for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]
    cut = client.chat.completions.create(**asked, stop=[expected[4:7]])
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (expected[: expected.index(expected[4:7])], "stop")
    text = client.completions.create(model=MODEL, prompt="Once", max_tokens=5, temperature=0, logprobs=1)
    assert text.choices[0].logprobs is not None
    assert len(text.choices[0].logprobs.tokens or ()) == 5
    pieces = client.completions.create(model=MODEL, prompt="Once", max_tokens=5, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces) == text.choices[0].text

    async def many() -> list[str | None]:
        async with AsyncOpenAI(base_url=client.base_url, api_key=client.api_key, max_retries=0) as own:
            found = await asyncio.gather(*(own.chat.completions.create(**asked) for _ in range(6)))
            return [one.choices[0].message.content for one in found]

    assert asyncio.run(many()) == [expected] * 6
    assert len(processes(serving)) == 1


def test_a_tuned_model_answers_as_its_evaluation_did(serving: World, client: OpenAI) -> None:
    file = sent(client)
    settings = {
        **QUICK,
        "learning_rate": 0.05,
        "evaluation": {"generate": True, "rows": 2, "samples": 2, "max_new_tokens": 16, "retention": False},
    }
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        validation_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": settings}},  # type: ignore[typeddict-item]
    )
    serving.site.start_worker("train0")
    wait_for(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "succeeded", 200, every=0.3)
    model = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert model is not None
    sample = Record.objects.filter(kind="sample", data__model="tuned").latest("seq").data
    from tests.webapp.files.given import CHAT

    asked: Any = CHAT["messages"][:2]
    answer = client.chat.completions.create(model=model, messages=asked, max_tokens=16, temperature=0).choices[0].message.content
    assert answer is not None
    # The archive holds no NUL (PostgreSQL's JSON cannot).
    assert answer.strip().replace("\x00", "\ufffd") == sample["answer"].strip()
    base = client.chat.completions.create(model=MODEL, messages=asked, max_tokens=16, temperature=0).choices[0].message.content
    assert base != answer
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=f"{model}:ckpt-step-6", messages=asked)


def test_what_is_refused_and_a_process_that_dies(serving: World, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    for change, param in (
        ({"n": 2}, "n"), ({"stop": ["a"] * 5}, "stop"), ({"temperature": 3}, "temperature"), ({"top_logprobs": 2}, "top_logprobs"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x" * 900}]}, "messages"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **change})
        assert refused.value.param == param
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=400, stream=True)
    next(iter(stream))
    (process,) = processes(serving)
    process.kill()
    with pytest.raises(openai.APIError, match="died"):
        list(stream)
    assert client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2, temperature=0).choices[0].message.content == alone(
        serving, 2
    )
    # The process goes with the worker that started it, and whoever waits is told, another worker or not.
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=400, stream=True)
    next(iter(stream))
    serving.site.kill("serve")
    wait_for(lambda: not processes(serving), 10)
    serving.site.start_worker("serve2", queue="serve")
    with pytest.raises(openai.APIError, match="has died"):
        list(stream)


def test_where_training_goes_first_a_question_waits_for_it(serving: World, client: OpenAI) -> None:
    file = sent(client)
    serving.site.kill("web")
    serving.site.environment["GRAFT_SERVING"] = "idle"
    try:
        start_web(serving.site)
        own = serving.client()
        job = own.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
        with pytest.raises(openai.InternalServerError) as refused:
            own.chat.completions.create(model=MODEL, messages=HELLO)
        assert (refused.value.code, refused.value.response.headers["retry-after"]) == ("training_first", "60")
        own.fine_tuning.jobs.cancel(job.id)
        assert own.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2).choices[0].message.content is not None
    finally:
        serving.site.environment.pop("GRAFT_SERVING")
        serving.site.kill("web")
        start_web(serving.site)
