"""`/v1/models`: base models and what was tuned from them, by the names of `webapp.api.naming`."""

from __future__ import annotations

from typing import Any, Literal

from django.db.models import Exists, OuterRef
from django.http import HttpRequest
from ninja import Router, Schema

from webapp.accounts.models import Team
from webapp.accounts.scopes import Scope
from webapp.api.auth import needs
from webapp.api.errors import ApiError
from webapp.api.naming import Named, find, name_of_checkpoint, name_of_run, names_of_bases, not_found
from webapp.artifacts.services.delete_artifact import delete_artifact
from webapp.catalog.models import BaseModel
from webapp.runs.access import get_run, visible_runs
from webapp.runs.kinds import Kind
from webapp.runs.models import Artifact, Run
from webapp.runs.states import State

router = Router(tags=["Models"])
TUNED_KINDS = (Kind.TRAIN, Kind.COMPOSE)
WEIGHTS = (Artifact.Kind.ADAPTER, Artifact.Kind.MERGED, Artifact.Kind.MODEL)


class ModelFacts(Schema):
    """What Graft says of a model besides: ids of the pages, and for a base model its size in parameters and its context in tokens."""

    base_model: str
    run: str | None = None
    method: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    licence: str | None = None


class ModelObject(Schema):
    """A model that can be asked by its id."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    graft: ModelFacts


class ModelList(Schema):
    """Every model that there is."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class DeletedModel(Schema):
    """A model that is gone."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


@router.get("/models", auth=needs(Scope.MODELS_READ), response=ModelList, operation_id="listModels")
def list_models(request: HttpRequest) -> ModelList:
    """The base models that the team may use, then what its runs have tuned, the newest first."""
    caller = request.auth  # type: ignore[attr-defined]
    bases = [_base(name, base) for name, base in names_of_bases(caller.user, caller.team)]
    runs = with_weights(visible_runs(caller.user).filter(team=caller.team)).select_related("base_model", "team").order_by("-created_at")
    return ModelList(data=[*bases, *(_tuned(name_of_run(run), run) for run in runs.defer("spec", "summary"))])


@router.get("/models/{path:model}", auth=needs(Scope.MODELS_READ), response=ModelObject, operation_id="retrieveModel")
def retrieve(request: HttpRequest, model: str) -> ModelObject:
    """One model: a base model, a tuned one, or one of its checkpoints."""
    return _object(_there(request, model))


@router.delete("/models/{path:model}", auth=needs(Scope.MODELS_WRITE), response=DeletedModel, operation_id="deleteModel")
def delete(request: HttpRequest, model: str) -> DeletedModel:
    """Deletes the weights of a tuned model; its job stays, with its curves."""
    caller = request.auth  # type: ignore[attr-defined]
    named = _there(request, model)
    if named.run is None or named.step is not None:
        raise ApiError(403, f"The model '{model[:200]}' cannot be deleted: only a tuned model as a whole can.", param="model")
    run = get_run(caller.user, named.run.pk, "manage")
    for artifact in Artifact.objects.filter(run=run, kind__in=WEIGHTS).select_related("run__team"):
        delete_artifact(artifact, caller.user)
    return DeletedModel(id=model)


def with_weights(runs: Any) -> Any:
    """Those of the runs that have left a model."""
    left = Artifact.objects.filter(run=OuterRef("pk"), kind__in=WEIGHTS)
    return runs.filter(Exists(left), state=State.SUCCEEDED, kind__in=TUNED_KINDS)


def _there(request: HttpRequest, model: str) -> Named:
    """What the name means, where it has weights. Raises `ApiError` 404."""
    caller = request.auth  # type: ignore[attr-defined]
    named = find(caller.user, caller.team, model)
    if named.run is None:
        return named
    if named.step is not None:
        there = named.run.records.filter(kind="checkpoint", step=named.step).exists()
    else:
        there = with_weights(Run.objects.filter(pk=named.run.pk)).exists()
    if not there:
        raise not_found(model)
    return named


def _object(named: Named) -> ModelObject:
    if named.run is None:
        return _base(named.name, named.base)
    name = name_of_run(named.run) if named.step is None else name_of_checkpoint(named.run, named.step)
    return _tuned(name, named.run)


def _base(name: str, base: BaseModel) -> ModelObject:
    facts = ModelFacts(
        base_model=str(base.pk),
        parameters=base.facts.get("parameters"),
        context_length=base.facts.get("context_length"),
        licence=base.licence or None,
    )
    return ModelObject(id=name, created=int(base.created_at.timestamp()), owned_by=_owner(base.team), graft=facts)


def _tuned(name: str, run: Run) -> ModelObject:
    facts = ModelFacts(base_model=str(run.base_model_id), run=str(run.pk), method=run.method)
    return ModelObject(id=name, created=int(run.created_at.timestamp()), owned_by=_owner(run.team), graft=facts)


def _owner(team: Team | None) -> str:
    return team.slug if team else "system"
