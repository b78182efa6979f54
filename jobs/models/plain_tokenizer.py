"""A model's tokenizer and chat template without torch: enough to show what a row becomes, and how long it is.

The ids are those of `tokenizer.json`, by the library that transformers uses as well, and templates are rendered by transformers' own
renderer. What transformers changes in a tokenizer while it loads it (some classes build their own pre-tokenizer) is not known here;
`tests/jobs/models/test_plain_tokenizer.py` compares the two on every tokenizer that the tests have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.errors import UserError
from jobs.models.templates import FALLBACK_TEMPLATE

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class PlainTokenizer:
    """What `jobs.data.encoding` asks of a tokenizer. `template_from`: whose the chat template is, the `model`'s or our `fallback`."""

    def __init__(self, backend: Any, settings: Mapping[str, Any], template: str) -> None:
        self.backend_tokenizer = backend
        self.special_tokens_map = {name: text for name in _SPECIAL if (text := _text(settings.get(name)))}
        self.template_from = "model" if template else "fallback"
        self.chat_template = template or FALLBACK_TEMPLATE
        self.eos_token = self.special_tokens_map.get("eos_token", "")
        end = backend.token_to_id(self.eos_token) if self.eos_token else None
        # Where a model has no end-of-sequence token no row is given one.
        self.eos_token_id = -1 if end is None else int(end)

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str:
        """The chat as text; `tokenize` is there for transformers' sake and must be false."""
        from transformers.utils.chat_template_utils import render_jinja_template

        if tokenize:
            raise ValueError("a plain tokenizer renders text alone")
        chats = [[dict(message) for message in messages]]
        texts, _ = render_jinja_template(
            chats, chat_template=self.chat_template, add_generation_prompt=add_generation_prompt, **self.special_tokens_map
        )
        return str(texts[0])


def load_plain_tokenizer(folder: Path) -> PlainTokenizer:
    """The tokenizer of a model's folder. Raises `UserError`: `model_missing`, `model_unusable`."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError("model_missing", path=folder)
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as failure:  # the library raises a bare Exception for whatever it cannot read
        raise UserError("model_unusable", reason=f"its tokenizer does not load: {str(failure)[:200]}") from failure
    settings = _settings(folder)
    return PlainTokenizer(backend, settings, _template(folder, settings))


def _settings(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json`, filled up from `special_tokens_map.json` where that is there."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            try:
                body = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as failure:
                raise UserError("model_unusable", reason=f"its {name} is not JSON: {failure}") from failure
            settings |= {key: value for key, value in body.items() if value is not None} if isinstance(body, dict) else {}
    return settings


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    """The chat template, from the three places where models keep it; of several the one that is called `default`."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    path = folder / "chat_template.json"
    if path.is_file():
        body = json.loads(path.read_text(encoding="utf-8"))
        found = body.get("chat_template") if isinstance(body, dict) else None
    if isinstance(found, list):
        found = next((one.get("template") for one in found if isinstance(one, dict) and one.get("name") == "default"), None)
    return found if isinstance(found, str) else ""


def _text(token: Any) -> str:
    """A special token's text, as older files write it or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""
