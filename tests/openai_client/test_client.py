"""What programs written for OpenAI do, word for word, with nothing changed but `base_url`."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.flow.site import wait_for
from tests.openai_client.conftest import LONG, MODEL, QUICK, ROWS, World, sent
from tests.webapp.files.given import CHAT, PREFERENCE, TOOLS, WEIGHTS, lines
from webapp.accounts.scopes import Scope
from webapp.notices.services.signing import secret_of
from webapp.notices.services.webhooks import add_webhook
from webapp.runs.models import Run
from webapp.settings.env import PROJECT

pytestmark = pytest.mark.timeout(600)


def supervised(hyperparameters: dict[str, Any]) -> Any:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def ended(client: OpenAI, job_id: str, seconds: float = 200) -> Any:
    def end() -> Any:
        job = client.fine_tuning.jobs.retrieve(job_id)
        return job if job.finished_at else None

    return wait_for(end, seconds, every=0.3)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[tuple[bytes, dict[str, str]]]]]:
    """A real HTTP server that keeps what is posted to it."""
    kept: list[tuple[bytes, dict[str, str]]] = []

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.append((self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Keep)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", kept
    server.shutdown()
    server.server_close()


def test_from_a_file_to_a_tuned_model(world: World, client: OpenAI, receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, kept = receiver
    monkeypatch.setattr("webapp.notices.services.webhooks.check", lambda _url: None)
    webhook = add_webhook(team=world.cast.team, user=world.cast.max, url=url, ended=True, failed=True, style="openai")
    # A process of its own, told that it may call this host.
    world.site.kill("short0")
    world.site.start_worker("short0", queue="short", GRAFT_OUTBOUND_HOSTS="127.0.0.1")

    file = sent(client)
    assert (file.status, file.bytes, file.filename, file.purpose) == ("processed", len(ROWS), "marv.jsonl", "fine-tune")
    assert client.files.content(file.id).read() == ROWS
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        validation_file=file.id,
        suffix="marv",
        seed=3,
        metadata={"for": "test"},
        method=supervised(QUICK),
    )
    assert job.status in ("validating_files", "queued")
    world.site.start_worker("train0")
    job = ended(client, job.id)
    assert (job.status, job.error, job.seed, job.metadata) == ("succeeded", None, 3, {"for": "test"})
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (2, 4)
    assert job.hyperparameters.model_extra["rank"] == 4
    facts = job.model_extra["graft"]
    assert (facts["method"], facts["attempt"], facts["step"], facts["total_steps"]) == ("lora", 1, 6, 6)
    assert facts["trainable_parameters"] > 0 < facts["peak_memory_bytes"]
    assert job.trained_tokens > 0

    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    words = [event.message for event in events][::-1]
    assert words[0] == f"Created fine-tuning job: {job.id}"
    assert words[-1].startswith(f"New fine-tuned model created: {job.fine_tuned_model}")
    assert [event.data["step"] for event in events if "training loss" in event.message] == [6, 5, 4, 3, 2, 1]
    assert len({event.id for event in events}) == len(events)

    points = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [point.step_number for point in points] == [6, 4, 2]
    assert points[0].fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-6"
    table = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
    assert [row["step"] for row in table if row["train_loss"]] == ["1", "2", "3", "4", "5", "6"]
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"] or table[1]["train_loss"])

    names = {model.id for model in client.models.list()}
    assert names == {MODEL, job.fine_tuned_model}
    assert client.models.retrieve(job.fine_tuned_model).owned_by == world.cast.team.slug

    wait_for(lambda: kept, 30)
    body, headers = kept[0]
    event = client.webhooks.unwrap(body, headers, secret=secret_of(webhook))
    assert (event.type, event.data.id) == ("fine_tuning.job.succeeded", job.id)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body.replace(b"succeeded", b"cancelled"), headers, secret=secret_of(webhook))

    # A model is the maintainers' to delete.
    maintainer = world.client(person="max")
    assert maintainer.models.delete(job.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(job.fine_tuned_model)


def test_pause_resume_cancel(world: World, client: OpenAI) -> None:
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=sent(client).id, method=supervised(LONG))
    world.site.start_worker("train0")

    def at_work() -> bool:
        return client.fine_tuning.jobs.retrieve(job.id).model_extra["graft"]["step"] > 2

    wait_for(at_work, 120, every=0.2)
    client.fine_tuning.jobs.pause(job.id)
    wait_for(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "paused", 60, every=0.2)
    paused_at = client.fine_tuning.jobs.retrieve(job.id).model_extra["graft"]["step"]
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    wait_for(lambda: client.fine_tuning.jobs.retrieve(job.id).model_extra["graft"]["step"] > paused_at, 120, every=0.2)
    assert client.fine_tuning.jobs.retrieve(job.id).model_extra["graft"]["attempt"] == 2
    client.fine_tuning.jobs.cancel(job.id)
    assert ended(client, job.id, 60).status == "cancelled"
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.cancel(job.id)
    assert refused.value.code == "run_state"


def test_errors_of_each_class(world: World, client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(openai.AuthenticationError) as unknown:
        OpenAI(base_url=client.base_url, api_key="graft_nonsense", max_retries=0).models.list()
    assert (unknown.value.code, unknown.value.request_id is not None) == ("invalid_api_key", True)
    with pytest.raises(openai.PermissionDeniedError) as scope:
        world.client(Scope.RUNS_READ).files.list()
    assert scope.value.code == "insufficient_scope"
    with pytest.raises(openai.PermissionDeniedError):
        world.client(person="vera").files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    for ask in (lambda: client.fine_tuning.jobs.retrieve("ftjob-abc"), lambda: client.files.retrieve("file-abc"),
                lambda: client.models.retrieve("gpt-4o")):  # fmt: skip
        with pytest.raises(openai.NotFoundError):
            ask()
    file = sent(client)
    with pytest.raises(openai.NotFoundError):
        world.client(person="charlie").files.retrieve(file.id)
    with pytest.raises(openai.BadRequestError) as bad:
        client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, method={"type": "dpo", "dpo": {}})
    assert (bad.value.param, bad.value.code, "dpo" in bad.value.message) == ("method.type", "unsupported_method", True)
    with pytest.raises(openai.BadRequestError) as typo:
        client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, method=supervised({"rnak": 4}))
    assert "Did you mean rank" in typo.value.message
    more = {"extra_headers": {"Idempotency-Key": "once"}}
    client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, **more)
    with pytest.raises(openai.UnprocessableEntityError) as again:
        client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, seed=9, **more)
    assert again.value.code == "idempotency_key_reused"
    with pytest.raises(openai.InternalServerError) as missing:
        client.fine_tuning.alpha.graders.validate(
            grader={"type": "string_check", "name": "x", "input": "a", "reference": "b", "operation": "eq"}
        )
    assert missing.value.status_code == 501
    assert Run.objects.count() == 1


def test_a_full_minute_is_a_rate_limit_error(world: World) -> None:
    world.site.kill("web")
    world.site.environment["GRAFT_API_REQUESTS_PER_MINUTE"] = "5"
    from tests.browser.conftest import start_web

    try:
        start_web(world.site)
        client = world.client()
        with pytest.raises(openai.RateLimitError) as limited:
            _ = [client.models.list() for _ in range(12)]
        assert 0 < int(limited.value.response.headers["retry-after"]) <= 61
        assert limited.value.response.headers["x-ratelimit-limit-requests"] == "5"
    finally:
        world.site.environment.pop("GRAFT_API_REQUESTS_PER_MINUTE")
        world.site.kill("web")
        start_web(world.site)


def test_uploads_in_parts_and_lists_of_files(client: OpenAI) -> None:
    upload = client.uploads.create(bytes=len(ROWS), filename="marv.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    cut = len(ROWS) // 2
    second = client.uploads.parts.create(upload.id, data=ROWS[cut:])
    first = client.uploads.parts.create(upload.id, data=ROWS[:cut])
    whole = client.uploads.complete(upload.id, part_ids=[first.id, second.id])
    assert whole.file is not None
    assert client.files.wait_for_processing(whole.file.id, poll_interval=0.1).status == "processed"
    assert client.files.content(whole.file.id).read() == ROWS
    other = client.uploads.create(bytes=5, filename="a", mime_type="text/plain", purpose="user_data")
    assert client.uploads.cancel(other.id).status == "cancelled"
    more = [client.files.create(file=("a.txt", b"a"), purpose="user_data").id for _ in range(3)]
    assert [file.id for file in client.files.list(limit=2)] == [*more[::-1], whole.file.id]
    assert [file.id for file in client.files.list(purpose="fine-tune")] == [whole.file.id]
    assert client.files.delete(more[0]).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(more[0])


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (lines(CHAT), "processed", ""),
        (lines(WEIGHTS), "processed", ""),
        (lines(TOOLS), "error", "tools"),
        (lines(PREFERENCE), "error", "dpo"),
        (b'{"prompt": 1}\n["no dictionary"]\n', "error", ""),
        (lines({"messages": [{"role": "user", "content": "no answer"}]}), "error", "Line 1"),
        (lines({"messages": [{"role": "robot", "content": "?"}, {"role": "assistant", "content": "!"}]}), "error", "Line 1"),
    ],
    ids=["chat", "weights", "tools", "dpo", "no-dictionaries", "no-answer", "unknown-role"],
)
def test_openais_own_examples_are_taken_or_refused(world: World, client: OpenAI, body: bytes, status: str, says: str) -> None:
    """As OpenAI would, but for tools, on which the engine does not train: their rows are refused, in words."""
    file = sent(client, body)
    assert file.status == status, file.status_details
    assert says in (file.status_details or "")
    if status == "error":
        with pytest.raises(openai.BadRequestError) as refused:
            client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
        assert (refused.value.param, refused.value.code) == ("training_file", "invalid_training_file")


def test_the_asynchronous_client(world: World, client: OpenAI) -> None:
    file = sent(client)

    async def ask() -> tuple[str, list[str], str]:
        async with AsyncOpenAI(base_url=client.base_url, api_key=client.api_key, max_retries=0) as own:
            jobs = await asyncio.gather(*(own.fine_tuning.jobs.create(model=MODEL, training_file=file.id, seed=seed) for seed in range(3)))
            listed = [job.id async for job in own.fine_tuning.jobs.list(limit=1)]
            assert sorted(listed) == sorted(job.id for job in jobs)
            events = [event.message async for event in own.fine_tuning.jobs.list_events(jobs[0].id, limit=1)]
            cancelled = await own.fine_tuning.jobs.cancel(jobs[0].id)
            return jobs[0].id, events, cancelled.status

    job_id, events, status = asyncio.run(ask())
    assert (events[-1], status) == (f"Created fine-tuning job: {job_id}", "cancelled")


def test_the_quick_start_of_the_readme_runs_as_it_stands(world: World, client: OpenAI) -> None:
    text = (PROJECT / "README.md").read_text(encoding="utf-8").split("## From Python, as with OpenAI\n\n")[1].split("\n\n")[0]
    code = "\n".join(line.removeprefix("    ") for line in text.splitlines())
    own = {"http://localhost:8000/v1": str(client.base_url), "graft_...": client.api_key, "examples/": f"{PROJECT}/examples/"}
    for ours, theirs in own.items():
        assert code.count(ours) == 1
        code = code.replace(ours, theirs)
    world.base.repository, world.base.name = "", "SmolLM2-135M-Instruct"
    world.base.save()
    assert len(code.splitlines()) == 5
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 our own README
    job = client.fine_tuning.jobs.list().data[0]
    wait_for(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "queued", 60, every=0.2)


def test_what_the_pages_launch_is_listed_too_and_metadata_filters(client: OpenAI) -> None:
    file = sent(client)
    made = [client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, metadata=mark) for mark in ({"a": "1"}, {"a": "2"})]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"a": "2"})] == [made[1].id]
    assert client.get("/fine_tuning/jobs?metadata=null", cast_to=object)["data"] == []  # type: ignore[index]
    assert json.loads(client.fine_tuning.jobs.with_raw_response.retrieve(made[0].id).text)["object"] == "fine_tuning.job"
