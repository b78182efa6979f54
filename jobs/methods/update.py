"""Tuners of our own that add an update to a linear layer, as PEFT's do: what block-sparse and MoRA share.

The base layer is called as it is, so it may be of 16, 8 or 4 bits, or GPT-2's `Conv1D`; the dense update is made for a merge alone.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils import get_quantization_kwargs, quantization_extra_repr, resolve_quantization_backend
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from jobs.methods.own import OwnTuner
from jobs.methods.targets import sizes


class UpdateLayer(nn.Module, BaseTunerLayer):
    """A linear layer and the adapters beside it. A method's own class says which weights an adapter has (`adapter_layer_names`, the first
    of which every adapter of the layer has, and `make`), what it adds (`add`), and the same as a matrix (`get_delta_weight`).
    """

    def __init__(self, base_layer: nn.Module, **quantisation: Any) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = sizes(self.get_base_layer())
        self.quantization_backend = resolve_quantization_backend(
            self.get_base_layer(), get_apply_tensor_subclass=quantisation.get("get_apply_tensor_subclass")
        )
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def make(self, adapter: str, config: Any) -> None:
        """Makes the weights of an adapter, in float32 on `device`. Raises `ValueError` where `config` does not fit the layer."""
        raise NotImplementedError

    def add(self, adapter: str, x: Tensor, result: Tensor) -> Tensor:
        """`result` [tokens, out] of the base with the adapter's update of `x` [tokens, in] added; a new tensor of the same dtype."""
        raise NotImplementedError

    def get_delta_weight(self, adapter: str) -> Tensor:
        """The update as a matrix, float32 [out, in]."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the base layer is."""
        weight: Tensor = cast(Any, self.get_base_layer()).weight
        return weight.device

    def update_layer(self, adapter: str, config: Any) -> None:
        """Puts an adapter beside the layer; PEFT's name. Raises what `make` raises."""
        self.make(adapter, config)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def has(self, adapter: str) -> bool:
        """Whether the layer has such an adapter."""
        return adapter in getattr(self, self.adapter_layer_names[0])

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., out] of `x` [..., in]: the base's result and the updates of the active adapters."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        flat = result.reshape(-1, self.out_features)
        for adapter in filter(self.has, self.active_adapters):
            flat = self.add(adapter, x.reshape(-1, self.in_features), flat)
        return flat.reshape(result.shape)

    def operand(self, x: Tensor, weight: Tensor) -> Tensor:
        """`x` in the dtype of a weight that it is multiplied with; autocast chooses the dtype itself."""
        found: Tensor = x if torch.is_autocast_enabled(x.device.type) else self._cast_input_dtype(x, weight.dtype)
        return found

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds adapters, by default the active ones, into the base's weight; the sum is rounded once.

        Raises `ValueError` where `safe_merge` and a merged number is not finite; nothing is changed then.
        """
        for adapter in filter(self.has, check_adapters_to_merge(self, adapter_names)):
            self._shift(adapter, 1.0, check=safe_merge)
            self.merged_adapters.append(adapter)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Takes out again what `merge` added, to the rounding of the base's dtype."""
        while self.merged_adapters:
            self._shift(self.merged_adapters.pop(), -1.0, check=False)

    def _shift(self, adapter: str, sign: float, *, check: bool) -> None:
        weight, delta = self.get_base_weight(), self.get_delta_weight(adapter)
        found = weight.float() + sign * (delta.T if isinstance(self.get_base_layer(), Conv1D) else delta)
        if check and not bool(torch.isfinite(found).all()):
            raise ValueError(f"a merged weight is not finite; the adapter {adapter} seems to be broken")
        self.set_base_weight(found.to(weight.dtype))

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """An update that is a matrix can be brought near to low rank."""
        return True

    def extra_repr(self) -> str:
        """What PEFT shows of a quantised base."""
        return str(quantization_extra_repr(self))


class UpdateTuner(OwnTuner):
    """Puts such layers into a model."""

    tuner_layer_cls: type[UpdateLayer]

    def make_layer(self, target: nn.Module, name: str) -> UpdateLayer:
        """As the base class says: around linear layers alone, or around what another method made of them."""
        base: Any = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not isinstance(base, nn.Linear | Conv1D):
            raise TypeError(f"{name} is no linear layer but {type(base).__name__}")
        return self.tuner_layer_cls(target, **get_quantization_kwargs(self))
