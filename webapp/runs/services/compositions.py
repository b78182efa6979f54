"""Between compositions as runs and what the engine composes: what is known of a finished adapter, and the spec of a composition as it is
stored (runs by id, no path of a host) and as its child gets it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from jobs.composition.rules import Finished
from jobs.composition.spec import CompositionSpec
from jobs.methods.registry import METHODS, get_method
from jobs.spec import DataSpec, RunSpec
from webapp.accounts.models import Team
from webapp.datasets.models import DatasetVersion
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services.specs import SPLITS, adapter_of, with_adapters


@dataclass(frozen=True)
class Origin:
    """What a composition takes over from the run of its first adapter, so that it is measured as that run was: rows and the seed they were
    set aside by, bits of the base, lengths and precision.
    """

    data: Mapping[str, Any]
    split_seed: int
    base_bits: int
    measured: Mapping[str, Any]


def composable(team: Team) -> QuerySet[Run]:
    """The finished runs of a team that left an adapter of a method that there is, newest first, with all that is looked at."""
    return with_adapters(team).filter(method__in=METHODS).select_related("base_model", "dataset_version__dataset").order_by("-created_at")


def finished(run: Run) -> Finished:
    """What is known of a run's adapter; of a composed one not its settings."""
    trained = run.spec if run.kind != Kind.COMPOSE else {}
    settings, task = trained.get("method", {}).get("settings", {}), trained.get("task", "causal_lm")
    return Finished(method=get_method(run.method), settings=settings, task=task, base_id=str(run.base_model_id), base=run.base_model.name)


def origin(run: Run) -> Origin:
    """How a run, trained or composed, was measured."""
    if run.kind == Kind.COMPOSE:
        spec = CompositionSpec.from_json(run.spec)
        seed = spec.seed if spec.split_seed is None else spec.split_seed
        measured = {"max_length": spec.max_length, "loss_on": spec.loss_on, "precision": spec.precision}
        return Origin(asdict(spec.data) if spec.data else {"train": ""}, seed, spec.base_bits, measured)
    trained = RunSpec.from_json(run.spec)
    training = trained.training
    measured = {"max_length": training.max_length, "loss_on": training.loss_on, "precision": training.precision}
    method = get_method(trained.method.id)
    bits = method.base_bits(method.resolve(dict(trained.method.settings)))
    return Origin(asdict(trained.data), trained.seed, bits, measured)


def rows_to_measure_on(version: DatasetVersion, parts: Sequence[Run]) -> tuple[Mapping[str, Any], int | None]:
    """The rows of a version to measure on, and the seed they are set aside by (None: nothing is).

    Where an adapter was trained on that version, the rows that its run held out: others it has seen. Else the version's own test or
    validation rows, and where it has none, all of them.
    """
    for run in parts:
        if run.dataset_version_id == version.id:
            found = origin(run)
            return found.data, found.split_seed
    files = {split: entry["file"] for split in SPLITS if (entry := version.manifest.get(split))}
    held_out = files if len(files) > 1 else {**files, "test": files["train"]}
    return asdict(DataSpec(**held_out, validation_share=0.0)), None


def for_worker(run: Run) -> dict[str, Any]:
    """The stored spec with the absolute paths of this host, as JSON; adapters are the zips of the runs that stand in it by id."""
    spec = CompositionSpec.from_json(run.spec)
    return replace(
        spec,
        model=replace(spec.model, path=str(run.base_model.folder.resolve())),
        adapters=[replace(part, path=str(adapter_of(part.path))) for part in spec.adapters],
        data=spec.data.below(run.dataset_version.folder.resolve()) if spec.data else None,
    ).to_json()


def parts_of(run: Run) -> list[tuple[UUID, str, float]]:
    """The adapters of a composition in order: the id of the run, its name when it was composed, its weight."""
    return [(UUID(part["path"]), part["name"], part["weight"]) for part in run.spec["adapters"]]
