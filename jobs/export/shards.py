"""A checkpoint's safetensors files, tensor by tensor: reading raw bytes and writing new shards without ever holding the model.

The format (https://github.com/huggingface/safetensors): 8 bytes of little-endian header length, a JSON header that gives each tensor's
`dtype`, `shape` and `data_offsets` within the bytes that follow, those bytes without a hole.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
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


def read_checkpoint(folder: Path) -> list[StoredTensor]:
    """Every tensor of the checkpoint in `folder`, in the order of the files."""
    index = folder / INDEX
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.exists() else {SINGLE}
    return [tensor for name in sorted(names) for tensor in _read_header(folder / name)]


def write_checkpoint(
    tensors: Sequence[StoredTensor],
    folder: Path,
    shard_bytes: int,
    changed: Callable[[StoredTensor], torch.Tensor | None],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the tensors into new shards of at most `shard_bytes` each (a larger tensor gets one of its own), with an index if several.

    `changed(tensor)` gives a tensor's new value, of the same shape and dtype, or None where it stays. `progress(done, total)` counts
    tensors. Raises `OSError` (`ENOSPC` among them).
    """
    shards = list(_plan(tensors, shard_bytes))
    names = [SINGLE] if len(shards) == 1 else [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    done = 0
    for name, shard in zip(names, shards, strict=True):
        with (folder / name).open("wb") as file:
            file.write(_header(shard))
            for tensor in shard:
                _write_tensor(file, tensor, changed(tensor))
                done += 1
                if progress:
                    progress(done, len(tensors))
            file.flush()
            os.fsync(file.fileno())
    if len(shards) > 1:
        weight_map = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        body = {"metadata": {"total_size": sum(tensor.size for tensor in tensors)}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def _read_header(file_path: Path) -> Iterator[StoredTensor]:
    with file_path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, facts in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = facts["data_offsets"]
        yield StoredTensor(name, facts["dtype"], tuple(facts["shape"]), file_path, 8 + length + first, last - first)


def _plan(tensors: Sequence[StoredTensor], shard_bytes: int) -> Iterator[list[StoredTensor]]:
    shard: list[StoredTensor] = []
    for tensor in tensors:
        if shard and sum(item.size for item in shard) + tensor.size > shard_bytes:
            yield _aligned(shard)
            shard = []
        shard.append(tensor)
    yield _aligned(shard)


def _aligned(shard: list[StoredTensor]) -> list[StoredTensor]:
    """Wide dtypes first, so that every tensor starts at a multiple of its element's size."""
    return sorted(shard, key=lambda tensor: -DTYPES[tensor.dtype].itemsize)


def _header(shard: Sequence[StoredTensor]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in shard:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.size]}
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_tensor(file: IO[bytes], tensor: StoredTensor, value: torch.Tensor | None) -> None:
    if value is None:
        tensor.copy_to(file)
        return
    if value.dtype != DTYPES[tensor.dtype] or tuple(value.shape) != tensor.shape:
        raise ValueError(f"{tensor.name}: {value.dtype} {tuple(value.shape)} cannot take the place of {tensor.dtype} {tensor.shape}")
    file.write(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
