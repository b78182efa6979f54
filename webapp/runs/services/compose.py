"""Combine finished adapters of one base: check what is known of them, then queue a run that makes them one and measures it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.composition.combinations import COMBINATIONS
from jobs.composition.rules import difference, misfit, obstacle, unequal
from jobs.composition.spec import BLOCKS, CompositionSpec
from jobs.errors import UserError
from jobs.methods.registry import get_method
from webapp.accounts.models import Team, User
from webapp.datasets.models import DatasetVersion
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services.compositions import composable, finished, origin, rows_to_measure_on
from webapp.runs.services.create import check_devices, check_inputs
from webapp.runs.services.queueing import queue_run


def compose_run(
    *,
    team: Team,
    user: User,
    name: str,
    parts: Sequence[tuple[Run, float]],
    combination: str,
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
    dataset_version: DatasetVersion | None = None,
    evaluation: dict[str, Any] | None = None,
    export: dict[str, Any] | None = None,
) -> Run:
    """Queues the composition of `parts`, finished runs of `team` with their weights, measured on `dataset_version` (None: as the first of
    them was). What `evaluation` and `export` leave out takes its default, merging its own: none.

    Raises `UserError`, whose `where["field"]` names the field at fault, before anything is written.
    """
    runs = [run for run, _ in parts]
    _check_parts(team, runs, combination)
    first = runs[0]
    version = dataset_version or first.dataset_version
    check_inputs(team, name, version, first.base_model)
    known = origin(first)
    data, split_seed = (known.data, known.split_seed) if dataset_version is None else rows_to_measure_on(dataset_version, runs)
    base = first.base_model
    spec = CompositionSpec.from_json(
        {
            "model": {"path": "model", "name": base.name, "revision": base.revision, "licence": base.licence},
            "adapters": [{"path": str(run.id), "weight": weight, "name": run.name} for run, weight in parts],
            "combination": combination,
            "rank": rank,
            "density": density,
            "seed": seed,
            "split_seed": split_seed,
            "base_bits": known.base_bits,
            "data": dict(data),
            "evaluation": evaluation or {},
            "export": {"merge": "none", **(export or {})},
            "name": name.strip(),
            **known.measured,
        }
    )
    kind = finished(first).kind
    as_run = spec.as_run(kind)
    check_devices(get_method(as_run.method.id), as_run)
    return queue_run(
        kind=Kind.COMPOSE,
        team=team,
        user=user,
        name=name.strip(),
        dataset_version=version,
        base_model=base,
        method="block_sparse" if kind == BLOCKS else "lora",
        spec=spec.to_json(),
    )


def _check_parts(team: Team, runs: Sequence[Run], combination: str) -> None:
    """Refuses adapters that are not the team's, that cannot be combined, or not so."""
    if len(runs) < 2:
        raise _refused("there must be two at least", "Choose another one.", "adapters")
    theirs = set(composable(team).filter(pk__in=[run.pk for run in runs]).values_list("pk", flat=True))
    known = [finished(run) for run in runs]
    for run, adapter in zip(runs, known, strict=True):
        if run.pk not in theirs:
            raise _refused(f"{run.name} has left no adapter in this team", "Choose finished runs of this team.", "adapters")
        if reason := obstacle(adapter) or difference(adapter, known[0]):
            raise _refused(f"{run.name}: {reason}", "Leave it out.", "adapters")
    if combination not in COMBINATIONS:
        raise _refused(f"there is no combination {combination}", f"Choose one of {', '.join(COMBINATIONS)}.", "combination")
    if reason := misfit(combination, known[0].kind):
        raise _refused(reason, "Choose concatenation.", "combination")
    if reason := unequal(COMBINATIONS[combination], known):
        raise _refused(reason, "Choose concatenation, or a combination of updates.", "combination")


def _refused(reason: str, instead: str, field: str) -> UserError:
    return UserError("composition_unfit", reason=reason, instead=instead, where={"field": field})
