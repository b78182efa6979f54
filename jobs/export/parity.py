"""Is the exported model the trained one? Both read the same held-out rows, and every logit is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
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
    """`model` computing in float32, quantised layers too; afterwards as before, with the same tensors.

    The 16-bit weights of a block (a decoder layer) are float32 while it runs, those outside of blocks all the time.
    """
    layers = [(module, module.compute_dtype) for module in model.modules() if hasattr(module, "compute_dtype")]
    blocks, rest = _blocks(model)
    with ExitStack() as stack:
        for block, weights in blocks.items():
            own = _Wide(weights)
            stack.callback(own.end)
            stack.callback(block.register_forward_pre_hook(partial(_call, own.begin)).remove)
            stack.callback(block.register_forward_hook(partial(_call, own.end), always_call=True).remove)
        outside = _Wide(rest)
        stack.callback(outside.end)
        outside.begin()
        try:
            for layer, _ in layers:
                layer.compute_dtype = torch.float32
            yield
        finally:
            for layer, dtype in layers:
                layer.compute_dtype = dtype


class _Wide:
    """16-bit weights, in float32 from `begin` to `end`; the narrow tensors are kept, for they may be views of others or of a file."""

    def __init__(self, weights: Sequence[torch.nn.Parameter]) -> None:
        self._weights = weights
        self._narrow: list[torch.Tensor] = []

    def begin(self) -> None:
        self._narrow = [weight.data for weight in self._weights]
        for weight in self._weights:
            weight.data = weight.data.float()

    def end(self) -> None:
        for weight, narrow in zip(self._weights, self._narrow, strict=False):  # nothing is kept before `begin`
            weight.data = narrow
        self._narrow = []


def _call(act: Callable[[], None], *_: Any) -> None:
    act()


def _blocks(model: torch.nn.Module) -> tuple[dict[torch.nn.Module, list[torch.nn.Parameter]], list[torch.nn.Parameter]]:
    """The 16-bit weights by block, and those that are outside of blocks too. Blocks are the layers that transformers can checkpoint: they
    are called as modules, and nothing else reads what is in them.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    def narrow(modules: Iterable[torch.nn.Module]) -> dict[int, torch.nn.Parameter]:
        found = (weight for module in modules for weight in module.parameters(recurse=False))
        return {id(weight): weight for weight in found if weight.dtype in (torch.bfloat16, torch.float16)}

    blocks: list[torch.nn.Module] = []
    within: set[torch.nn.Module] = set()
    for module in model.modules():  # a module comes before what is in it
        if module not in within and isinstance(module, GradientCheckpointingLayer):
            blocks.append(module)
            within.update(module.modules())
    rest = narrow(module for module in model.modules() if module not in within)
    own = {block: [weight for name, weight in narrow(block.modules()).items() if name not in rest] for block in blocks}
    return own, list(rest.values())


def _room_for_float32(model: Any) -> bool:
    """Whether memory holds, beside the model, another of its weights, and what is widened of either."""
    device = next(model.parameters()).device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    blocks, rest = _blocks(model)
    widest = max((sum(weight.numel() for weight in weights) for weights in blocks.values()), default=0)
    wide = 4 * (widest + sum(weight.numel() for weight in rest))
    return bool(free > next(model.parameters()).element_size() * base.num_parameters() + 2 * wide)
