"""From the stored spec of a run to that of its worker and back to the form's fields. No path of a host is ever stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from django.db.models import QuerySet

from jobs.spec import RunSpec
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.models import Artifact, Run
from webapp.runs.states import State

SPLITS = ("train", "validation", "test")


def placeholder_spec(parts: dict[str, Any], version: DatasetVersion, base_model: BaseModel, validation_share: float) -> RunSpec:
    """The whole spec of the given parts, names in the place of paths. Raises `UserError` that names the field at fault."""
    files = {split: entry["file"] for split in SPLITS if (entry := version.manifest.get(split))}
    # Rows are set aside here only where the version brings none of its own.
    share = 0.0 if "validation" in files else validation_share
    model = {"path": "model", "name": base_model.name, "revision": base_model.revision, "licence": base_model.licence}
    return RunSpec.from_json({**parts, "model": model, "data": {**files, "validation_share": share}})


def with_adapters(team: Team) -> QuerySet[Run]:
    """The finished runs of a team that left an adapter to build on."""
    return Run.objects.filter(team=team, state=State.SUCCEEDED, artifacts__kind=Artifact.Kind.ADAPTER).distinct()


def adapter_of(run_id: str) -> Path:
    """The zip of a run's newest adapter; where the run was deleted, a place where none is, so that the training says what is missing."""
    artifact = Artifact.objects.filter(run_id=run_id, kind=Artifact.Kind.ADAPTER).order_by("-attempt").first()
    return artifact.file.resolve() if artifact else Run(id=run_id).folder.resolve() / "adapter.zip"


def for_worker(run: Run) -> RunSpec:
    """The run's spec with the absolute paths of this host; adapters are the zips of the runs that stand in it by id."""
    spec = RunSpec.from_json(run.spec)
    data = spec.data.below(run.dataset_version.folder.resolve())
    method = replace(spec.method, adapters=[str(adapter_of(name)) for name in spec.method.adapters])
    return replace(spec, model=replace(spec.model, path=str(run.base_model.folder.resolve())), data=data, method=method)


def parameters_of(run: Run) -> dict[str, Any]:
    """What `create_run` needs, less team and user, to launch the same run again."""
    spec = run.spec
    return {
        "name": run.name,
        "dataset_version": run.dataset_version,
        "base_model": run.base_model,
        "method": run.method,
        "task": spec.get("task", "causal_lm"),
        "settings": dict(spec["method"]["settings"]),
        "adapters": list(with_adapters(run.team).filter(pk__in=spec["method"].get("adapters", []))),
        "training": dict(spec["training"]),
        "evaluation": dict(spec["evaluation"]),
        "export": dict(spec["export"]),
        "seed": spec["seed"],
        "validation_share": spec["data"]["validation_share"],
    }
