"""Use case: one row of a ready version as a base model sees it, made in the box."""

from __future__ import annotations

from typing import Any

from jobs.spec import LossOn
from webapp.catalog.models import BaseModel
from webapp.core.box import QUICK, run_in_box
from webapp.datasets.models import DatasetVersion


def see_row(
    version: DatasetVersion, base_model: BaseModel, split: str, row: int, *, loss_on: LossOn = "completion", max_length: int | None = None
) -> dict[str, Any]:
    """What `python -m jobs see` says of row `row` (from 0) of a split. Raises `BoxRefusal`, also where the template refuses the row."""
    file = version.folder / f"{split}.jsonl"
    return run_in_box(
        ["see", str(base_model.folder), str(file), "--json"],
        request={"row": row, "loss_on": loss_on, "max_length": max_length or 0},
        readable={base_model.folder: base_model.name, version.folder: str(version)},
        limits=QUICK,
    )
