"""A base that is to be quantised, read weight by weight on a CPU: what is in memory besides the quantised model is a part of one weight.

transformers (5.23) reads one weight after the other, but bitsandbytes (0.50.2) makes some twenty bytes for each number of a weight while it
quantises it, and what was read of a file stays among the pages of the process for as long as one weight is mapped from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from bitsandbytes.functional import QuantState, int8_vectorwise_quant, quantize_4bit, quantize_blockwise
from bitsandbytes.nn.modules import Int8Params, Params4bit
from torch import Tensor
from transformers.integrations.bitsandbytes import Bnb4bitQuantize, Bnb8bitQuantize
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizer_bnb_8bit import Bnb8BitHfQuantizer

from jobs.models.mapped import Pages
from jobs.models.quantisation import lies_across

# Numbers that are quantised at once, a multiple of NF4's blocks.
_NUMBERS_AT_ONCE = 2**17
_BLOCK, _SCALES_BLOCK = 64, 256


@contextmanager
def reading_in_parts() -> Iterator[Pages]:
    """Within it, `from_pretrained` quantises in parts, and lets go of the pages that it has read."""
    pages = Pages()
    ours: dict[str, Any] = {"bitsandbytes_4bit": _quantiser(Bnb4BitHfQuantizer, _To4Bit, pages)}
    ours["bitsandbytes_8bit"] = _quantiser(Bnb8BitHfQuantizer, _To8Bit, pages)
    before = {name: AUTO_QUANTIZER_MAPPING[name] for name in ours}
    AUTO_QUANTIZER_MAPPING.update(ours)
    try:
        yield pages
    finally:
        AUTO_QUANTIZER_MAPPING.update(before)


def _quantiser(kind: Any, operation: Callable[[Any, Pages], Any], pages: Pages) -> Any:
    """A quantiser of transformers but for how a weight is quantised."""
    return type(kind.__name__, (kind,), {"get_quantize_ops": lambda self: operation(self, pages)})


class _InParts:
    """An operation of transformers' loader that makes one parameter after the other."""

    parameter: Callable[[Any, Tensor], Any]

    def __init__(self, quantiser: Any, pages: Pages) -> None:
        super().__init__(quantiser)  # type: ignore[call-arg]
        self.pages = pages

    def convert(self, input_dict: dict[str, Any], *, model: Any = None, **_: Any) -> dict[str, Any]:
        """The weights named, as parameters of the model's layers."""
        found = {}
        for name, values in input_dict.items():
            layer, weight = _weight(model, name, values)
            found[name] = self.parameter(layer, weight)
            self.pages.were_read(weight.nbytes)
        return found


class _To4Bit(_InParts, Bnb4bitQuantize):  # type: ignore[misc]
    def parameter(self, layer: Any, weight: Tensor) -> Any:
        data, state = quantise_nf4(weight)
        layer.quant_state = state
        return Params4bit(data, requires_grad=False, **layer.weight.__dict__ | {"quant_state": state, "bnb_quantized": True})


class _To8Bit(_InParts, Bnb8bitQuantize):  # type: ignore[misc]
    def parameter(self, layer: Any, weight: Tensor) -> Any:
        codes, scales = quantise_int8(weight)
        return Int8Params(codes, requires_grad=False, **layer.weight.__dict__ | {"CB": codes, "SCB": scales})


def _weight(model: Any, name: str, values: Any) -> tuple[Any, Tensor]:
    """The layer that a weight belongs to, and the weight as [outputs, inputs]."""
    layer = model.get_submodule(name.rpartition(".")[0])
    layer._is_hf_initialized = True
    weight = values[0] if isinstance(values, list) else values
    return layer, weight.T.contiguous() if lies_across(layer) else weight


def quantise_nf4(weight: Tensor) -> tuple[Tensor, QuantState]:
    """(codes uint8 [numbers / 2, 1], what they stand for), in parts; bit for bit what `quantize_4bit` gives of NF4 with compressed
    statistics.
    """
    flat = weight.reshape(-1)
    data = torch.empty(-(-len(flat) // 2), 1, dtype=torch.uint8)
    scales = torch.empty(-(-len(flat) // _BLOCK))
    for start in range(0, len(flat), _NUMBERS_AT_ONCE):
        part, state = quantize_4bit(flat[start : start + _NUMBERS_AT_ONCE], blocksize=_BLOCK, quant_type="nf4")
        data[start // 2 : start // 2 + len(part)] = part
        scales[start // _BLOCK : start // _BLOCK + len(state.absmax)] = state.absmax
    offset = scales.mean()
    small_scales, of_scales = quantize_blockwise(scales - offset, blocksize=_SCALES_BLOCK)
    kind: Any = QuantState  # whose constructor has no types
    return data, kind(small_scales, weight.shape, state.code, _BLOCK, "nf4", weight.dtype, offset, of_scales)


def quantise_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes int8 [outputs, inputs], the largest absolute value of each row, float32 [outputs]) as LLM.int8 has them, made in parts."""
    codes, scales = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
    rows = max(1, _NUMBERS_AT_ONCE // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        codes[part], scales[part], _ = int8_vectorwise_quant(weight[part].to(torch.float16).contiguous())
    return codes, scales
