"""From the stored spec of a run to that of its worker and back to the form's fields. No path of a host is ever stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from django.db.models import QuerySet

from jobs.methods.registry import get_method
from jobs.spec import RunSpec, Task
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.memory import smaller
from webapp.runs.models import Artifact, Run
from webapp.runs.states import State

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run is made of. The mappings are the parts of a `jobs.spec.RunSpec`; what they leave out takes its default."""

    name: str
    dataset_version: DatasetVersion
    base_model: BaseModel
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    adapters: Sequence[Run] = ()
    task: Task = "causal_lm"
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    validation_share: float = 0.0

    def spec(self) -> RunSpec:
        """The whole spec, names in the place of paths. Raises `UserError` for what no run can have."""
        # The defaults are written out: a later version of the catalogue must not change what this run means.
        resolved = get_method(self.method).resolve(self.settings)
        return placeholder_spec(
            {
                "task": self.task,
                "method": {"id": self.method, "settings": resolved, "adapters": [str(run.id) for run in self.adapters]},
                "training": dict(self.training),
                "evaluation": dict(self.evaluation),
                "export": dict(self.export),
                "seed": self.seed,
                "name": self.name.strip(),
            },
            self.dataset_version,
            self.base_model,
            self.validation_share,
        )


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
    """The run's spec with the absolute paths of this host; adapters are the zips of the runs that stand in it by id, and the micro-batch is
    the one that it has come down to.
    """
    spec = RunSpec.from_json(run.spec)
    data = spec.data.below(run.dataset_version.folder.resolve())
    method = replace(spec.method, adapters=[str(adapter_of(name)) for name in spec.method.adapters])
    model = replace(spec.model, path=str(run.base_model.folder.resolve()))
    return replace(spec, model=model, data=data, method=method, training=smaller(spec.training, run.memory_cuts))
