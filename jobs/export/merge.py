"""An adapter added into the base model's weights.

What is known by formula (`jobs.export.updates`) is merged tensor by tensor, from files to files, without torch. Everything else goes
through peft's own `merge_and_unload`, on a base loaded afresh into host memory.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import GraftError
from jobs.export.adapter_file import AdapterFile
from jobs.export.dequantised import Dequantised
from jobs.export.shards import Progress, checkpoint_bytes, keep_config, read_checkpoint, stored_dtype, unchanged, write_checkpoint
from jobs.export.streamed import Plan, plan
from jobs.export.updates import CannotStreamError
from jobs.models.heads import Head, read_head

if TYPE_CHECKING:
    from jobs.spec import StoredDtype


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
    An adapter of a task with a head (`head.json`) is merged in memory, and gives a model of that task with a config of its own. An output
    layer tied to an embedding gets a weight of its own where only one of the two was trained. With `dequantised`, quantised
    weights are first replaced by what the layer really computes with, in the dtype that is stored. A merge of LoRA is bitwise what
    `merge_and_unload` makes of a base loaded in that dtype.

    Raises `ValueError` where the adapter cannot be merged or does not fit, or a merged weight is not finite, `GraftError("disk_space")`
    before anything is written, `OSError` (`ENOSPC` among them); `out` is removed then.
    """
    read = AdapterFile(adapter)
    if read.config.get("loftq_config") and dequantised is None:
        raise ValueError("its start makes up for the base's rounding to NF4: merge it into the dequantised base (--dequantised)")
    head = read_head(adapter)
    planned = _plan(base, read, dtype, dequantised, head)
    _check_room(base, out, planned, dtype)
    out.mkdir(parents=True)
    try:
        if planned:
            write_checkpoint(planned.tensors, out, shard_bytes, progress=progress)
        else:
            from jobs.export.in_memory import merge_in_memory

            merge_in_memory(base, adapter, out, shard_bytes=shard_bytes, dtype=dtype, dequantised=dequantised, head=head)
        if head.stands_alone:
            keep_config(base, out, dtype, **(planned.config if planned else {}))
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return "streamed" if planned else "in memory"


def _plan(base: Path, adapter: AdapterFile, dtype: StoredDtype, dequantised: Dequantised | None, head: Head) -> Plan | None:
    """The merge tensor by tensor, or None where it is left to peft. Raises `ValueError` where peft would merge wrongly."""
    try:
        if not head.stands_alone:
            raise CannotStreamError("the base's files lack the head")
        return plan(base, adapter, dtype=dtype, dequantised=dequantised)
    except CannotStreamError:
        from jobs.export.in_memory import why_not

        if reason := why_not(adapter.config):
            raise ValueError(reason) from None
        return None


def _check_room(base: Path, out: Path, planned: Plan | None, dtype: StoredDtype) -> None:
    tensors = planned.tensors if planned else [unchanged(tensor, stored_dtype(tensor, dtype)) for tensor in read_checkpoint(base)]
    needed = checkpoint_bytes(tensors)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise GraftError("disk_space", needed=f"{needed:,}", free=f"{free:,}", path=parent)
