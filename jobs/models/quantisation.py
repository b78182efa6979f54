"""Quantised bases by bitsandbytes: NF4 with double quantisation (Dettmers et al. 2023, arXiv:2305.14314), and LLM.int8 (Dettmers et al.
2022, arXiv:2208.07339).
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn


def quantisation(bits: int, compute: torch.dtype, *, kept: list[str] | None = None) -> Any:
    """The transformers quantisation config of a base of 4 or 8 bits. The modules `kept`, by the names that their own end in, stay as they
    are stored; None: the output layer does.
    """
    from transformers import BitsAndBytesConfig

    return nf4(compute, kept=kept) if bits == 4 else BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)


def nf4(compute: torch.dtype, *, kept: list[str] | None = None) -> Any:
    """The transformers quantisation config of a QLoRA base: NF4, double quantisation, arithmetic in `compute`; `kept` as above."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=kept,
    )


def keep_gradients_after_evaluation(model: nn.Module) -> int:
    """Switches off bitsandbytes' re-packing for inference on every 4-bit layer; returns how many there are.

    In evaluation mode on a CPU with AVX512-BF16, `Linear4bit.forward` (0.50.2) re-packs its weight in place for a kernel that has no
    backward, and never undoes it: from the first evaluation on, no gradient flows below a layer's own adapter, without an error.
    """
    from bitsandbytes.nn.modules import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def mixes_rows(model: nn.Module) -> bool:
    """Whether a layer computes as LLM.int8 does: which of its inputs' columns are not rounded to 8 bits is found from all tokens of the
    product together, so that no row's answer is its own alone, however rows are laid.
    """
    layers = _layers()
    return layers is not None and any(type(module) is layers.Linear8bitLt for module in model.modules())


def is_quantised(layer: nn.Module) -> bool:
    """Whether bitsandbytes holds the layer's weight, in 8 or in 4 bits."""
    layers = _layers()
    return layers is not None and isinstance(layer, (layers.Linear4bit, layers.Linear8bitLt))


def _layers() -> Any:
    """Bitsandbytes' layers; None where it was not imported, which takes long, or is hidden (`jobs.imports`): no model has one then."""
    return sys.modules.get("bitsandbytes.nn.modules")


def lies_across(layer: nn.Module) -> bool:
    """Whether the files hold the weight of a quantised layer as [inputs, outputs]: transformers turns those of GPT-2's `Conv1D`."""
    from transformers.pytorch_utils import Conv1D

    return issubclass(getattr(layer, "source_cls", object), Conv1D)
