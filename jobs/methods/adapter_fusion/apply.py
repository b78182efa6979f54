"""AdapterFusion upon a model: finished bottleneck adapters read from their folders, and an attention over them at each place."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from jobs.adapter_files import CONFIG, WEIGHTS
from jobs.errors import UserError
from jobs.methods.adapter_fusion.entry import ADAPTER_FUSION
from jobs.methods.bottlenecks import BLOCK, BOTTLENECK, Form
from jobs.methods.setup import Setup
from jobs.methods.tuning import adapted

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Finished:
    """A finished bottleneck adapter: its form, the weights of its block by place (the name of a layer of the model), and which layers
    read the modules' inputs, where it is parallel. What else is in its folder, as the head of its task, is not fused.
    """

    form: Form
    blocks: dict[str, dict[str, Tensor]]
    inputs: dict[str, str]


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with the adapters of `setup.adapters` and an attention over them. Step 0 is about their mean, not the base.

    Raises `UserError`: `adapter_unusable` where one is of another kind or another base than they may be, `method_cannot`.
    """
    del settings
    from jobs.methods.adapter_fusion.tuner import FusionConfig

    adapters = [read_adapter(folder) for folder in setup.adapters]
    places = adapters[0].blocks.keys()
    for folder, adapter in zip(setup.adapters, adapters, strict=True):
        if adapter.blocks.keys() != places:
            raise _unusable(folder, "it has adapters at other places than the first one; fuse runs of one placement")
        if missing := places - {name for name, _ in model.named_modules()}:
            raise _unusable(folder, f"it was made for another base model: this one has no layer {min(missing)}")
    config = FusionConfig(
        fused=[asdict(adapter.form) for adapter in adapters],
        inputs={place: reader for adapter in adapters for place, reader in adapter.inputs.items()},
        target_modules=sorted(places),
    )
    made = adapted(model, config, setup, method=ADAPTER_FUSION.id)
    for number, (folder, adapter) in enumerate(zip(setup.adapters, adapters, strict=True)):
        for place, weights in adapter.blocks.items():
            block = made.get_base_model().get_submodule(place).fusion_blocks["default"][number]
            try:
                block.load_state_dict(weights)
            except RuntimeError as failure:
                raise _unusable(folder, f"its weights at {place} do not fit this base model") from failure
    return made


def read_adapter(folder: Path) -> Finished:
    """The bottleneck adapter in `folder`. Raises `UserError("adapter_unusable")`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config.get("peft_type") != BOTTLENECK:
            raise _unusable(folder, f"it is of the type {config.get('peft_type')}, not a bottleneck adapter")
        form = Form(**config["form"])
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as failure:
        raise _unusable(folder, " ".join(str(failure).split())[:300] or type(failure).__name__) from failure
    if form.kronecker:
        raise _unusable(folder, "Compacter's adapters share factors over the whole model and are not fused")
    blocks: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place, found, part = name.removeprefix(_PREFIX).partition(f".{BLOCK}.")
        if found:
            blocks.setdefault(place, {})[part] = tensor
    return Finished(form, blocks, config.get("inputs", {}))


def _unusable(folder: Path, reason: str) -> UserError:
    return UserError("adapter_unusable", path=folder, reason=reason, where={"field": "method.adapters"})
