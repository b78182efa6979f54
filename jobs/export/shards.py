"""A checkpoint's safetensors files, tensor by tensor: reading raw bytes and writing new shards without ever holding the model.

The format (https://github.com/huggingface/safetensors): 8 bytes of little-endian header length, a JSON header that gives each tensor's
`dtype`, `shape` and `data_offsets` within the bytes that follow, those bytes without a hole.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jobs.durable import fsync_file
from jobs.export.floats import ARRAYS, FLOATING, ITEM_BYTES, Float32, Stored, narrow, widen

if TYPE_CHECKING:  # at run time its validation of specs takes as long to import as a small merge
    from jobs.spec import StoredDtype

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
# Files of a base model's folder that belong to one made of it.
KEPT = (CONFIG, "generation_config.json")
# The key of a model config's dtype: today's, and that of configs written before it was renamed.
DTYPE_KEYS = ("dtype", "torch_dtype")
# What a thread holds at a time: copied bytes, or float32 numbers that stay in its core's cache while they are worked on.
COPY_BYTES = 4 << 20
BLOCK_NUMBERS = 1 << 18
# Products of fewer rows are added up in another order than the whole one by some BLAS on some processors.
LEAST_ROWS = 16
# Beyond a few, threads wait for memory and disk.
MOST_THREADS = 4
# What copy_file_range says where the two files' systems do not let the kernel copy.
CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

Progress = Callable[[int, int], None]
Read = Callable[[int, Stored], None]


class Source(Protocol):
    """A tensor to read from, block by block."""

    @property
    def name(self) -> str:
        """Its name in the checkpoint."""

    @property
    def dtype(self) -> str:
        """Its dtype, in the words of safetensors."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""

    def reader(self) -> AbstractContextManager[Read]:
        """Gives `read(first, out)`, which fills the array `out` with the bytes from `first` on."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint: where its `size` bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int

    def floats(self) -> Float32:
        """The whole tensor in float32, in memory of its own. Raises `OSError`, `KeyError` where it holds no such numbers."""
        stored = np.empty(self.shape, ARRAYS[self.dtype])
        with self.reader() as read:
            read(0, stored)
        out = np.empty(self.shape, np.float32)
        widen(stored, self.dtype, out)
        return out

    @contextmanager
    def reader(self) -> Iterator[Read]:
        """See `Source`; one open file for all reads. Raises `OSError`."""
        handle = os.open(self.file, os.O_RDONLY)

        def read(first: int, out: Stored) -> None:
            target = _bytes(out)
            done = 0
            while done < len(target):
                count = os.preadv(handle, [target[done:]], self.offset + first + done)
                if not count:
                    raise OSError(f"{self.file.name} ends within {self.name}")
                done += count

        try:
            yield read
        finally:
            os.close(handle)


@dataclass(frozen=True)
class HeldTensor:
    """A tensor in memory: `data` is an array of `ARRAYS[dtype]`."""

    name: str
    dtype: str
    data: Stored

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        return self.data.shape

    @contextmanager
    def reader(self) -> Iterator[Read]:
        """See `Source`."""
        held = np.ascontiguousarray(self.data).reshape(-1)

        def read(first: int, out: Stored) -> None:
            start = first // held.itemsize
            out.reshape(-1)[...] = held[start : start + out.size]

        yield read


@dataclass(frozen=True)
class NewTensor:
    """A tensor to write. `write(handle, offset)` puts its bytes into the open file from `offset` on; several are written at a time."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    write: Callable[[int, int], None]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def read_checkpoint(folder: Path) -> list[StoredTensor]:
    """Every tensor of the checkpoint in `folder`, in the order of the files. Raises `OSError`, `ValueError`."""
    index = folder / INDEX
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.exists() else {SINGLE}
    return [tensor for name in sorted(names) for tensor in read_header(folder / name)]


def read_header(path: Path) -> Iterator[StoredTensor]:
    """The tensors of one safetensors file, in the order of their bytes. Raises `OSError`, `ValueError`."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= path.stat().st_size - 8:
            raise ValueError(f"{path.name} is not a complete safetensors file")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, facts in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = facts["data_offsets"]
        yield StoredTensor(name, facts["dtype"], tuple(facts["shape"]), path, 8 + length + first, last - first)


def floating_dtypes(tensors: Sequence[StoredTensor]) -> dict[str, int]:
    """How many bytes of the tensors are of each floating-point dtype, in torch's words (`bfloat16`), most bytes first."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if name := FLOATING.get(tensor.dtype):
            sizes[name] = sizes.get(name, 0) + tensor.size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def stored_dtype(tensor: StoredTensor, dtype: StoredDtype) -> str:
    """The dtype, in the words of safetensors, in which `tensor` is stored anew: its own, or float32 where numbers are asked for in it."""
    return "F32" if dtype == "float32" and tensor.dtype in FLOATING else tensor.dtype


def keep_config(base: Path, out: Path, dtype: StoredDtype, **changes: Any) -> None:
    """Copies the base's model config to `out`, with `changes`; where the weights are stored in float32, it says so."""
    for name in KEPT:
        if (base / name).exists():
            shutil.copyfile(base / name, out / name)
    if dtype == "float32" or changes:
        config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
        typed = _in_float32({"dtype": "", **config}) if dtype == "float32" else config
        (out / CONFIG).write_text(json.dumps({**typed, **changes}, indent=2) + "\n", encoding="utf-8")


def name_dtype(out: Path, dtype: str) -> None:
    """Says in the model config of `out` that its weights are stored in `dtype`."""
    config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    (out / CONFIG).write_text(json.dumps({**config, "dtype": dtype}, indent=2) + "\n", encoding="utf-8")


def _in_float32(config: dict[str, Any]) -> dict[str, Any]:
    """A model config, parts of a composed one included, with float32 as its dtype under either of the key's names."""
    typed = {name: "float32" if name in DTYPE_KEYS else value for name, value in config.items()}
    return {name: _in_float32(value) if isinstance(value, dict) else value for name, value in typed.items()}


def unchanged(tensor: StoredTensor, dtype: str, name: str | None = None) -> NewTensor:
    """`tensor` as it is, in `dtype`: its own, or a wider or narrower floating-point one; under another `name` where one is given."""

    def write(handle: int, offset: int) -> None:
        if dtype == tensor.dtype:
            _copy(tensor, handle, offset)
        else:
            rewrite(tensor, dtype, handle, offset)

    return NewTensor(name or tensor.name, dtype, tensor.shape, write)


def rewrite(
    tensor: Source,
    dtype: str,
    handle: int,
    offset: int,
    change: Callable[[Float32, int], None] | None = None,
    *,
    whole: bool = False,
) -> None:
    """Writes `tensor` in `dtype` at `offset`, block by block of whole rows (all at once where `whole`), each changed in float32.

    `change(rows, first)` alters `rows` [rows, numbers of a row] in place; `first` is the index of the first of them. A tensor of one
    dimension has rows of one number. Raises `OSError`, `ValueError` where a number written is not finite.
    """
    width = math.prod(tensor.shape[1:])
    count = tensor.shape[0] if tensor.shape else 1
    step = count if whole else _rows_of_a_block(count, width)
    stored = np.empty((min(step, count), width), ARRAYS[tensor.dtype])
    values = np.empty(stored.shape, np.float32)
    result = np.empty(stored.shape, ARRAYS[dtype])
    with tensor.reader() as read:
        for first in range(0, count, step):
            rows = min(step, count - first)
            read(first * width * stored.itemsize, stored[:rows])
            widen(stored[:rows], tensor.dtype, values[:rows])
            if change:
                with np.errstate(all="ignore"):  # what overflows is seen below
                    change(values[:rows], first)
            if not narrow(values[:rows], dtype, result[:rows]):
                raise ValueError(f"the merged weight {tensor.name} is not finite")
            write_all(handle, offset + first * width * result.itemsize, result[:rows])


def _rows_of_a_block(count: int, width: int) -> int:
    """How many of `count` rows of `width` numbers make a block: blocks of nearly one size, so that none is left with a row or two."""
    most = max(LEAST_ROWS, BLOCK_NUMBERS // max(width, 1))
    blocks = max(1, math.ceil(count / most))
    return max(1, math.ceil(count / blocks))


def write_all(handle: int, offset: int, values: Stored) -> None:
    """Writes the bytes of a contiguous array at `offset` of an open file. Raises `OSError`."""
    left = _bytes(values)
    while left:
        count = os.pwrite(handle, left, offset)
        left, offset = left[count:], offset + count


def _bytes(values: Stored) -> memoryview:
    """The bytes of a contiguous array, where they are."""
    return values.reshape(-1).view(np.uint8).data


def _copy(tensor: StoredTensor, handle: int, offset: int) -> None:
    """The stored bytes, by the kernel where it can: it shares or moves them without a copy in this process."""
    source = os.open(tensor.file, os.O_RDONLY)
    done = 0
    try:
        while done < tensor.size:
            count = os.copy_file_range(source, handle, tensor.size - done, tensor.offset + done, offset + done)
            if not count:
                raise OSError(f"{tensor.file.name} ends within {tensor.name}")
            done += count
    except OSError as failure:
        if failure.errno not in CANNOT_COPY:
            raise
        _copy_through(tensor, done, handle, offset)
    finally:
        os.close(source)


def _copy_through(tensor: StoredTensor, done: int, handle: int, offset: int) -> None:
    """The stored bytes from `done` on, through a buffer of this process."""
    buffer = np.empty(min(COPY_BYTES, tensor.size - done), np.uint8)
    with tensor.reader() as read:
        while done < tensor.size:
            block = buffer[: tensor.size - done]
            read(done, block)
            write_all(handle, offset + done, block)
            done += len(block)


def checkpoint_bytes(tensors: Sequence[NewTensor]) -> int:
    """How much disk the tensors take, their headers aside."""
    return sum(tensor.size for tensor in tensors)


def write_checkpoint(tensors: Sequence[NewTensor], folder: Path, shard_bytes: int, *, progress: Progress | None = None) -> None:
    """Writes the tensors into new shards of at most `shard_bytes` each (a larger tensor gets one of its own), with an index if several.

    Threads, one for each core that this process owns (`MOST_THREADS` at most), write one tensor each; a shard is forced to the disk
    while the next ones are written. `progress(done, total)` counts tensors. Raises `OSError` (`ENOSPC` among them) and what `write` of
    a tensor raises, with no thread left running.
    """
    shards = list(_plan(tensors, shard_bytes))
    names = [SINGLE] if len(shards) == 1 else [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    threads = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MOST_THREADS))
    done = 0
    try:
        written = [_start(threads, folder / name, shard) for name, shard in zip(names, shards, strict=True)]
        for name, parts in zip(names, written, strict=True):
            for part in parts:
                part.result()
                done += 1
                if progress:
                    progress(done, len(tensors))
            fsync_file(folder / name)
    finally:
        threads.shutdown(cancel_futures=True)
    if len(shards) > 1:
        weight_map = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        body = {"metadata": {"total_size": checkpoint_bytes(tensors)}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def _start(threads: ThreadPoolExecutor, path: Path, shard: Sequence[NewTensor]) -> list[Future[None]]:
    """Writes a shard's header, and has its tensors written."""
    header = _header(shard)
    path.write_bytes(header)
    parts = []
    offset = len(header)
    for tensor in shard:
        parts.append(threads.submit(_write, tensor, path, offset))
        offset += tensor.size
    return parts


def _write(tensor: NewTensor, path: Path, offset: int) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        tensor.write(handle, offset)
    finally:
        os.close(handle)


def _plan(tensors: Sequence[NewTensor], shard_bytes: int) -> Iterator[list[NewTensor]]:
    shard: list[NewTensor] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.size > shard_bytes:
            yield _aligned(shard)
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.size
    yield _aligned(shard)


def _aligned(shard: list[NewTensor]) -> list[NewTensor]:
    """Wide dtypes first, so that every tensor starts at a multiple of its number's size."""
    return sorted(shard, key=lambda tensor: -ITEM_BYTES[tensor.dtype])


def _header(shard: Sequence[NewTensor]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in shard:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.size]}
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
