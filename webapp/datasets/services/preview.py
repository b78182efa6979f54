"""Use case: the first rows of a draft as a mapping would make them."""

from __future__ import annotations

from typing import Any

from jobs.data.formats import mapping_to_json
from jobs.spec import Mapping
from webapp.core.box import QUICK, run_in_box
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.create_upload import suffix_of

ROWS = 5


def preview(version: DatasetVersion, mapping: Mapping, *, skip: int = 0) -> dict[str, Any]:
    """What `python -m jobs preview` says of `ROWS` rows of the training file, after the first `skip`. Raises `BoxRefusal`."""
    upload = version.train_upload
    request = {"mapping": mapping_to_json(mapping), "rows": ROWS, "skip": skip, "suffix": suffix_of(upload.filename)}
    return run_in_box(["preview", str(upload.path), "--json"], request=request, readable={upload.path: upload.filename}, limits=QUICK)
