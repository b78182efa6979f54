"""Refusals of what was sent, as the API says them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import GraftError
from webapp.api.errors import ApiError
from webapp.datasets.services.receive_part import PartRefused
from webapp.files.services.uploads import UploadRefused

# Refusals that are not about what the file holds: status and code.
_OTHER = {"upload_too_large": 413, "quota_storage": 403, "file_empty": 400}


@contextmanager
def said_of(param: str) -> Iterator[None]:
    """Turns what the services raise into `ApiError`; `param` is the field that holds the file."""
    try:
        yield
    except UploadRefused as refused:
        raise ApiError(400, refused.message, code="invalid_upload", param=refused.param or None) from None
    except PartRefused as refused:
        raise ApiError(refused.status if refused.status in (409, 413, 507) else 400, str(refused), param=param) from None
    except GraftError as error:
        code = error.code if error.code in _OTHER else "invalid_file_format"
        raise ApiError(_OTHER.get(error.code, 400), f"{error.message} {error.remedy}".strip(), code=code, param=param) from None
