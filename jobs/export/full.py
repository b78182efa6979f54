"""A fully fine-tuned model as a folder that plain transformers loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from jobs.export.floats import FLOATING
from jobs.export.shards import (
    NewTensor,
    Progress,
    StoredTensor,
    floating_dtypes,
    keep_config,
    name_dtype,
    read_checkpoint,
    stored_dtype,
    write_all,
    write_checkpoint,
)
from jobs.models.heads import CAUSAL, Head
from jobs.spec import StoredDtype


def save_full(
    model: Any,
    base: Path,
    out: Path,
    *,
    shard_bytes: int,
    dtype: StoredDtype = "base",
    head: Head = CAUSAL,
    progress: Progress | None = None,
) -> None:
    """Writes `model`, trained from the checkpoint in `base`, into a new folder `out`; `out` is removed on any error.

    Tensors get the base's names, and its dtypes (weights held in float32 to train are rounded) unless `dtype` is `float32`, one at a
    time. A checkpoint whose names are not the model's own, or that lacks the task's `head`, is left to transformers, with `base` in the
    base's commonest dtype; a model with a head has a config of its own.
    """
    out.mkdir(parents=True)
    try:
        state = model.state_dict()
        tensors = read_checkpoint(base)
        if head.stands_alone and all(tensor.name in state and tuple(state[tensor.name].shape) == tensor.shape for tensor in tensors):
            new = [_new(tensor, state[tensor.name], dtype) for tensor in tensors]
            write_checkpoint(new, out, shard_bytes, progress=progress)
        else:
            one = getattr(torch, next(iter(floating_dtypes(tensors))) if dtype == "base" else dtype)
            model.save_pretrained(out, state_dict={name: _stored(value, one) for name, value in state.items()}, max_shard_size=shard_bytes)
        if head.stands_alone:
            keep_config(base, out, dtype)
        else:
            name_dtype(out, next(iter(floating_dtypes(tensors))) if dtype == "base" else dtype)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _new(tensor: StoredTensor, value: torch.Tensor, dtype: StoredDtype) -> NewTensor:
    """`value` under the name of the base's `tensor`, converted when it is written."""
    stored = stored_dtype(tensor, dtype)

    def write(handle: int, offset: int) -> None:
        converted = _stored(value, getattr(torch, FLOATING[stored])) if stored in FLOATING else _stored(value, value.dtype)
        write_all(handle, offset, converted.contiguous().reshape(-1).view(torch.uint8).numpy())

    return NewTensor(tensor.name, stored, tensor.shape, write)


def _stored(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()
