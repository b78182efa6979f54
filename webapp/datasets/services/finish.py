"""Use case: an upload has all its bytes."""

from __future__ import annotations

import hashlib

from jobs.errors import UserError
from webapp.datasets.models import Upload


def finish(upload: Upload) -> Upload:
    """Reads the file's SHA-256 and marks the upload complete; done twice it changes nothing. Raises `UserError("upload_incomplete")`."""
    if upload.state == Upload.State.COMPLETE:
        return upload
    if upload.bytes_received != upload.bytes_total:
        raise UserError("upload_incomplete", name=upload.filename)
    with upload.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    Upload.objects.filter(pk=upload.pk, state=Upload.State.RECEIVING).update(state=Upload.State.COMPLETE, sha256=sha256)
    upload.refresh_from_db()
    return upload
