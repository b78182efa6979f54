"""BitFit as a PEFT tuner: a change of the bias of a layer, added to what the layer gives.

Ben Zaken et al. 2021, arXiv:2106.10199. As a change, and not the bias itself, it is switched off, saved and merged as every other adapter.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from jobs.methods.own import OwnConfig, OwnTuner, register

TYPE = "BITFIT"


def has_bias(layer: Any) -> bool:
    """Whether what `layer` gives is the sum of something and its bias: linear layers, quantised ones included, GPT-2's, and layer norms."""
    return isinstance(layer, nn.Linear | Conv1D | nn.LayerNorm) and layer.bias is not None


@dataclass
class BitFitConfig(OwnConfig):
    """`target_modules`: names (or ends of names) of layers with a bias. The rest is PEFT's way to leave out some."""

    own_type = TYPE
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)


class BitFitLayer(nn.Module, BaseTunerLayer):
    """A layer and, for each adapter, the change of its bias, float32 [outputs]."""

    adapter_layer_names = ("bitfit_delta",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bitfit_delta = nn.ParameterDict()
        self.merged_adapters: list[str] = []
        self._disable_adapters = False

    def update_layer(self, adapter_name: str, config: BitFitConfig) -> None:
        """Adds an adapter, its change zero."""
        self.bitfit_delta[adapter_name] = nn.Parameter(torch.zeros_like(self._bias, dtype=torch.float32))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @property
    def _bias(self) -> Tensor:
        layer: Any = self.get_base_layer()
        bias: Tensor = layer.bias
        return bias

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the layer gives, with the changes of the active adapters added, in its own dtype."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for adapter in self.active_adapters:
            if adapter in self.bitfit_delta:
                result = (result + self.bitfit_delta[adapter]).to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds the changes to the base's bias. Raises `ValueError` where `safe_merge` and the sum is not finite."""
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter in self.bitfit_delta:
                total = self._bias.data + self.bitfit_delta[adapter].data
                if safe_merge and not torch.isfinite(total).all():
                    raise ValueError(f"the adapter {adapter} has biases that are not finite")
                self._bias.data = total.to(self._bias.dtype)
                self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Takes merged changes out of the base's bias again."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
        while self.merged_adapters:
            self._bias.data = (self._bias.data - self.bitfit_delta[self.merged_adapters.pop()].data).to(self._bias.dtype)


class BitFitModel(OwnTuner):
    """Puts a `BitFitLayer` in the place of each layer that the config names."""

    prefix = "bitfit_"
    tuner_layer_cls = BitFitLayer

    def make_layer(self, target: nn.Module, name: str) -> BitFitLayer:
        """As the base class says."""
        if not has_bias(target):
            raise TypeError(f"{name} has no bias")
        return BitFitLayer(target)


register(BitFitConfig, BitFitModel)
