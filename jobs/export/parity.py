"""Is the exported model the trained one? Both read the same held-out rows, and every logit is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from jobs.models.attention import plain_inference

# Bounds the memory of a language model's logits: positions x vocabulary x 4 bytes, 100 MB at a vocabulary of 49,152.
POSITIONS = 512
POSITIONS_PER_ROW = 64
# From a model and a row to float32 [places, classes] in host memory.
Read = Callable[[Any, Any], torch.Tensor]


@dataclass(frozen=True)
class Reference:
    """Logits of the trained model, float32 in host memory: one tensor [positions, classes] for each row, as `read` gives it. Where the
    model writes, its classes are the vocabulary.
    """

    rows: list[Any]
    logits: list[torch.Tensor]
    dtype: str
    read: Read


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


def beginnings(rows: Iterable[Sequence[int]]) -> list[list[int]]:
    """The first tokens of some rows, `POSITIONS` in all; each position follows its whole context."""
    found: list[list[int]] = []
    left = POSITIONS
    for row in rows:
        if left < 1:
            break
        found.append([int(token) for token in row[: min(left, POSITIONS_PER_ROW)]])
        left -= len(found[-1])
    return found


def causal_logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """The logits at every position of one row of token ids, by itself so that no padding takes part; virtual tokens come before it."""
    row = torch.tensor([list(ids)], device=next(model.parameters()).device)
    logits: torch.Tensor = model(input_ids=row, use_cache=False).logits[0, -len(ids) :]
    return logits.float().cpu()


def reference(model: Any, rows: Sequence[Any], precision: str, read: Read = causal_logits) -> Reference:
    """Reads rows (of token ids, or whatever `read` takes) with the trained model.

    In float32 where memory allows, so that what is compared is the weights, not the rounding of the arithmetic; else in `precision`.
    """
    dtype = "float32" if _room_for_float32(model) else precision
    return Reference(list(rows), logits_of(model, rows, dtype, read), dtype, read)


def compare(model: Any, trained: Reference) -> Parity:
    """Reads the same rows with `model`. A logit that is not finite makes the difference infinite, and agrees with nothing."""
    difference = kl = same = positions = 0.0
    for expected, found in zip(trained.logits, logits_of(model, trained.rows, trained.dtype, trained.read), strict=True):
        gap = (expected - found).abs().max().item()
        difference = max(difference, gap if math.isfinite(gap) else math.inf)
        ours, theirs = expected.log_softmax(-1), found.log_softmax(-1)
        kl += (ours.exp() * (ours - theirs)).sum().item()
        same += ((expected.argmax(-1) == found.argmax(-1)) & found.isfinite().all(-1)).sum().item()
        positions += len(expected)
    count = max(positions, 1.0)
    return Parity(difference, kl / count, same / count, len(trained.rows), int(positions), trained.dtype)


def logits_of(model: Any, rows: Sequence[Any], precision: str, read: Read = causal_logits) -> list[torch.Tensor]:
    """The logits of every row as `read` gives them, one row at a time.

    A model whose weights are float32 computes under autocast where `precision` is narrower, as it did in training.
    """
    weight = next(model.parameters())
    mixed = precision != "float32" and weight.dtype == torch.float32
    arithmetic = torch.autocast(weight.device.type, getattr(torch, precision)) if mixed else nullcontext()
    with plain_inference(model), torch.no_grad(), widened(model) if precision == "float32" else nullcontext(), arithmetic:
        return [read(model, row) for row in rows]


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
