"""The artifacts of a finished training: saved, compared with the trained model, measured again, packed, announced."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from jobs.errors import GraftError
from jobs.export.adapter import CARD, save_adapter
from jobs.export.archive import archive
from jobs.export.card import MEASURES, model_card
from jobs.export.context import ExportContext
from jobs.export.dequantised import dequantised_weights
from jobs.export.full import save_full
from jobs.export.merge import merge
from jobs.export.parity import Parity, Reference, compare, reference
from jobs.export.shards import floating_dtypes, read_checkpoint
from jobs.models.heads import write_head
from jobs.models.loading import load_model

# Below this share of equal likeliest tokens, a merge that should be faithful has gone wrong; rounding alone leaves far more.
LEAST_AGREEMENT = 0.5
# Full fine-tuning trains in float32 (see `load_model`): stored in these, it is another model and is measured again.
NARROWER = ("bfloat16", "float16")
# Share of a device's free memory that a second copy of the model may take there; beyond it the host compares.
ROOM = 0.8
PHASE_SECONDS = 0.5


def export_run(context: ExportContext) -> list[dict[str, Any]]:
    """Makes the artifacts that the method and `spec.export.merge` ask for; returns the data of their `artifact` events, as emitted.

    A method with an adapter gives `<name>-adapter.zip`, and for each merge asked for `<name>-merged.zip` (a quantised base:
    `<name>-merged-original.zip`, `<name>-merged-dequantised.zip`); full fine-tuning gives `<name>-model.zip`. A merged model is read
    back from its files, its logits are compared with the trained model's, and it is measured again; one that fails is left out with a
    `warning` event, for the adapter is still good. A fully trained model is compared too, and measured again (as `stored`) where it is
    stored in fewer bits than it was trained in. Raises `OSError` (`ENOSPC` among them) with nothing half-made left behind, and
    `GraftError("merge_refused")` where a fully fine-tuned model does not come back as it was trained.
    """
    scratch = context.out / ".export"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        trained = reference(context.model, context.held_out, context.precision, context.logits)
        if context.method.capabilities.adapter:
            return _export_adapter(context, scratch, trained)
        return [_export_full(context, scratch, trained)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _export_adapter(context: ExportContext, scratch: Path, trained: Reference) -> list[dict[str, Any]]:
    adapter = scratch / "adapter"
    save_adapter(context, adapter, model_card(context, kind="adapter", results=context.results))
    artifacts = [_pack(context, adapter, "adapter", "adapter", {})]
    for into in _merges(context):
        try:
            artifacts.append(_export_merged(context, scratch, _added(context, scratch, adapter, into), trained, into))
        except GraftError as refused:
            if refused.code != "merge_refused":
                raise
            context.emit("warning", code=refused.code, message=refused.message, remedy=refused.remedy)
    return artifacts


def _added(context: ExportContext, scratch: Path, adapter: Path, into: str) -> Path:
    """The adapter as it is added into the base's weights: the saved one, unless 16-bit weights stand in for quantised ones."""
    if context.base_bits == 16 or into == "dequantised":
        return adapter
    folder = scratch / "adapter-for-original"
    folder.mkdir()
    context.hooks.save_for_original(folder)
    write_head(context.head, folder)
    return folder


def _merges(context: ExportContext) -> list[str]:
    """What to merge into: `original`, `dequantised`. A base that is not quantised has its original weights alone."""
    asked = context.spec.export.merge
    if asked == "none" or not context.method.capabilities.merges:
        return []
    if context.base_bits == 16:
        return ["original"]
    return ["original", "dequantised"] if asked == "both" else [asked]


def _export_merged(context: ExportContext, scratch: Path, adapter: Path, trained: Reference, into: str) -> dict[str, Any]:
    folder = scratch / "merged"
    weights = dequantised_weights(context.model) if into == "dequantised" else None
    try:
        how = merge(
            context.base_folder, adapter, folder, shard_bytes=context.spec.export.shard_bytes, dtype=context.spec.export.dtype,
            dequantised=weights, progress=_progress(context, "merging", "tensors"),
        )  # fmt: skip
    except ValueError as failure:
        raise GraftError("merge_refused", reason=failure) from failure
    quantised = context.base_bits < 16
    faithful = into == "dequantised" or not quantised
    stored = list(floating_dtypes(read_checkpoint(folder)))
    model = _read_back(context, folder, stored)
    parity = _prove(compare(model, trained), faithful=faithful)
    name = "dequantised" if into == "dequantised" else "merged"
    measured = context.reevaluate(model, name)
    del model
    details = {"merge_into": into, "merged": how, "stored_dtype": stored[0], **_parity_details(parity), **_measures(measured)}
    results = {"base": context.results.get("base", {}), name: measured}
    context.tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(model_card(context, kind="merged", results=results, weights=details), encoding="utf-8")
    return _pack(context, folder, f"merged-{into}" if quantised else "merged", "merged", details)


def _export_full(context: ExportContext, scratch: Path, trained: Reference) -> dict[str, Any]:
    folder = scratch / "model"
    save_full(
        context.model, context.base_folder, folder, shard_bytes=context.spec.export.shard_bytes, dtype=context.spec.export.dtype,
        head=context.head, progress=_progress(context, "saving", "tensors"),
    )  # fmt: skip
    stored = list(floating_dtypes(read_checkpoint(folder)))
    model = _read_back(context, folder, stored)
    details: dict[str, Any] = {"stored_dtype": stored[0], **_parity_details(_prove(compare(model, trained), faithful=True))}
    results = context.results
    if any(dtype in NARROWER for dtype in stored):
        measured = context.reevaluate(model, "stored")
        details |= _measures(measured)
        results = {"base": context.results.get("base", {}), "stored": measured}
    del model
    context.tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(model_card(context, kind="model", results=results, weights=details), encoding="utf-8")
    return _pack(context, folder, "model", "model", details)


def _read_back(context: ExportContext, folder: Path, stored: list[str]) -> Any:
    """The exported model from its files, as anybody would load it; on the trained model's device where there is room.

    `stored` are the dtypes in the files: what is stored in float32 is not rounded to the run's precision on the way.
    """
    device = next(context.model.parameters()).device
    if device.type == "cuda":
        size = sum(path.stat().st_size for path in folder.iterdir())
        if size > ROOM * torch.cuda.mem_get_info(device)[0]:
            device = torch.device("cpu")
    precision = "float32" if stored[0] == "float32" else context.precision
    return load_model(folder, precision=precision, trains_base=False, device=str(device), head=context.head)


def _prove(parity: Parity, *, faithful: bool) -> Parity:
    """`parity`, where the model may be offered. Raises `GraftError("merge_refused")`."""
    if not math.isfinite(parity.max_difference):
        raise GraftError("merge_refused", reason="some of its logits are not finite")
    if faithful and parity.positions and parity.top1_agreement < LEAST_AGREEMENT:
        share = f"{parity.top1_agreement:.0%}"
        raise GraftError(
            "merge_refused", reason=f"its likeliest token is the trained model's at only {share} of {parity.positions} positions"
        )
    return parity


def _parity_details(parity: Parity) -> dict[str, Any]:
    return {
        "merge_max_difference": parity.max_difference,
        "mean_kl": parity.mean_kl,
        "top1_agreement": parity.top1_agreement,
        "compared_rows": parity.rows,
        "compared_positions": parity.positions,
        "dtype": parity.dtype,
    }


def _measures(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: data.get(key) for key, _ in MEASURES}


def _pack(context: ExportContext, folder: Path, suffix: str, kind: str, details: dict[str, Any]) -> dict[str, Any]:
    """Zips `folder`, drops it, and announces the artifact."""
    target = context.out / "artifacts" / f"{slug(context.spec.name)}-{suffix}.zip"
    packed = archive(folder, target, _progress(context, "saving", "bytes"))
    if kind != "adapter":  # which merges still read
        shutil.rmtree(folder)
    event = packed.event(kind, context.out, details)
    context.emit("artifact", **event)
    return event


def _progress(context: ExportContext, phase: str, unit: str) -> Callable[[int, int], None]:
    """Emits a `phase` event at most every `PHASE_SECONDS`, and at the end."""
    last = float("-inf")

    def report(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= PHASE_SECONDS:
            last = time.monotonic()
            context.emit("phase", name=phase, done=done, total=total, unit=unit)

    return report


def slug(name: str) -> str:
    """A run's name as the beginning of a file name: lower-case ASCII letters, digits and single hyphens, at most 60."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].rstrip("-") or "run"
