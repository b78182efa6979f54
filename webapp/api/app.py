"""The API under /v1: OpenAI's endpoints for fine-tuning, and Graft's own in their style. One document describes them all."""

from __future__ import annotations

from typing import Any

from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema

import jobs
from webapp.api import extensions, jobs_api, models_api, unsupported_api
from webapp.api.errors import handle_errors
from webapp.api.openapi import complete
from webapp.files import api as files_api
from webapp.files import uploads_api
from webapp.serving import api as serving_api

_TEXT = (
    "OpenAI's fine-tuning API on your own hardware, and Graft's own resources in the same style. "
    "Every request needs an API token of a team: `Authorization: Bearer graft_...`."
)


class Api(NinjaAPI):
    """ninja's API, whose document also says what is refused and how answers lead on."""

    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        """The OpenAPI 3.1 document."""
        return complete(super().get_openapi_schema(**options))


api = Api(title="Graft", version=jobs.__version__, description=_TEXT, docs_url=None, openapi_url=None, urls_namespace="v1")
_ROUTERS = (
    files_api.router,
    uploads_api.router,
    jobs_api.router,
    models_api.router,
    serving_api.router,
    unsupported_api.router,
    extensions.router,
)
for _router in _ROUTERS:
    api.add_router("", _router)
handle_errors(api)
