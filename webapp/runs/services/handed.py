"""What the child of a run is given: the spec of its kind with the paths of this host, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services import compositions
from webapp.runs.services.specs import for_worker


def _of_training(run: Run) -> dict[str, Any]:
    return for_worker(run).to_json()


SPECS: dict[Kind, Callable[[Run], dict[str, Any]]] = {
    Kind.TRAIN: _of_training,
    Kind.COMPOSE: compositions.for_worker,
    Kind.ANALYSE: _of_training,
}


def handed(run: Run) -> dict[str, Any]:
    """The spec, whole. Raises `UserError` where what is stored is of another version."""
    return SPECS[Kind(run.kind)](run)
