"""The API's document: what ninja writes of the operations, with the refusals of each and the links between them."""

from __future__ import annotations

from typing import Any

from ninja.openapi.schema import OpenAPISchema

from webapp.api.errors import ErrorObject

_REFUSALS = {
    "400": "The request cannot be done as it is.",
    "401": "No API token, or one that opens nothing.",
    "403": "The token's scopes or its maker's role do not allow this.",
    "404": "There is nothing of this id that the team can see.",
    "409": "Something else is in the way.",
    "413": "The request is too large.",
    "422": "The Idempotency-Key came with another request before.",
    "429": "The token has asked too often, or the server is full; see Retry-After.",
    "500": "The server failed.",
    "501": "Not part of this server.",
    "503": "A part of the server is away; see Retry-After.",
    "507": "The server's disk is full.",
}
# Answers that are files: by Range, or not changed since. With what they hold.
_FILES = {"downloadFile": ("application/octet-stream", "text/csv"), "downloadArtifact": ("application/zip",)}
# From the answer of one operation to the next: parameter, and where its value stands in the answer.
_LINKS: dict[str, dict[str, tuple[str, str]]] = {
    "createFile": {
        "retrieveFile": ("file_id", "$response.body#/id"),
        "downloadFile": ("file_id", "$response.body#/id"),
        "deleteFile": ("file_id", "$response.body#/id"),
    },
    "createUpload": {
        "addUploadPart": ("upload_id", "$response.body#/id"),
        "completeUpload": ("upload_id", "$response.body#/id"),
        "cancelUpload": ("upload_id", "$response.body#/id"),
    },
    "createFineTuningJob": dict.fromkeys(
        (
            "retrieveFineTuningJob",
            "cancelFineTuningJob",
            "pauseFineTuningJob",
            "resumeFineTuningJob",
            "listFineTuningEvents",
            "listFineTuningJobCheckpoints",
        ),
        ("job_id", "$response.body#/id"),
    ),
    "listFineTuningJobs": {
        "retrieveFineTuningJob": ("job_id", "$response.body#/last_id"),
        "listFineTuningEvents": ("job_id", "$response.body#/last_id"),
        "listFineTuningJobCheckpoints": ("job_id", "$response.body#/last_id"),
    },
    "listFiles": {"retrieveFile": ("file_id", "$response.body#/last_id"), "downloadFile": ("file_id", "$response.body#/last_id")},
    "listModels": {"retrieveModel": ("model", "$response.body#/data/0/id")},
    "listArtifacts": {
        "retrieveArtifact": ("artifact_id", "$response.body#/last_id"),
        "downloadArtifact": ("artifact_id", "$response.body#/last_id"),
    },
    "listDatasets": {"retrieveDataset": ("dataset_id", "$response.body#/last_id")},
    "listBaseModels": {"retrieveBaseModel": ("base_id", "$response.body#/last_id")},
}  # fmt: skip


def complete(document: OpenAPISchema) -> OpenAPISchema:
    """Adds the refusals, the links and the kinds of files to ninja's document."""
    schemas = document["components"].setdefault("schemas", {})
    whole = ErrorObject.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= whole.pop("$defs")
    schemas["ErrorObject"] = whole
    for path in document["paths"].values():
        for operation in path.values():
            _complete(operation)
    return document


def _complete(operation: dict[str, Any]) -> None:
    responses, name = operation["responses"], operation["operationId"]
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorObject"}}}
    responses |= {code: {"description": words, "content": refusal} for code, words in _REFUSALS.items() if code not in responses}
    if name in _FILES:
        content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _FILES[name]}
        responses["200"] = {"description": "The bytes.", "content": content}
        responses["206"] = {"description": "The part that was asked for by Range.", "content": content}
        responses["304"] = {"description": "Not changed."}
        responses["416"] = {"description": "The Range lies behind the end.", "content": refusal}
    links = {
        f"{name}-{target}": {"operationId": target, "parameters": {parameter: place}}
        for target, (parameter, place) in _LINKS.get(name, {}).items()
    }
    for code in [code for code in responses if str(code).startswith("2")]:
        if links:
            responses[code]["links"] = links
