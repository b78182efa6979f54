"""What a team's own finished trainings have shown, for the advice before the next one."""

from __future__ import annotations

from typing import Any

from jobs.errors import UserError
from jobs.methods.registry import get_method
from jobs.planning.outcomes import Outcome
from jobs.spec import TrainingSpec
from webapp.accounts.models import Team
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.states import State

LOOKED_AT = 200


def past_runs(team: Team) -> list[Outcome]:
    """The outcomes of the newest finished trainings of the team, the newest first; of no other team, whoever launched them."""
    runs = Run.objects.filter(team=team, kind=Kind.TRAIN, state=State.SUCCEEDED).select_related("base_model")
    found = (outcome_of(run) for run in runs.order_by("-finished_at")[:LOOKED_AT])
    return [outcome for outcome in found if outcome is not None]


def outcome_of(run: Run) -> Outcome | None:
    """What a finished run has shown; None where it did not measure both models on held-out rows, or its method is no more."""
    plan, latest = run.summary.get("plan") or {}, run.summary.get("latest") or {}
    measured = (run.summary.get("evals") or {}).get("test") or {}
    before, after = ((measured.get(model) or {}).get("loss") for model in ("base", "tuned"))
    peak, seconds, tokens = run.summary.get("peak_memory_bytes"), latest.get("elapsed_seconds"), latest.get("tokens")
    if not (before and after and plan.get("train_rows") and peak and seconds):
        return None
    try:
        settings = _changed_settings(run)
    except UserError:
        return None
    return Outcome(
        name=run.name,
        method=run.method,
        settings=settings,
        training=_changed_training(run.spec["training"]),
        base=run.base_model.name,
        task=run.spec.get("task", "causal_lm"),
        rows=plan["train_rows"],
        loss_before=before,
        loss_after=after,
        seconds=seconds,
        peak_bytes=peak,
        device=(plan.get("device") or {}).get("name", ""),
        tokens_per_second=tokens / seconds if tokens else None,
    )


def _changed_settings(run: Run) -> dict[str, Any]:
    """Those that differ from the defaults of today. Raises `UserError`."""
    defaults = {setting.name: setting.default for setting in get_method(run.method).settings}
    given = run.spec["method"]["settings"]
    return {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}


def _changed_training(given: dict[str, Any]) -> dict[str, Any]:
    defaults = TrainingSpec.__dataclass_fields__
    return {name: value for name, value in given.items() if name in defaults and value != defaults[name].default}
