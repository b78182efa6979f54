"""What OpenAI's API has no word for, in its style: artifacts, datasets, base models, workers, comparisons."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, QueryDict
from django.utils.timezone import now
from ninja import Query, Router, Schema
from pydantic import Field

from webapp.accounts.access import visible_to
from webapp.accounts.models import Team
from webapp.accounts.scopes import Scope
from webapp.api.auth import needs
from webapp.api.errors import ApiError
from webapp.api.ids import parse
from webapp.api.naming import name_of_base, name_of_run, names_of_bases
from webapp.api.paging import page
from webapp.artifacts.access import get_artifact
from webapp.artifacts.downloads import note
from webapp.catalog.access import get_base_model
from webapp.catalog.models import BaseModel
from webapp.core.http import Slice, file_response
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.runs.compare.page import comparison
from webapp.runs.compare.quantities import quantities_of
from webapp.runs.models import Artifact, Worker
from webapp.runs.workers import Machine, machine_of

router = Router(tags=["Graft"])
COMPARED = 50


class PageQuery(Schema):
    """Which page: what comes `after` an id."""

    after: str | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"


class ArtifactQuery(PageQuery):
    """Artifacts of a run alone, by its id on the pages."""

    run: UUID | None = None


class Listed(Schema):
    """A page; the next begins `after` the `last_id`."""

    object: Literal["list"] = "list"
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileInside(Schema):
    """A file of an artifact's zip."""

    name: str
    bytes: int
    sha256: str


class ArtifactObject(Schema):
    """What a run left behind: a zip of an adapter, a merged model, a model or an analysis."""

    id: str
    object: Literal["artifact"] = "artifact"
    created_at: int
    kind: Literal["adapter", "merged", "model", "analysis"]
    name: str
    bytes: int
    sha256: str
    run: str
    model: str
    files: list[FileInside]


class ArtifactList(Listed):
    """A page of artifacts."""

    data: list[ArtifactObject]


class VersionObject(Schema):
    """One state of a dataset; a `ready` one never changes."""

    id: str
    number: int
    created_at: int
    state: Literal["draft", "validating", "ready", "invalid"]
    sha256: str | None
    rows: dict[str, int]
    format: str | None


class DatasetObject(Schema):
    """A dataset of the team with its versions, the newest first."""

    id: str
    object: Literal["dataset"] = "dataset"
    created_at: int
    name: str
    description: str
    licence: str
    versions: list[VersionObject]


class DatasetList(Listed):
    """A page of datasets."""

    data: list[DatasetObject]


class BaseModelObject(Schema):
    """A base model: `model` is what jobs and chats call it, where it is ready."""

    id: str
    object: Literal["base_model"] = "base_model"
    created_at: int
    name: str
    model: str
    state: Literal["fetching", "ready", "failed"]
    source: str
    repository: str
    revision: str
    licence: str
    parameters: int | None
    context_length: int | None
    tasks: list[str]


class BaseModelList(Listed):
    """Every base model of the team and the site."""

    data: list[BaseModelObject]


class WorkerObject(Schema):
    """A worker of the site; `run` only where it trains one of the team."""

    id: str
    object: Literal["worker"] = "worker"
    name: str
    queue: str
    state: Literal["idle", "busy", "draining", "lost"]
    seen_at: int
    device: dict[str, Any]
    memory_bytes: float | None
    memory_used_bytes: float | None
    run: str | None
    progress: float
    eta_seconds: float | None


class WorkerList(Listed):
    """Every worker."""

    data: list[WorkerObject]


class Compared(Schema):
    """A run with its figures, by name; null where it has none."""

    run: str
    name: str
    method: str
    model: str
    state: str
    figures: dict[str, float | None]


class ComparisonObject(Schema):
    """Runs side by side. `missing`: how many of those asked for are no runs of the team."""

    object: Literal["comparison"] = "comparison"
    data: list[Compared]
    missing: int


@router.get("/artifacts", auth=needs(Scope.RUNS_READ), response=ArtifactList, operation_id="listArtifacts")
def artifacts(request: HttpRequest, query: Query[ArtifactQuery]) -> Any:
    """What the team's runs left behind, the newest first."""
    caller = request.auth  # type: ignore[attr-defined]
    rows = visible_to(caller.user, Artifact.objects.filter(run__team=caller.team), team="run__team")
    rows = rows.select_related("run__base_model", "run__team").defer("run__spec", "run__summary")
    return page(rows.filter(run=query.run) if query.run else rows, _artifact, query.after, query.limit, query.order, prefix="artifact-")


@router.get("/artifacts/{artifact_id}", auth=needs(Scope.RUNS_READ), response=ArtifactObject, operation_id="retrieveArtifact")
def artifact(request: HttpRequest, artifact_id: str) -> ArtifactObject:
    """One artifact with what its zip holds."""
    return _artifact(_get_artifact(request, artifact_id))


@router.get("/artifacts/{artifact_id}/content", auth=needs(Scope.RUNS_READ), operation_id="downloadArtifact")
def download(request: HttpRequest, artifact_id: str) -> HttpResponseBase:
    """The zip, whole or by Range."""
    found = _get_artifact(request, artifact_id)
    note(request, found, found.name, request.auth.user)  # type: ignore[attr-defined]
    return file_response(request, Slice(found.file, 0, found.bytes, found.sha256, found.name, "application/zip"))


@router.get("/datasets", auth=needs(Scope.DATA_READ), response=DatasetList, operation_id="listDatasets")
def datasets(request: HttpRequest, query: Query[PageQuery]) -> Any:
    """The team's datasets, the newest first; a file for fine-tuning is one of them."""
    return page(_datasets(request), _dataset, query.after, query.limit, query.order, prefix="dataset-")


@router.get("/datasets/{dataset_id}", auth=needs(Scope.DATA_READ), response=DatasetObject, operation_id="retrieveDataset")
def dataset(request: HttpRequest, dataset_id: str) -> DatasetObject:
    """One dataset."""
    found = _datasets(request).filter(pk=parse("dataset-", dataset_id)).first()
    if found is None:
        raise Http404
    return _dataset(found)


@router.get("/base_models", auth=needs(Scope.MODELS_READ), response=BaseModelList, operation_id="listBaseModels")
def base_models(request: HttpRequest) -> BaseModelList:
    """What jobs can start from, the team's own first."""
    caller = request.auth  # type: ignore[attr-defined]
    data = [_base(base, name) for name, base in names_of_bases(caller.user, caller.team)]
    return BaseModelList(data=data, has_more=False, **_ends(data))  # type: ignore[arg-type]


@router.get("/base_models/{base_id}", auth=needs(Scope.MODELS_READ), response=BaseModelObject, operation_id="retrieveBaseModel")
def base_model(request: HttpRequest, base_id: str) -> BaseModelObject:
    """One base model, also while it is being fetched."""
    caller = request.auth  # type: ignore[attr-defined]
    base = get_base_model(caller.user, parse("base-", base_id))
    if base.team_id not in (None, caller.team.pk):
        raise Http404
    names = {known.pk: name for name, known in names_of_bases(caller.user, caller.team)}
    return _base(base, names.get(base.pk, name_of_base(base)))


@router.get("/workers", auth=needs(Scope.RUNS_READ), response=WorkerList, operation_id="listWorkers")
def workers(request: HttpRequest) -> WorkerList:
    """Every worker of the site, by name."""
    team: Team = request.auth.team  # type: ignore[attr-defined]
    moment = now()
    data = [_worker(machine_of(worker, team, moment)) for worker in Worker.objects.select_related("run").order_by("name")]
    return WorkerList(data=data, has_more=False, **_ends(data))  # type: ignore[arg-type]


@router.get("/comparisons", auth=needs(Scope.RUNS_READ), response=ComparisonObject, operation_id="compareRuns")
def compare(request: HttpRequest, run: Query[list[UUID]]) -> ComparisonObject:
    """Runs side by side: the figures that the page of comparisons shows, as numbers."""
    if len(run) > COMPARED:
        raise ApiError(400, f"At most {COMPARED} runs are compared at once; these are {len(run)}.", code="invalid_value", param="run")
    asked = QueryDict(mutable=True)
    asked.setlist("run", [str(each) for each in run])
    found = comparison(request.auth.team, asked)  # type: ignore[attr-defined]
    quantities = quantities_of(found.runs, every_figure=True)
    return ComparisonObject(
        data=[
            Compared(
                run=str(each.pk),
                name=each.name,
                method=each.method,
                model=name_of_run(each),
                state=each.state,
                figures={quantity.id: quantity.value(each) for quantity in quantities},
            )
            for each in found.runs
        ],
        missing=found.missing,
    )


def _get_artifact(request: HttpRequest, artifact_id: str) -> Artifact:
    caller = request.auth  # type: ignore[attr-defined]
    found = get_artifact(caller.user, parse("artifact-", artifact_id))
    if found.run.team_id != caller.team.pk:
        raise Http404
    return found


def _artifact(row: Artifact) -> ArtifactObject:
    return ArtifactObject(
        id=f"artifact-{row.pk.hex}",
        created_at=int(row.created_at.timestamp()),
        kind=row.kind,  # type: ignore[arg-type]
        name=row.name,
        bytes=row.bytes,
        sha256=row.sha256,
        run=str(row.run_id),
        model=name_of_run(row.run),
        files=[FileInside(name=str(each["name"]), bytes=int(each["bytes"]), sha256=str(each["sha256"])) for each in row.files],
    )


def _datasets(request: HttpRequest) -> QuerySet[Dataset]:
    caller = request.auth  # type: ignore[attr-defined]
    return visible_to(caller.user, Dataset.objects.filter(team=caller.team)).prefetch_related("versions")


def _dataset(row: Dataset) -> DatasetObject:
    versions = sorted(row.versions.all(), key=lambda version: -version.number)
    return DatasetObject(
        id=f"dataset-{row.pk.hex}",
        created_at=int(row.created_at.timestamp()),
        name=row.name,
        description=row.description,
        licence=row.licence,
        versions=[_version(version) for version in versions],
    )


def _version(row: DatasetVersion) -> VersionObject:
    return VersionObject(
        id=str(row.pk),
        number=row.number,
        created_at=int(row.created_at.timestamp()),
        state=row.state,  # type: ignore[arg-type]
        sha256=row.sha256 or None,
        rows={split: row.rows(split) for split in row.manifest},
        format=(row.mapping or {}).get("format"),
    )


def _base(row: BaseModel, name: str) -> BaseModelObject:
    return BaseModelObject(
        id=f"base-{row.pk.hex}",
        created_at=int(row.created_at.timestamp()),
        name=row.name,
        model=name,
        state=row.state,  # type: ignore[arg-type]
        source=row.source,
        repository=row.repository,
        revision=row.revision,
        licence=row.licence,
        parameters=row.facts.get("parameters"),
        context_length=row.facts.get("context_length"),
        tasks=list(row.facts.get("tasks", ())),
    )


def _worker(machine: Machine) -> WorkerObject:
    worker = machine.worker
    return WorkerObject(
        id=f"worker-{worker.pk.hex}",
        name=worker.name,
        queue=worker.queue,
        state=machine.state,  # type: ignore[arg-type]
        seen_at=int(worker.seen_at.timestamp()),
        device=worker.device,
        memory_bytes=machine.memory_bytes,
        memory_used_bytes=machine.memory_used_bytes,
        run=str(machine.run.pk) if machine.run else None,
        progress=machine.progress if machine.run else 0.0,
        eta_seconds=machine.eta_seconds if machine.run else None,
    )


def _ends(data: list[Any]) -> dict[str, str | None]:
    return {"first_id": data[0].id if data else None, "last_id": data[-1].id if data else None}
