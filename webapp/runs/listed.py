"""The figures of a run's summary that lists sort and filter by: columns of their own on `Run`, written with the summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webapp.core.formats import number_of
from webapp.runs.figures import headline_column


def listed(summary: Mapping[str, Any]) -> dict[str, float | int | None]:
    """The columns `train_loss eval_loss accuracy peak_memory_bytes` of a summary (`runs.fold`), None where nothing was measured.

    `eval_loss` is the tuned model's on held-out rows, until then the newest of validation; `accuracy` the run's headline (`runs.figures`),
    from 0 to 1, where that is a share.
    """
    evals = summary.get("evals") or {}
    tested = evals.get("test") or {}
    tuned, validation = tested.get("tuned") or {}, evals.get("validation") or {}
    loss = number_of(tuned.get("loss"))
    return {
        "train_loss": number_of((summary.get("latest") or {}).get("loss")),
        "eval_loss": number_of(validation.get("loss")) if loss is None else loss,
        "accuracy": _accuracy(tested),
        "peak_memory_bytes": summary.get("peak_memory_bytes"),
    }


def _accuracy(tested: Mapping[str, Any]) -> float | None:
    column = headline_column([tested[model] for model in ("base", "tuned") if tested.get(model)])
    return column.value(tested.get("tuned")) if column is not None and column.share else None
