"""A merged model as a folder of its own: weights, config and tokenizer, there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.adapter_files import CONFIG as ADAPTER_CONFIG
from jobs.adapter_files import WEIGHTS
from jobs.durable import fsync_file, fsync_folder
from jobs.errors import GraftError, UserError
from jobs.export.dequantised import Dequantised
from jobs.export.merge import merge
from jobs.export.shards import CONFIG, INDEX, SINGLE, Progress

if TYPE_CHECKING:
    from jobs.spec import StoredDtype

# The files that make a tokenizer, in any of its forms; those of adapter and base are never mixed.
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt",
    "tokenizer.model", "spiece.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")


def merge_folder(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    shard_bytes: int,
    dtype: StoredDtype = "base",
    dequantised: Dequantised | None = None,
    progress: Progress | None = None,
) -> str:
    """Makes the folder `out` of the base with the adapter merged in; returns how, and takes the same choices, as `merge` does.

    The tokenizer and its chat template are the adapter's where it has them, else the base's. `out` may be an empty folder. Raises
    `UserError` (`model_missing`, `file_missing`, `folder_taken`, `merge_impossible`), `GraftError("disk_space")` and `OSError`; nothing
    is left behind then.
    """
    _check(base, adapter, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        made = Path(scratch) / "model"
        try:
            how = merge(base, adapter, made, shard_bytes=shard_bytes, dtype=dtype, dequantised=dequantised, progress=progress)
        except ValueError as failure:
            raise UserError("merge_impossible", reason=failure) from failure
        _copy_company(base, adapter, made)
        for path in made.iterdir():
            fsync_file(path)
        fsync_folder(made)
        made.replace(out)
    fsync_folder(out.parent)
    return how


def _check(base: Path, adapter: Path, out: Path) -> None:
    if not (base / CONFIG).is_file() or not ((base / SINGLE).is_file() or (base / INDEX).is_file()):
        raise UserError("model_missing", path=base)
    for name in (ADAPTER_CONFIG, WEIGHTS):
        if not (adapter / name).is_file():
            raise UserError("file_missing", path=adapter / name)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise GraftError("folder_taken", path=out)


def _copy_company(base: Path, adapter: Path, made: Path) -> None:
    """What goes with the weights: tokenizer, chat template, licence."""
    source = adapter if any((adapter / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")) else base
    files = [source / name for name in TOKENIZER] + [path for pattern in LICENCES for path in base.glob(pattern)]
    for path in files:
        if path.is_file():
            shutil.copyfile(path, made / path.name)
