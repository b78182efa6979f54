"""Use case: an upload is not wanted any more."""

from __future__ import annotations

from django.db.models import ProtectedError

from webapp.datasets.models import Upload


def discard_upload(upload: Upload) -> bool:
    """Removes the row, then the file. False, and nothing done, where a dataset version stands on it."""
    path = upload.path
    try:
        upload.delete()
    except ProtectedError:
        return False
    path.unlink(missing_ok=True)
    return True
