"""A fully fine-tuned model as a folder that plain transformers loads, in the dtype that the base is stored in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from jobs.export.merge import KEPT, Progress
from jobs.export.shards import DTYPES, StoredTensor, read_checkpoint, write_checkpoint


def save_full(model: Any, base: Path, out: Path, *, shard_bytes: int, progress: Progress | None = None) -> None:
    """Writes `model`, trained from the checkpoint in `base`, into a new folder `out`; `out` is removed on any error.

    Tensors get the base's names and dtypes (weights held in float32 to train are rounded), one at a time. A checkpoint whose names
    are not the model's own is left to transformers, in the base's commonest dtype.
    """
    out.mkdir(parents=True)
    try:
        state = model.state_dict()
        tensors = read_checkpoint(base)
        if all(tensor.name in state and tuple(state[tensor.name].shape) == tensor.shape for tensor in tensors):
            write_checkpoint(tensors, out, shard_bytes, lambda tensor: _stored(state[tensor.name], DTYPES[tensor.dtype]), progress)
        else:
            dtype = DTYPES[_commonest_dtype(tensors)]
            model.save_pretrained(
                out, state_dict={name: _stored(value, dtype) for name, value in state.items()}, max_shard_size=shard_bytes
            )
        for name in KEPT:
            if (base / name).exists():
                shutil.copyfile(base / name, out / name)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _stored(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()


def _commonest_dtype(tensors: list[StoredTensor]) -> str:
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    return max(sizes, key=lambda dtype: sizes[dtype])
