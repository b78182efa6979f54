"""What a model's chat template makes of a short conversation. The template is a stranger's program: for a bounded process alone.

It is compiled by transformers' own sandbox (immutable, with the holes of Jinja's mended), never by a plain environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.errors import UserError
from jobs.models.description import special_tokens
from jobs.models.inspect import CHAT_TEMPLATE_BYTES

CONVERSATION = (
    {"role": "system", "content": "You answer in one sentence."},
    {"role": "user", "content": "What is a base model?"},
    {"role": "assistant", "content": "A model that a training starts from."},
    {"role": "user", "content": "And an adapter?"},
)
MOST_CHARACTERS = 20_000


def read_template(folder: Path) -> str | None:
    """The chat template of the model in `folder`; of several the one called `default`. None where there is none."""
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        file = folder / name
        body = json.loads(file.read_bytes()) if file.is_file() else {}
        template = body.get("chat_template") if isinstance(body, dict) else None
        if isinstance(template, list):
            named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
            template = named.get("default") or next(iter(named.values()), None)
        if isinstance(template, str) and template:
            return template
    return None


def preview_chat(folder: Path) -> dict[str, Any] | None:
    """`{"text", "without_system", "refusal"}`: the conversation as the model reads it, its own answer to come. None without a template.

    Many templates take no system message: it is then left out, and `without_system` says so. Where the template takes no conversation at
    all, `text` is empty and `refusal` holds its words. Raises `UserError("model_unusable")` where it reaches for what it must not.
    """
    template = read_template(folder)
    if template is None:
        return None
    if len(template.encode()) > CHAT_TEMPLATE_BYTES:
        raise _refused(f"its chat template is larger than {CHAT_TEMPLATE_BYTES:,} bytes")
    tokens, refusal = special_tokens(folder), ""
    for without_system in (False, True):
        try:
            text = _render(template, list(CONVERSATION[1 if without_system else 0 :]), tokens)
        except _TemplateRefusal as refused:
            refusal = str(refused)
            continue
        return {"text": text[:MOST_CHARACTERS], "without_system": without_system, "refusal": ""}
    return {"text": "", "without_system": False, "refusal": refusal}


class _TemplateRefusal(Exception):
    """The template does not take this conversation."""


def _render(template: str, messages: list[dict[str, str]], tokens: dict[str, str]) -> str:
    from jinja2.exceptions import SecurityError, TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered, _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=True, **tokens)
    except SecurityError as failure:
        raise _refused(f"its chat template reaches for what it must not: {_first_line(failure)}") from None
    except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError) as failure:
        raise _TemplateRefusal(_first_line(failure)) from None
    return str(rendered[0])


def _refused(reason: str) -> UserError:
    return UserError("model_unusable", reason=reason, where={"file": "chat template"})


def _first_line(failure: BaseException) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0][:300]
