"""The document says all that is answered: schemathesis asks what it allows and follows its links; no answer is a 5xx or undocumented."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openai import OpenAI
from schemathesis import checks

from tests.openai_client.conftest import MODEL, World, sent

pytestmark = pytest.mark.timeout(600)
CHECKS = [
    checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance,
    checks.response_headers_conformance,
]  # fmt: skip
SETTINGS: dict[str, Any] = {
    "deadline": None, "database": None, "derandomize": True, "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}  # fmt: skip


@pytest.fixture
def schema(world: World, client: OpenAI) -> Any:
    """The served document, in a site that has a file, a job and a model; what is not supported answers 501 by design."""
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=sent(client).id, suffix="first")
    client.fine_tuning.jobs.cancel(job.id)
    return schemathesis.openapi.from_url(f"{world.site.url}/v1/openapi.json").exclude(tag="Not supported")


@pytest.fixture
def headers(world: World) -> dict[str, str]:
    return {"Authorization": f"Bearer {world.key(person='alice')}"}


def test_every_operation(schema: Any, headers: dict[str, str]) -> None:
    asked, seen = set(), set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=4, **SETTINGS)
        def probe(case: Any) -> None:
            seen.add(case.call_and_validate(headers=headers, checks=CHECKS).status_code)

        probe()
        asked.add(operation.label)
    assert len(asked) > 25
    assert seen >= {200, 400, 404}


def test_ways_through_the_links(schema: Any, headers: dict[str, str]) -> None:
    seen = []

    class Walk(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": headers}

        def validate_response(self, response: Any, case: Any, additional_checks: Any = None, **more: Any) -> None:
            case.validate_response(response, checks=CHECKS)
            seen.append((case.operation.definition.raw["operationId"], response.status_code))

    Walk.run(settings=settings(max_examples=12, stateful_step_count=6, **SETTINGS))
    assert {status for _operation, status in seen} >= {200, 404}
    followed = {"cancelUpload", "deleteFile", "retrieveFile", "retrieveFineTuningJob", "retrieveModel", "downloadFile"}
    assert len(followed & {operation for operation, status in seen if status == 200}) >= 2
