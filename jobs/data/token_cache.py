"""Tokenised files, kept on disk and mapped into memory: a dataset is tokenised once, and never lies in memory whole.

An entry is a folder with one file for each array of a `TokenStore`, and `meta.json`, which names the key, and size and CRC-32 of each
file. It is written under another name and renamed when it is whole; what is torn or foreign is removed and made anew. Whoever may read a
cache may read the texts in it: each belongs to one user, or to one dataset version, and is removed with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from jobs.data.encoding import Encoded
from jobs.data.tokens import Columns, TokenStore
from jobs.durable import fsync_file, fsync_folder
from jobs.spec import LossOn, Mapping

LIMIT_BYTES = 4 * 2**30
_META = "meta.json"
_PARTIAL = ".partial-"
# What a killed process has left half written.
_ABANDONED_SECONDS = 24 * 3600
_LIBRARIES = ("transformers", "tokenizers", "jinja2", "pyarrow")
_TOKENIZER_SUFFIXES = frozenset({".json", ".jinja", ".model", ".txt"})
_ID_TYPES = ("uint16", "int32")
_TYPES = {"trained": "bool", "offsets": "int64", "first": "int32", "labels": "int32"}


def token_key(
    file: Path, *, mapping: Mapping | None, skip_bad_rows: bool, loss_on: LossOn, tokenizer_folder: Path, fallback_template: str
) -> str:
    """The name of an entry: a SHA-256 over all that its tokens hang on.

    The data file goes in by its content (it is read at more than 1 GB/s, a small part of what tokenising it takes), so that neither a
    copied file misses nor a changed one of the same size and time hits; so do the files that a tokenizer is made from, our own code that
    reads and encodes, and the versions of the libraries.
    """
    folder = tokenizer_folder
    names = sorted(path.name for path in folder.iterdir() if path.suffix in _TOKENIZER_SUFFIXES) if folder.is_dir() else []
    parts = {
        "file": sha256(file),
        "mapping": asdict(mapping) if mapping else None,
        "skip_bad_rows": skip_bad_rows,
        "loss_on": loss_on,
        "tokenizer": {name: sha256(folder / name) for name in names},
        "fallback_template": fallback_template,
        "code": _code(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    if any(b"strftime_now" in (folder / name).read_bytes() for name in names if not name.startswith("tokenizer.")):
        parts["today"] = datetime.now(tz=UTC).astimezone().date().isoformat()  # such a template writes the date into every row
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _code() -> str:
    """A SHA-256 over the modules of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class TokenCache:
    """Entries under `folder`, of `limit_bytes` together at most: those not used for longest are removed. Without a folder nothing is kept.

    Several processes may use it at once: a name appears only when its entry is whole, and an entry that is removed stays readable for
    whoever has mapped it.
    """

    folder: Path | None
    limit_bytes: int = LIMIT_BYTES

    def get(self, key: str) -> TokenStore | None:
        """The entry of a key, mapped; None where there is none that is whole."""
        if self.folder is None:
            return None
        entry = self.folder / key
        store = _open(entry, key)
        if store is None:
            _remove(entry)
        else:
            with suppress(OSError):
                os.utime(entry)
        return store

    def put(self, key: str, batches: Iterable[list[Encoded]], *, vocabulary: int, chats: Callable[[], bool]) -> TokenStore:
        """Writes rows as they come, keeps them under `key` where there is a folder, and gives them mapped.

        `vocabulary` is the number of token ids there are; `chats` is asked when the rows have ended. Where the folder
        cannot be written the rows go to a temporary one. Raises `OSError` where that cannot be written either, and what `batches` raises.
        """
        home, keeps = self._home()
        partial = home / f"{_PARTIAL}{uuid.uuid4().hex}"
        try:
            partial.mkdir()
            _write(partial, batches, key=key, ids=_ID_TYPES[vocabulary > 2**16], chats=chats)
            store = _open(partial, key)
            if store is None:
                raise OSError(f"what was written to {partial} reads back as something else")
            if keeps:
                self._keep(partial, key)
            return store
        finally:
            shutil.rmtree(partial if keeps else home, ignore_errors=True)

    def _home(self) -> tuple[Path, bool]:
        """Where to write, and whether what is written there stays."""
        if self.folder is not None:
            with suppress(OSError):
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if os.access(self.folder, os.W_OK):
                    return self.folder, True
        return Path(tempfile.mkdtemp(prefix="graft-tokens-")), False

    def _keep(self, partial: Path, key: str) -> None:
        """Gives a whole entry its name, unless another process was first, and makes room."""
        assert self.folder is not None  # noqa: S101
        with suppress(OSError):  # a folder of that name is there: it holds the same
            partial.rename(self.folder / key)
            fsync_folder(self.folder)
        total = 0
        for entry in sorted(self.folder.iterdir(), key=_used_at, reverse=True):
            if entry.name.startswith(_PARTIAL):
                abandoned = _used_at(entry) < time.time() - _ABANDONED_SECONDS
            else:
                total += _size(entry)
                abandoned = total > self.limit_bytes
            if abandoned:
                _remove(entry)


def _write(folder: Path, batches: Iterable[list[Encoded]], *, key: str, ids: str, chats: Callable[[], bool]) -> None:
    types = {"ids": ids, **_TYPES}
    with ExitStack() as stack:
        files = {name: _Array(stack.enter_context((folder / name).open("wb")), np.dtype(kind)) for name, kind in types.items()}
        end = np.zeros(1, dtype=np.int64)
        files["offsets"].append(end)
        for batch in batches:
            columns = Columns.of(batch)
            ends = end + np.cumsum(columns.lengths)
            end = ends[-1:]
            arrays = {"ids": columns.ids, "trained": columns.trained, "offsets": ends, "first": columns.first, "labels": columns.labels}
            for name, array in arrays.items():
                files[name].append(array)
    said = {name: {"type": types[name], "bytes": file.bytes, "crc32": file.crc32} for name, file in files.items()}
    (folder / _META).write_text(json.dumps({"key": key, "chats": chats(), "arrays": said}), encoding="utf-8")
    for path in folder.iterdir():
        fsync_file(path)


class _Array:
    """An array on disk that grows at its end."""

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any]) -> None:
        self._file, self._dtype = file, dtype
        self.bytes = self.crc32 = 0

    def append(self, array: NDArray[Any]) -> None:
        data = array.astype(self._dtype, copy=False).tobytes()
        self._file.write(data)
        self.bytes += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)


def _open(folder: Path, key: str) -> TokenStore | None:
    """The arrays of an entry, mapped; None where it is missing, torn, or another's."""
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        if meta["key"] != key or set(meta["arrays"]) != {"ids", *_TYPES}:
            return None
        if any(said["type"] not in (_ID_TYPES if name == "ids" else (_TYPES[name],)) for name, said in meta["arrays"].items()):
            return None
        arrays = {name: _map(folder / name, said) for name, said in meta["arrays"].items()}
        store = TokenStore(**arrays, chats=bool(meta["chats"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = len(store.offsets) == len(store) + 1 and store.offsets[-1] == len(store.ids) == len(store.trained)
    return store if whole and len(store.labels) == len(store) else None


def _map(path: Path, said: dict[str, Any]) -> NDArray[Any]:
    """A file as an array. Raises `ValueError` where its size or its CRC-32 is not as said."""
    dtype = np.dtype(said["type"])
    if path.stat().st_size != said["bytes"]:
        raise ValueError(f"{path} has not {said['bytes']} bytes")
    array = np.memmap(path, dtype=dtype, mode="r") if said["bytes"] else np.empty(0, dtype)
    if zlib.crc32(array.data) != said["crc32"]:
        raise ValueError(f"{path} is not as it was written")
    return np.asarray(array)


def _used_at(entry: Path) -> float:
    with suppress(OSError):
        return entry.stat().st_mtime
    return 0.0


def _size(entry: Path) -> int:
    """The bytes of an entry's files, as far as they are still there."""
    total = 0
    with suppress(OSError):
        for path in entry.iterdir():
            total += path.stat().st_size
    return total


def _remove(entry: Path) -> None:
    """Takes an entry's name away first, so that nobody finds half of it."""
    gone = entry.with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
    with suppress(OSError):
        entry.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
