"""An adapter as a folder that plain `peft` loads: weights, config, tokenizer with chat template, model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.adapter_files import CONFIG
from jobs.export.context import ExportContext
from jobs.models.heads import write_head

CARD = "README.md"


def save_adapter(context: ExportContext, folder: Path, card: str) -> None:
    """Writes the adapter of `context.model` into a new `folder`.

    Its config names the base model as the spec does, never by a path of this machine. The tokenizer and its chat template come along:
    an adapter answers as measured only behind the template it was trained with.
    """
    folder.mkdir(parents=True)
    context.hooks.save(folder)
    file = folder / CONFIG
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = context.spec.model.name or None
    config["revision"] = context.spec.model.revision or None
    config["inference_mode"] = True
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_head(context.head, folder)
    context.tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(card, encoding="utf-8")
