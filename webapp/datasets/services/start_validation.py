"""Use case: a draft's mapping is settled; every row is to be read."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from django.db import transaction

from jobs.errors import UserError
from jobs.spec import Mapping
from webapp.datasets.models import DatasetVersion
from webapp.work.outbox import SHORT_QUEUE, ring

TASK = "datasets.validate"
State = DatasetVersion.State
# A version that was found wanting may be mapped again, or validated again without its bad rows.
OPEN = (State.DRAFT, State.INVALID)


@dataclass(frozen=True)
class Choices:
    """How rows are made of the files: mapping, what becomes of bad rows, and the shares that are set aside by the seed."""

    mapping: Mapping
    skip_bad_rows: bool = False
    validation_share: float = 0.05
    test_share: float = 0.0
    seed: int = 0


def start_validation(version: DatasetVersion, choices: Choices) -> None:
    """Draft or invalid -> validating, and the doorbell rung. Raises `UserError("version_fixed")` where it is neither."""
    with transaction.atomic():
        settle(version, choices)
        ring(TASK, version.pk, SHORT_QUEUE)


def settle(version: DatasetVersion, choices: Choices) -> None:
    """The state's move alone, for callers that validate at once."""
    changed = DatasetVersion.objects.filter(pk=version.pk, state__in=OPEN).update(
        state=State.VALIDATING,
        mapping=asdict(choices.mapping),
        skip_bad_rows=choices.skip_bad_rows,
        validation_share=choices.validation_share,
        test_share=choices.test_share,
        seed=choices.seed,
        message="",
        report={},
    )
    version.refresh_from_db()
    if changed != 1:
        raise UserError("version_fixed", state=version.get_state_display().lower())


def again_without_bad_rows(version: DatasetVersion) -> None:
    """Validates an invalid version once more by its own mapping, its bad rows left out. Raises `UserError("version_fixed")`."""
    with transaction.atomic():
        invalid = DatasetVersion.objects.filter(pk=version.pk, state=State.INVALID)
        if invalid.update(state=State.VALIDATING, skip_bad_rows=True, message="", report={}) != 1:
            raise UserError("version_fixed", state=version.get_state_display().lower())
        ring(TASK, version.pk, SHORT_QUEUE)
