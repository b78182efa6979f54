"""Use case: take a whole file at once (a plain form, a file of the host)."""

from __future__ import annotations

from typing import IO

from webapp.accounts.models import Team, User
from webapp.datasets.models import Upload
from webapp.datasets.services.create_upload import create_upload
from webapp.datasets.services.receive_part import receive_part


def store_file(*, team: Team, user: User, filename: str, bytes_total: int, source: IO[bytes]) -> Upload:
    """A complete upload with the bytes of `source`, which holds `bytes_total` bytes. Raises `UserError` as `create_upload`."""
    upload = create_upload(team=team, user=user, filename=filename, bytes_total=bytes_total)
    return receive_part(upload_id=upload.pk, offset=0, read=source.read)
