"""What the dispatcher calls now and then: files whose time is over are deleted, uploads that nobody completed are closed."""

from __future__ import annotations

from django.utils import timezone

from webapp.files.models import File, PartedUpload
from webapp.files.services.delete import delete_file
from webapp.files.services.uploads import Status, UploadRefused, close

AT_ONCE = 50


def reconcile() -> None:
    """Idempotent, and safe in several dispatchers at once."""
    now = timezone.now()
    for file in File.objects.filter(deleted_at=None, expires_at__lte=now).select_related("upload", "dataset_version")[:AT_ONCE]:
        delete_file(file, None)
    for upload in PartedUpload.objects.filter(status=Status.PENDING, expires_at__lte=now)[:AT_ONCE]:
        try:
            close(upload, Status.EXPIRED)
        except UploadRefused:
            continue
