"""What a LoRA of another start needs beyond its layers: its start is kept in every checkpoint, and taken out of what is saved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from jobs.adapter_files import CONFIG, WEIGHTS
from jobs.methods.entry import SettingValue
from jobs.methods.hooks import Hooks
from jobs.methods.lora.apply import KEPT_RANK
from jobs.methods.lora.layers import ADAPTER, Factors, factors, lora_layers, set_factors
from jobs.methods.lora.starts import MOVING
from jobs.methods.setup import Setup


class LoraHooks(Hooks):
    """Of all presets but AdaLoRA. `started` holds the A and B that a run began with, by layer, where they are no plain start."""

    def __init__(self, model: Any = None, settings: Mapping[str, SettingValue] | None = None, setup: Setup | None = None) -> None:
        super().__init__(model, settings, setup)
        self.start = str(self.settings.get("start", "default"))
        self.started: dict[str, Factors] = {}
        if self.start in (*MOVING, "loftq"):
            for name, layer in lora_layers(model):
                down, up = factors(layer)
                self.started[name] = (down.clone(), up.clone())

    def state(self) -> dict[str, Tensor]:
        """The start's matrices, or the ranks that EVA gave."""
        if self.start == "eva":
            return {f"{KEPT_RANK}{name}": torch.tensor(layer.r[ADAPTER]) for name, layer in lora_layers(self.model)}
        down = {f"start_A/{name}": pair[0] for name, pair in self.started.items()}
        return down | {f"start_B/{name}": pair[1] for name, pair in self.started.items()}

    def as_base(self) -> AbstractContextManager[None]:
        """Where a part of the base was moved into the adapter, the base is the model at its start, not the model without adapter."""
        return self._at_start() if self.start in MOVING else super().as_base()

    @contextmanager
    def _at_start(self) -> Iterator[None]:
        layers = dict(lora_layers(self.model))
        trained = {name: (pair[0].clone(), pair[1].clone()) for name, layer in layers.items() for pair in [factors(layer)]}
        try:
            for name, layer in layers.items():
                set_factors(layer, self.started[name])
            yield
        finally:
            for name, layer in layers.items():
                set_factors(layer, trained[name])

    @property
    def remark(self) -> str:
        """What the model card says of the form of the adapter."""
        if self.start in MOVING:
            doubled = "twice the ranks" if self.settings.get("rank_pattern") else f"rank {2 * int(self.settings['rank'])}"
            return f"Its start ({self.start}) is taken out of it: saved as a plain LoRA of {doubled}, it goes upon the base as it is."
        if self.start == "loftq":
            return "Its start makes up for the base's rounding to NF4: it goes upon the 4-bit base, and not upon the 16-bit weights."
        return ""

    def save(self, folder: Path) -> None:
        """A start that moved a part of the base is taken out; LoftQ's belongs to the 4-bit base that the adapter goes upon."""
        super().save(folder)
        if self.start in MOVING:
            subtract_start(folder, self.started)
        elif self.start == "loftq":
            _change_config(folder, lambda config: {"loftq_config": {"loftq_bits": 4, "loftq_iter": 1}})

    def save_for_original(self, folder: Path) -> None:
        """Upon weights that are not rounded, LoftQ's start would make up for an error that is not there."""
        super().save(folder)
        if self.started:
            subtract_start(folder, self.started)


def subtract_start(folder: Path, started: Mapping[str, Factors]) -> None:
    """Makes of a saved adapter B A the plain LoRA of twice the rank that stands for B A - B0 A0: [B | -B0] [A; A0], with the same scale.

    As PEFT's `path_initial_model_for_weight_conversion` does it, which would lose a trained head.
    """
    tensors = load_file(folder / WEIGHTS)
    for name, (down, up) in started.items():
        place = f"base_model.model.{name}"
        tensors[f"{place}.lora_A.weight"] = torch.cat((tensors[f"{place}.lora_A.weight"], down.cpu()), dim=0)
        tensors[f"{place}.lora_B.weight"] = torch.cat((tensors[f"{place}.lora_B.weight"], -up.cpu()), dim=1)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _change_config(folder, _doubled)


def _doubled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ranks of such an adapter, and the alpha that leaves every layer's scale as it was."""
    others = {name: 2 * rank for name, rank in config["rank_pattern"].items()}
    return {"r": 2 * config["r"], "lora_alpha": 2 * config["lora_alpha"], "rank_pattern": others}


def _change_config(folder: Path, changes: Any) -> None:
    file = folder / CONFIG
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | changes(config), indent=2, sort_keys=True), encoding="utf-8")
