"""The adapters of a composition: unpacked, and found to be of one base and one kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.adapter_files import CONFIG, WEIGHTS
from jobs.composition.combinations import unfit
from jobs.composition.spec import BLOCKS, LOW_RANK, CompositionSpec
from jobs.errors import UserError
from jobs.export.archive import unpack
from jobs.models.heads import CAUSAL, read_head


@dataclass(frozen=True)
class Part:
    """One adapter's folder, as peft saves it, with its config."""

    name: str
    weight: float
    folder: Path
    config: Mapping[str, Any]


def read_parts(spec: CompositionSpec, scratch: Path) -> list[Part]:
    """Unpacks the adapters into folders below `scratch` and reads their configs.

    Raises `UserError`: `adapter_unusable` for what is no adapter, `composition_unfit` where they are not of one base and one kind.
    """
    parts = []
    for number, (part, name) in enumerate(spec.named(), 1):
        path = Path(part.path)
        if not path.exists():
            raise UserError("file_missing", path=path, where={"field": f"adapters.{number - 1}.path"})
        folder = unpack(path, scratch / str(number))
        parts.append(Part(name, part.weight, folder, _config(folder, name)))
    _require_one_kind(parts)
    _require_one_base(parts, spec)
    return parts


def _config(folder: Path, name: str) -> Mapping[str, Any]:
    missing = next((file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()), None)
    if missing:
        raise UserError("adapter_unusable", path=name, reason=f"it has no {missing}")
    try:
        config, head = json.loads((folder / CONFIG).read_text(encoding="utf-8")), read_head(folder)
    except ValueError as failure:
        raise UserError("adapter_unusable", path=name, reason=str(failure)[:200]) from None
    if not isinstance(config, dict):
        raise UserError("adapter_unusable", path=name, reason=f"{CONFIG} is not a JSON object")
    if head != CAUSAL or config.get("modules_to_save"):
        raise unfit(f"{name} brings a head or a module that was trained whole, and those cannot be added up", _WRITING)
    return config


_WRITING = "Choose adapters of models that write text, without modules trained whole."


def _require_one_kind(parts: Sequence[Part]) -> None:
    kinds = {str(part.config.get("peft_type")): part.name for part in parts}
    for kind, name in kinds.items():
        if kind not in (LOW_RANK, BLOCKS):
            raise unfit(f"{name} is an adapter of the kind {kind}", "Choose LoRA adapters, or block-sparse ones.")
    if len(kinds) > 1:
        said = ", ".join(f"{name} is {kind}" for kind, name in kinds.items())
        raise unfit(f"they are of different kinds ({said})", "Choose adapters of one kind.")
    tasks = {part.config.get("task_type"): part.name for part in parts if part.config.get("task_type")}
    if len(tasks) > 1:
        raise unfit(f"they are for different tasks ({', '.join(map(str, tasks))})", "Choose adapters of one task.")


def _require_one_base(parts: Sequence[Part], spec: CompositionSpec) -> None:
    """Names and revisions, as far as they are known, must agree; shapes are compared where weights are read."""
    for key, wanted in (("base_model_name_or_path", spec.model.name), ("revision", spec.model.revision)):
        found = {"the base model given": wanted} if wanted else {}
        found |= {part.name: str(part.config[key]) for part in parts if part.config.get(key)}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{name}: {value}" for name, value in found.items())
            raise unfit(f"they are of different bases ({said})", "Choose adapters that were trained upon the same revision of one model.")
