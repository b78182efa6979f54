"""The weights that a base of 4 or 8 bits computes with: what an adapter was trained on top of."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.models.heads import CAUSAL, Head

if TYPE_CHECKING:
    import torch

# The weight that a quantised layer's codes stand for, by tensor name, in float32; None for what is not quantised.
Dequantised = Callable[[str], "torch.Tensor | None"]


def dequantised_weights(model: Any) -> Dequantised:
    """The weights that the quantised layers of `model` (a loaded base, adapter or not) compute with, by the base's tensor names.

    In float32: a layer that computes in bfloat16 sees these values rounded, as it sees its inputs.
    """
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    from jobs.models.quantisation import lies_across

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = {
        name.replace(".base_layer", "") + ".weight": module
        for name, module in base.named_modules()
        if isinstance(module, Linear4bit | Linear8bitLt)
    }

    def weight(name: str) -> torch.Tensor | None:
        layer = layers.get(name)
        if layer is None:
            return None
        packed: Any = layer.weight
        dense = _dense_8bit(layer) if isinstance(layer, Linear8bitLt) else _dense(packed.data, packed.quant_state)
        return dense.T.contiguous() if lies_across(layer) else dense

    return weight


def requantised_weights(base: Path, precision: str, head: Head = CAUSAL) -> Dequantised:
    """The same from the base's files, a weight at a time: quantised as `load_model(base, precision=precision, bits=4, head=head)` does, and
    back.

    The model is built without its weights, to learn which of its layers are held in 4 bits. Raises `UserError("model_unusable")`.
    """
    import torch
    from bitsandbytes.functional import quantize_4bit

    from jobs.export.shards import read_checkpoint
    from jobs.models.quantisation import lies_across

    layers = _quantised_layers(base, precision, head)
    tensors = {tensor.name: tensor for tensor in read_checkpoint(base) if tensor.name in layers}

    def weight(name: str) -> torch.Tensor | None:
        tensor = tensors.get(name)
        if tensor is None:
            return None
        stored = torch.from_numpy(tensor.floats()).to(getattr(torch, precision))
        across = lies_across(layers[name])
        packed, state = quantize_4bit(stored.T.contiguous() if across else stored, quant_type="nf4", compress_statistics=True)
        dense = _dense(packed, state)
        return dense.T.contiguous() if across else dense

    return weight


def _dense_8bit(layer: Any) -> torch.Tensor:
    import torch

    from jobs.models.int8 import write_dense

    dense = torch.empty(layer.weight.shape, device=layer.weight.device)
    write_dense(layer, dense)
    return dense


def _dense(packed: torch.Tensor, state: Any) -> torch.Tensor:
    import torch
    from bitsandbytes.functional import dequantize_4bit

    state = copy(state)
    state.dtype = torch.float32
    dense: torch.Tensor = dequantize_4bit(packed, state)
    return dense


def _quantised_layers(base: Path, precision: str, head: Head) -> dict[str, Any]:
    """The layers by the names of their weights that transformers makes 4-bit ones in this architecture."""
    import torch
    import transformers
    from bitsandbytes.nn.modules import Linear4bit
    from transformers.quantizers import AutoHfQuantizer

    from jobs.errors import UserError
    from jobs.models.quantisation import nf4

    try:
        config = transformers.AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False, **head.config)
        with torch.device("meta"):
            model = getattr(transformers, head.auto).from_config(config)
    except (OSError, ValueError, KeyError) as failure:
        raise UserError("model_unusable", reason=str(failure).strip().split("\n")[0][:300]) from failure
    quantiser = AutoHfQuantizer.from_config(nf4(getattr(torch, precision), kept=head.unquantised), pre_quantized=False)
    quantiser.preprocess_model(model=model, device_map={"": "cpu"})
    return {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
