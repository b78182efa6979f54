"""An adapter added into the base model's weights.

LoRA (Hu et al. 2021, arXiv:2106.09685) is merged one tensor at a time, from the files of the base into the files of the result: memory
holds a single weight. Everything else goes through peft's own `merge_and_unload`, on a base loaded afresh into host memory.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from jobs.export.adapter import CONFIG, WEIGHTS
from jobs.export.shards import StoredTensor, keep_config, read_checkpoint, write_checkpoint
from jobs.spec import StoredDtype

PREFIX = "base_model.model."
# Options under which a LoRA update is more than scale * B @ A on an untouched base.
BEYOND_PLAIN = (
    "use_dora", "lora_bias", "kasa_config", "layer_replication", "target_parameters", "trainable_token_indices",
    "alora_invocation_tokens", "modules_to_save", "megatron_config",
)  # fmt: skip
# Initialisations that leave the base as it is; all others move a part of it into the adapter.
PLAIN_INITIALISATIONS = (True, False, "gaussian", "orthogonal", "eva", None)

Progress = Callable[[int, int], None]
# The weight that a quantised layer's codes stand for, by tensor name, in float32; None for what is not quantised.
Dequantised = Callable[[str], torch.Tensor | None]


class CannotStreamError(Exception):
    """An adapter that cannot be merged tensor by tensor; peft may still do it in memory."""


def merge(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    shard_bytes: int,
    dtype: StoredDtype = "base",
    dequantised: Dequantised | None = None,
    progress: Progress | None = None,
) -> str:
    """Merges into a new folder `out` (weights and model config; no tokenizer). Returns how: `streamed` or `in memory`.

    Tensors keep the base's names and shapes, and its dtypes too unless `dtype` is `float32`: the sum is then stored as it was computed.
    With `dequantised`, quantised weights are first replaced by what the layer really computes with, in the dtype that is stored. Raises
    `ValueError` where a merged weight is not finite or an adapter tensor belongs nowhere, `OSError` (`ENOSPC` among them); `out` is
    removed then.
    """
    out.mkdir(parents=True)
    try:
        try:
            merge_lora(base, adapter, out, shard_bytes=shard_bytes, dtype=dtype, dequantised=dequantised, progress=progress)
            how = "streamed"
        except CannotStreamError:
            merge_in_memory(base, adapter, out, shard_bytes=shard_bytes, dtype=dtype, dequantised=dequantised)
            how = "in memory"
        keep_config(base, out, dtype)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return how


def merge_lora(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    shard_bytes: int,
    dtype: StoredDtype = "base",
    dequantised: Dequantised | None = None,
    progress: Progress | None = None,
) -> None:
    """The merge tensor by tensor; bitwise what `merge_and_unload` makes of a base loaded in the dtype that is stored.

    Raises `CannotStreamError`, before anything is written, where the adapter is more than plain LoRA on linear layers, or one of its
    tensors matches none of the base's.
    """
    tensors = read_checkpoint(base)
    update = _Update(adapter)
    update.check({tensor.name: tensor for tensor in tensors})

    def changed(tensor: StoredTensor, stored: torch.dtype) -> torch.Tensor | None:
        start = dequantised(tensor.name) if dequantised else None
        delta = update.delta(tensor.name)
        if start is None and delta is None:
            return None
        weight = (tensor.load() if start is None else start.detach().cpu()).to(stored)
        merged = weight if delta is None else (weight + delta).to(stored)
        if not torch.isfinite(merged).all():
            raise ValueError(f"the merged weight {tensor.name} is not finite")
        return merged

    write_checkpoint(tensors, out, shard_bytes, changed, dtype=dtype, progress=progress)


def merge_in_memory(
    base: Path, adapter: Path, out: Path, *, shard_bytes: int, dtype: StoredDtype = "base", dequantised: Dequantised | None = None
) -> None:
    """The merge by peft, with the whole base in host memory in the dtype that is stored. Raises `ValueError` as `merge` does."""
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype="auto" if dtype == "base" else dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            start = dequantised(name) if dequantised else None
            if start is not None:
                parameter.copy_(start)
    tuned = PeftModel.from_pretrained(model, adapter)
    known = get_peft_model_state_dict(tuned, save_embedding_layers=False).keys() | tuned.state_dict().keys()
    if unused := load_file(adapter / WEIGHTS).keys() - known:
        raise ValueError(f"{len(unused)} adapter tensors match no tensor of the base, {min(unused)} among them")
    # Not peft's safe_merge: on 16-bit weights it rounds the update before it is added, and the sum again.
    merged = tuned.merge_and_unload()
    for name, parameter in merged.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"the merged weight {name} is not finite")
    merged.save_pretrained(out, max_shard_size=shard_bytes)


def dequantised_weights(model: Any) -> Dequantised:
    """The weights that the 4-bit layers of `model` (a loaded QLoRA base, adapter or not) compute with, by the base's tensor names.

    In float32: a layer that computes in bfloat16 sees these values rounded, as it sees its inputs.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = {
        name.replace(".base_layer", "") + ".weight": module for name, module in base.named_modules() if isinstance(module, Linear4bit)
    }

    def weight(name: str) -> torch.Tensor | None:
        layer = layers.get(name)
        if layer is None:
            return None
        packed: Any = layer.weight
        state = copy(packed.quant_state)
        state.dtype = torch.float32
        dense: torch.Tensor = dequantize_4bit(packed.data, state)
        return dense

    return weight


class _Update:
    """The LoRA update of an adapter folder, by the base's tensor names."""

    def __init__(self, adapter: Path) -> None:
        self.config: Mapping[str, Any] = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
        self.tensors = load_file(adapter / WEIGHTS)

    def check(self, base: Mapping[str, StoredTensor]) -> None:
        """Raises `CannotStreamError` unless every tensor is one half of a plain update of a base tensor of fitting shape."""
        if self.config.get("peft_type") != "LORA":
            raise CannotStreamError(f"{self.config.get('peft_type')} is not LoRA")
        for option in BEYOND_PLAIN:
            if self.config.get(option):
                raise CannotStreamError(f"{option} is set")
        if self.config.get("init_lora_weights", True) not in PLAIN_INITIALISATIONS:
            raise CannotStreamError(f"the initialisation {self.config['init_lora_weights']} changed the base")
        matched = {key for name in base if self._has(name) for key in self._keys(name)}
        if left := self.tensors.keys() - matched:
            raise CannotStreamError(f"{len(left)} adapter tensors match no tensor of the base, {min(left)} among them")
        for name, tensor in base.items():
            if self._has(name) and self._shape(name) != tensor.shape:
                raise CannotStreamError(f"the update of {name} has the shape {self._shape(name)}, the base {tensor.shape}")

    def delta(self, name: str) -> torch.Tensor | None:
        """What is added to the base tensor `name`, in float32 as peft loads adapters, by peft's operations in peft's order; or None."""
        if not self._has(name):
            return None
        down, up = (self.tensors[key].float() for key in self._keys(name))
        product = up @ down
        return (product.T if self.config.get("fan_in_fan_out") else product) * self._scale(name, down.shape[0])

    def _keys(self, name: str) -> tuple[str, str]:
        module = PREFIX + name.removesuffix(".weight")
        return f"{module}.lora_A.weight", f"{module}.lora_B.weight"

    def _has(self, name: str) -> bool:
        return all(key in self.tensors for key in self._keys(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        down, up = (self.tensors[key] for key in self._keys(name))
        shape = (up.shape[0], down.shape[1])
        return shape[::-1] if self.config.get("fan_in_fan_out") else shape

    def _scale(self, name: str, rank: int) -> float:
        module = name.removesuffix(".weight")
        alpha = _pattern(self.config.get("alpha_pattern"), module, self.config["lora_alpha"])
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def _pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """The rule of peft's `alpha_pattern`: a key is a regular expression that matches the end of the module's name."""
    return next((value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module)), default)
