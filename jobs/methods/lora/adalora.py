"""AdaLoRA by PEFT: an update P E Q whose singular values E are dropped while training, the least important of all layers first.

Zhang et al. 2023, arXiv:2303.10512. PEFT adds the penalty only where the model itself computes the loss, and keeps what the choice of ranks
goes by in no checkpoint: both is done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.methods.entry import SettingValue
from jobs.methods.hooks import Hooks, Reset
from jobs.methods.lora.adalora_entry import plan
from jobs.methods.lora.layers import ADAPTER
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.methods.tuning import adapted

_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with an AdaLoRA adapter; E is zero, so that step 0 is the base itself. Raises `UserError`."""
    from peft import AdaLoraConfig

    layers, total = plan(settings, frame_of(model)).layers, setup.total_steps
    config = AdaLoraConfig(
        init_r=settings["rank"],
        target_r=settings["target_rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=[layer.name for layer in layers],
        tinit=int(settings["warmup"] * total),
        tfinal=int(settings["settled"] * total),
        deltaT=settings["interval"],
        orth_reg_weight=settings["orthogonality"],
        total_step=total,
    )
    return adapted(model, config, setup, method="adalora")


class AdaloraHooks(Hooks):
    """The penalty, the choice of ranks after each update, and what both go by."""

    def __init__(self, model: Any = None, settings: Mapping[str, SettingValue] | None = None, setup: Setup | None = None) -> None:
        super().__init__(model, settings, setup)
        self.allocator = model.base_model.rankallocator
        self.config = model.peft_config[ADAPTER]
        self.layers = {name: module for name, module in model.get_base_model().named_modules() if ADAPTER in getattr(module, "lora_E", {})}
        self.pattern: dict[str, list[bool]] | None = None  # which singular values are left, by the name of E, once they were chosen
        self.is_settled = False

    def penalty(self) -> Tensor | None:
        """Gamma times the mean of |P'P - I| and |QQ' - I| over all layers: equation 4 in the form of the authors' code and PEFT's, norms in
        place of their squares, whose sum would outweigh the loss.
        """
        weight = float(self.settings["orthogonality"])
        if not weight:
            return None
        found = [_distance(layer.lora_A[ADAPTER]) for layer in self.layers.values()]
        found += [_distance(layer.lora_B[ADAPTER].t()) for layer in self.layers.values()]
        return weight * torch.stack(found).mean()

    def after_update(self, step: int, reset: Reset) -> None:
        """Updates the importance of every singular value, and drops the least important: as `AdaLoraModel.update_and_allocate`, but for a
        last choice that also comes where the step meant for it was skipped.
        """
        base, last = self.model.base_model.model, self.config.total_step - self.config.tfinal
        if self.is_settled:
            self.allocator.mask_using_rank_pattern(base, self.pattern)
        elif step < last:
            self.pattern = self.allocator.update_and_allocate(base, step)[1] or self.pattern
        elif self.allocator.exp_avg_ipt:
            self.pattern = self.allocator.update_and_allocate(base, step, force_mask=True)[1]
            self.allocator.reset_ipt()
            self.is_settled = True

    def state(self) -> dict[str, Tensor]:
        """The averages of importance, the singular values that are left, and whether that is the last word."""
        found = {f"{kind}/{name}": value for kind in _AVERAGES for name, value in getattr(self.allocator, kind).items()}
        found |= {f"left/{name}": torch.tensor(values) for name, values in (self.pattern or {}).items()}
        return {**found, "is_settled": torch.tensor(self.is_settled)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        device = next(iter(self.layers.values())).lora_E[ADAPTER].device
        for kind in _AVERAGES:
            held = {key.removeprefix(f"{kind}/"): value.to(device) for key, value in state.items() if key.startswith(f"{kind}/")}
            setattr(self.allocator, kind, held)
        self.pattern = {key.removeprefix("left/"): value.tolist() for key, value in state.items() if key.startswith("left/")} or None
        self.is_settled = bool(state["is_settled"])

    def observe(self) -> dict[str, Any] | None:
        """The rank of each layer as it stands: its singular values that are not zero."""
        return {"name": "ranks", "ranks": {name: int(layer.lora_E[ADAPTER].count_nonzero()) for name, layer in self.layers.items()}}

    def save(self, folder: Path) -> None:
        """Without the dropped singular values once they are dropped for good; before, one may have come back since the last choice."""
        self.config.rank_pattern = dict(self.pattern) if self.is_settled and self.pattern else None
        super().save(folder)


def _distance(rows: Tensor) -> Tensor:
    """How far rows [rank, width] are from orthonormal, float32 []."""
    identity = torch.eye(len(rows), device=rows.device)
    distance: Tensor = torch.linalg.matrix_norm(rows @ rows.t() - identity)
    return distance
