"""What OpenAI's API has and this server has not: each answers 501, in OpenAI's shape."""

from __future__ import annotations

from typing import NoReturn

from django.http import HttpRequest
from ninja import Router

from webapp.accounts.scopes import Scope
from webapp.api.auth import needs
from webapp.api.errors import ApiError

router = Router(tags=["Not supported"])
_PERMISSIONS = "/fine_tuning/checkpoints/{path:checkpoint}/permissions"


def _refuse(what: str) -> NoReturn:
    raise ApiError(501, f"{what} are not part of this server.", code="not_implemented", should_retry=False)


@router.get(_PERMISSIONS, auth=needs(Scope.MODELS_READ), operation_id="listCheckpointPermissions")
def permissions(request: HttpRequest, checkpoint: str) -> None:
    """Permissions of checkpoints: here a team's models are the team's."""
    _refuse("Permissions of checkpoints")


@router.post(_PERMISSIONS, auth=needs(Scope.MODELS_WRITE), operation_id="createCheckpointPermission")
def create_permission(request: HttpRequest, checkpoint: str) -> None:
    """Permissions of checkpoints: here a team's models are the team's."""
    _refuse("Permissions of checkpoints")


@router.delete(_PERMISSIONS + "/{permission_id}", auth=needs(Scope.MODELS_WRITE), operation_id="deleteCheckpointPermission")
def delete_permission(request: HttpRequest, checkpoint: str, permission_id: str) -> None:
    """Permissions of checkpoints: here a team's models are the team's."""
    _refuse("Permissions of checkpoints")


@router.post("/fine_tuning/alpha/graders/run", auth=needs(Scope.RUNS_WRITE), operation_id="runGrader")
def run_grader(request: HttpRequest) -> None:
    """Graders belong to reinforcement fine-tuning, which the engine does not have."""
    _refuse("Graders")


@router.post("/fine_tuning/alpha/graders/validate", auth=needs(Scope.RUNS_WRITE), operation_id="validateGrader")
def validate_grader(request: HttpRequest) -> None:
    """Graders belong to reinforcement fine-tuning, which the engine does not have."""
    _refuse("Graders")
