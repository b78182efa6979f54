"""Fine-tuning jobs as the API says them, in OpenAI's fields; what is Graft's own stands under `graft`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ninja import Schema
from pydantic import ConfigDict, Field

from webapp.api.models import SUFFIX_LENGTH
from webapp.api.text import Text

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Metadata = Annotated[
    dict[Annotated[Text, Field(max_length=64)], Annotated[Text, Field(max_length=512)]],
    Field(max_length=16),
]


class SupervisedAsked(Schema):
    """The settings of a supervised training."""

    hyperparameters: dict[str, Any] | None = None


class MethodAsked(Schema):
    """How to train. `supervised` alone is known here; the method of Graft's catalogue stands among the hyperparameters."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(max_length=64)
    supervised: SupervisedAsked | None = None


class JobAsked(Schema):
    """A job to be made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "training_file": "file-0123456789abcdef0123456789abcdef"}]
        }
    )

    model: str = Field(min_length=1, max_length=512)
    training_file: str = Field(max_length=64)
    validation_file: str | None = Field(None, max_length=64)
    suffix: Text | None = Field(None, min_length=1, max_length=SUFFIX_LENGTH)
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    metadata: Metadata | None = None
    method: MethodAsked | None = None
    hyperparameters: dict[str, Any] | None = Field(None, description="Deprecated in OpenAI's API; `method` says the same.")
    integrations: list[dict[str, Any]] | None = Field(None, max_length=5)


class JobError(Schema):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class Supervised(Schema):
    """The settings of a supervised training."""

    hyperparameters: dict[str, Any]


class MethodObject(Schema):
    """How a job trains."""

    type: Literal["supervised"] = "supervised"
    supervised: Supervised


class Estimated(Schema):
    """What the run was expected to take: bytes, seconds (null where no worker's speed is known), optimiser steps."""

    memory_bytes: float
    fits: bool
    seconds_low: float | None
    seconds_high: float | None
    steps: int
    disk_bytes: int


class GraftFacts(Schema):
    """What Graft says of a job besides; `estimate` in the answer to one job alone, while the job has not ended."""

    run: str | None
    url: str | None
    method: str
    attempt: int
    step: int
    total_steps: int
    train_loss: float | None
    valid_loss: float | None
    peak_memory_bytes: int | None
    trainable_parameters: int | None
    total_parameters: int | None
    estimate: Estimated | None = None
    artifacts: str | None


class JobObject(Schema):
    """A fine-tuning job."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: Status
    hyperparameters: dict[str, Any]
    method: MethodObject
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    seed: int
    integrations: list[dict[str, Any]]
    metadata: dict[str, str] | None
    error: JobError | None
    graft: GraftFacts


class JobList(Schema):
    """A page of jobs."""

    object: Literal["list"] = "list"
    data: list[JobObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class EventObject(Schema):
    """Something that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class EventList(Schema):
    """A page of events, the newest first."""

    object: Literal["list"] = "list"
    data: list[EventObject]
    has_more: bool


class Metrics(Schema):
    """What was measured at a checkpoint: losses in nats a token."""

    step: int
    train_loss: float | None
    valid_loss: float | None
    valid_mean_token_accuracy: float | None


class CheckpointObject(Schema):
    """A state of the model that was kept while it was trained. `kept`: whether its weights are still there to chat with."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: Metrics
    kept: bool


class CheckpointList(Schema):
    """A page of checkpoints, the newest first."""

    object: Literal["list"] = "list"
    data: list[CheckpointObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
