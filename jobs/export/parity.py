"""Is the exported model the trained one? Both read the same held-out rows, and every logit is compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from jobs.models.attention import plain_inference

# Bounds the memory of the reference logits: positions x vocabulary x 4 bytes, 100 MB at a vocabulary of 49,152.
POSITIONS = 512
POSITIONS_PER_ROW = 64


@dataclass(frozen=True)
class Reference:
    """Logits of the trained model, float32 in host memory, one tensor [positions, vocabulary] for each row of token ids."""

    rows: list[list[int]]
    logits: list[torch.Tensor]
    dtype: str


@dataclass(frozen=True)
class Parity:
    """How far another model's logits are from the reference: the largest absolute difference, the mean KL divergence (nats) from the
    reference's distribution, and the share of positions whose likeliest token is the same.
    """

    max_difference: float
    mean_kl: float
    top1_agreement: float
    rows: int
    positions: int
    dtype: str


def reference(model: Any, held_out: Sequence[Sequence[int]], precision: str) -> Reference:
    """Reads the first rows with the trained model, `POSITIONS` positions in all; each position follows its whole context.

    In float32 where memory allows, so that what is compared is the weights, not the rounding of the arithmetic; else in `precision`.
    """
    rows: list[list[int]] = []
    left = POSITIONS
    for row in held_out:
        if left < 1:
            break
        ids = [int(token) for token in row[: min(left, POSITIONS_PER_ROW)]]
        rows.append(ids)
        left -= len(ids)
    dtype = "float32" if _room_for_float32(model) else precision
    return Reference(rows, logits_of(model, rows, dtype), dtype)


def compare(model: Any, trained: Reference) -> Parity:
    """Reads the same rows with `model`. A logit that is not finite makes the difference infinite, and agrees with nothing."""
    difference = kl = same = positions = 0.0
    for expected, found in zip(trained.logits, logits_of(model, trained.rows, trained.dtype), strict=True):
        gap = (expected - found).abs().max().item()
        difference = max(difference, gap if math.isfinite(gap) else math.inf)
        ours, theirs = expected.log_softmax(-1), found.log_softmax(-1)
        kl += (ours.exp() * (ours - theirs)).sum().item()
        same += ((expected.argmax(-1) == found.argmax(-1)) & found.isfinite().all(-1)).sum().item()
        positions += len(expected)
    count = max(positions, 1.0)
    return Parity(difference, kl / count, same / count, len(trained.rows), int(positions), trained.dtype)


def logits_of(model: Any, rows: Sequence[Sequence[int]], precision: str) -> list[torch.Tensor]:
    """The logits at every position of every row, float32 [positions, vocabulary], one row at a time so that no padding takes part.

    A model whose weights are float32 computes under autocast where `precision` is narrower, as it did in training.
    """
    weight = next(model.parameters())
    mixed = precision != "float32" and weight.dtype == torch.float32
    arithmetic = torch.autocast(weight.device.type, getattr(torch, precision)) if mixed else nullcontext()
    logits = []
    with plain_inference(model), torch.no_grad(), widened(model) if precision == "float32" else nullcontext(), arithmetic:
        for row in rows:
            ids = torch.tensor([row], device=weight.device)
            logits.append(model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return logits


@contextmanager
def widened(model: Any) -> Iterator[None]:
    """`model` with its 16-bit parameters in float32, and 4-bit layers computing in it; afterwards as before, bit for bit."""
    narrow = [(parameter, parameter.dtype) for parameter in model.parameters() if parameter.dtype in (torch.bfloat16, torch.float16)]
    layers = [(module, module.compute_dtype) for module in model.modules() if hasattr(module, "compute_dtype")]
    try:
        for parameter, _ in narrow:
            parameter.data = parameter.data.float()
        for layer, _ in layers:
            layer.compute_dtype = torch.float32
        yield
    finally:
        for parameter, dtype in narrow:
            parameter.data = parameter.data.to(dtype)
        for layer, dtype in layers:
            layer.compute_dtype = dtype


def _room_for_float32(model: Any) -> bool:
    """Whether memory holds the model widened to float32 and, beside it, its merged form in float32."""
    device = next(model.parameters()).device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    numbers = base.num_parameters()
    return bool(free > 2 * 4 * numbers)
