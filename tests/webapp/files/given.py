"""Files for tests, and the steps that bring them in."""

from __future__ import annotations

import io
import json
from typing import Any

from webapp.accounts.models import Team, User
from webapp.datasets.services.validate import validate
from webapp.files.models import File, Purpose
from webapp.files.services.store import store

# The examples of OpenAI's guides: supervised fine-tuning, several turns with weights, function calling.
CHAT = {
    "messages": [
        {"role": "system", "content": "Marv is a factual chatbot that is also sarcastic."},
        {"role": "user", "content": "What's the capital of France?"},
        {"role": "assistant", "content": "Paris, as if everyone doesn't know that already."},
    ]
}
WEIGHTS = {
    "messages": [
        {"role": "system", "content": "Marv is a factual chatbot that is also sarcastic."},
        {"role": "user", "content": "What's the capital of France?"},
        {"role": "assistant", "content": "Paris", "weight": 0},
        {"role": "user", "content": "Can you be more sarcastic?"},
        {"role": "assistant", "content": "Paris, as if everyone doesn't know that already.", "weight": 1},
    ]
}
TOOLS = {
    "messages": [
        {"role": "user", "content": "What is the weather in San Francisco?"},
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call_id",
                    "type": "function",
                    "function": {"name": "get_current_weather", "arguments": '{"location": "San Francisco, USA", "format": "celsius"}'},
                }
            ],
        },
    ],
    "parallel_tool_calls": False,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_current_weather",
                "description": "Get the current weather",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "location": {"type": "string", "description": "The city and country, eg. San Francisco, USA"},
                        "format": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                    },
                    "required": ["location", "format"],
                },
            },
        }
    ],
}
PREFERENCE = {
    "input": {"messages": [{"role": "user", "content": "Hello, can you tell me how cold San Francisco is today?"}]},
    "preferred_output": [{"role": "assistant", "content": "Today in San Francisco, it is not quite cold as expected."}],
    "non_preferred_output": [{"role": "assistant", "content": "It is not particularly cold in San Francisco today."}],
}


def lines(*rows: Any) -> bytes:
    """JSONL, ten times over: OpenAI wants ten examples."""
    return "".join(json.dumps(row) + "\n" for row in rows for _ in range(10)).encode()


def stored(team: Team, user: User, body: bytes, *, name: str = "train.jsonl", purpose: Purpose = Purpose.FINE_TUNE, **more: Any) -> File:
    """The file as the API stores it, before anything in the background."""
    return store(team=team, user=user, filename=name, purpose=purpose, bytes_total=len(body), source=io.BytesIO(body), **more)


def read_rows(file: File) -> File:
    """The file after the worker's task."""
    assert file.dataset_version_id is not None
    validate(file.dataset_version_id)
    return File.objects.select_related("dataset_version").get(pk=file.pk)
