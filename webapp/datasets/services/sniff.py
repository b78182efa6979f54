"""Use case: recognise a file: kind, encoding, separator, columns, and which layout of rows it may be."""

from __future__ import annotations

from typing import Any

from webapp.core.box import QUICK, run_in_box
from webapp.datasets.models import Upload
from webapp.datasets.services.create_upload import suffix_of


def sniff(upload: Upload) -> dict[str, Any]:
    """What `python -m jobs sniff` says of a complete upload. It reads the beginning alone, so size matters little.

    Raises `BoxRefusal`, its place named by the name that the file came with.
    """
    suffix = suffix_of(upload.filename)
    arguments = ["sniff", str(upload.path), "--json", *(("--suffix", suffix) if suffix else ())]
    return run_in_box(arguments, readable={upload.path: upload.filename}, limits=QUICK)
