"""A checkpoint's safetensors files, tensor by tensor: reading raw bytes and writing new shards without ever holding the model.

The format (https://github.com/huggingface/safetensors): 8 bytes of little-endian header length, a JSON header that gives each tensor's
`dtype`, `shape` and `data_offsets` within the bytes that follow, those bytes without a hole.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from jobs.spec import StoredDtype

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
# Files of a base model's folder that belong to one made of it.
KEPT = (CONFIG, "generation_config.json")
# The key of a model config's dtype: today's, and that of configs written before it was renamed.
DTYPE_KEYS = ("dtype", "torch_dtype")
COPY_BYTES = 4 << 20
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint: where its `size` bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int

    def load(self) -> torch.Tensor:
        """The tensor, in memory of its own."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            data = bytearray(file.read(self.size))
        flat = torch.frombuffer(data, dtype=DTYPES[self.dtype]) if data else torch.empty(0, dtype=DTYPES[self.dtype])
        return flat.reshape(self.shape)

    def copy_to(self, target: IO[bytes]) -> None:
        """Appends the stored bytes to `target`."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            left = self.size
            while left:
                block = file.read(min(COPY_BYTES, left))
                if not block:
                    raise OSError(f"{self.file.name} ends within {self.name}")
                target.write(block)
                left -= len(block)


@dataclass(frozen=True)
class _Entry:
    """A tensor as it will stand in a new shard: where it comes from, its dtype and its `size` in bytes there."""

    source: StoredTensor
    dtype: str
    size: int


def read_checkpoint(folder: Path) -> list[StoredTensor]:
    """Every tensor of the checkpoint in `folder`, in the order of the files."""
    index = folder / INDEX
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.exists() else {SINGLE}
    return [tensor for name in sorted(names) for tensor in _read_header(folder / name)]


def floating_dtypes(tensors: Sequence[StoredTensor]) -> dict[str, int]:
    """How many bytes of the tensors are of each floating-point dtype, in torch's words (`bfloat16`), most bytes first."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if DTYPES[tensor.dtype].is_floating_point:
            name = str(DTYPES[tensor.dtype]).removeprefix("torch.")
            sizes[name] = sizes.get(name, 0) + tensor.size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def keep_config(base: Path, out: Path, dtype: StoredDtype) -> None:
    """Copies the base's model config to `out`; where the weights are stored in float32, it says so."""
    for name in KEPT:
        if (base / name).exists():
            shutil.copyfile(base / name, out / name)
    if dtype == "float32":
        config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
        (out / CONFIG).write_text(json.dumps(_in_float32({"dtype": "", **config}), indent=2) + "\n", encoding="utf-8")


def _in_float32(config: dict[str, Any]) -> dict[str, Any]:
    """A model config, parts of a composed one included, with float32 as its dtype under either of the key's names."""
    typed = {name: "float32" if name in DTYPE_KEYS else value for name, value in config.items()}
    return {name: _in_float32(value) if isinstance(value, dict) else value for name, value in typed.items()}


def write_checkpoint(
    tensors: Sequence[StoredTensor],
    folder: Path,
    shard_bytes: int,
    changed: Callable[[StoredTensor, torch.dtype], torch.Tensor | None],
    *,
    dtype: StoredDtype = "base",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the tensors into new shards of at most `shard_bytes` each (a larger tensor gets one of its own), with an index if several.

    `changed(tensor, dtype)` gives a tensor's new value, of the same shape and in that dtype (its own, or float32 where the weights are
    stored so), or None where it stays. `progress(done, total)` counts tensors. Raises `OSError` (`ENOSPC` among them).
    """
    shards = list(_plan([_entry(tensor, dtype) for tensor in tensors], shard_bytes))
    names = [SINGLE] if len(shards) == 1 else [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    done = 0
    for name, shard in zip(names, shards, strict=True):
        with (folder / name).open("wb") as file:
            file.write(_header(shard))
            for entry in shard:
                _write_tensor(file, entry, changed(entry.source, DTYPES[entry.dtype]))
                done += 1
                if progress:
                    progress(done, len(tensors))
            file.flush()
            os.fsync(file.fileno())
    if len(shards) > 1:
        weight_map = {entry.source.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        total = sum(entry.size for shard in shards for entry in shard)
        body = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def _read_header(file_path: Path) -> Iterator[StoredTensor]:
    with file_path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, facts in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = facts["data_offsets"]
        yield StoredTensor(name, facts["dtype"], tuple(facts["shape"]), file_path, 8 + length + first, last - first)


def _entry(tensor: StoredTensor, dtype: StoredDtype) -> _Entry:
    if dtype == "base" or not DTYPES[tensor.dtype].is_floating_point:
        return _Entry(tensor, tensor.dtype, tensor.size)
    return _Entry(tensor, "F32", math.prod(tensor.shape) * DTYPES["F32"].itemsize)


def _plan(entries: Sequence[_Entry], shard_bytes: int) -> Iterator[list[_Entry]]:
    shard: list[_Entry] = []
    for entry in entries:
        if shard and sum(item.size for item in shard) + entry.size > shard_bytes:
            yield _aligned(shard)
            shard = []
        shard.append(entry)
    yield _aligned(shard)


def _aligned(shard: list[_Entry]) -> list[_Entry]:
    """Wide dtypes first, so that every tensor starts at a multiple of its element's size."""
    return sorted(shard, key=lambda entry: -DTYPES[entry.dtype].itemsize)


def _header(shard: Sequence[_Entry]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in shard:
        place = [offset, offset + entry.size]
        header[entry.source.name] = {"dtype": entry.dtype, "shape": list(entry.source.shape), "data_offsets": place}
        offset += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_tensor(file: IO[bytes], entry: _Entry, value: torch.Tensor | None) -> None:
    source, dtype = entry.source, DTYPES[entry.dtype]
    if value is None and entry.dtype == source.dtype:
        source.copy_to(file)
        return
    value = source.load().to(dtype) if value is None else value
    if value.dtype != dtype or tuple(value.shape) != source.shape:
        raise ValueError(f"{source.name}: {value.dtype} {tuple(value.shape)} cannot take the place of {entry.dtype} {source.shape}")
    file.write(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
