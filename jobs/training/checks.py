"""What is checked on a few real rows before training, since some architectures go wrong without a word.

Packed rows must not see each other and must give what each row gives alone (state-space and convolution layers leak, some position
codes run on); our own head must give the model's own logits (some scale them). Where not, the plain way is taken, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jobs.data.encoding import Encoded
from jobs.models.quantisation import mixes_rows
from jobs.models.virtual import virtual_tokens
from jobs.spec import EngineSpec
from jobs.training import attention
from jobs.training.batches import Batch
from jobs.training.elementwise import Elementwise
from jobs.training.forward import Forward, base_model, head_of
from jobs.training.fused_lora import fuse
from jobs.training.kernels import Device, Kernels

_ROWS = 3
_PREFIX = 8
_TOKENS = 64
# Largest relative difference from the plain way: rounding of another order of sums, in the arithmetic's own type.
_AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 0.03}
_VIRTUAL = "This method puts virtual tokens before each row: rows are padded and run through the whole model, and all logits are computed."
_OUTLIERS = (
    "In LLM.int8 the columns of the inputs that are not rounded to 8 bits are found from all tokens of a product together, so that rows "
    "laid end to end would see each other: they are padded."
)
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts")


def choose_forward(
    model: Any, rows: Sequence[Encoded], *, dtype: torch.dtype, device: str, batching: str = "auto", engine: EngineSpec | None = None
) -> tuple[Forward, list[str]]:
    """How this model is to be run, and what was found against the fast way (one sentence each).

    `rows` are some rows of the data; `batching` is the spec's: `padded` keeps to it, `packed` and `auto` pack where it is exact. `engine`
    says which fast ways are wanted; those that would not give what each row gives alone are left out. The fast ways go past what PEFT
    does around the base model, and so past virtual tokens: with these the plain way alone is right.
    """
    if virtual_tokens(model):
        return Forward(model, dtype, device, packs=False, own_head=False), [_VIRTUAL]
    engine = engine or EngineSpec()
    attention.register()
    was_training = model.training
    model.eval()
    try:
        plain = Forward(model, dtype, device, packs=False, own_head=False)
        sample = _Sample(plain, _beginnings(rows))
        reasons = []
        packs = batching != "padded" and not (reason := _OUTLIERS if mixes_rows(model) else _why_not_packed(sample))
        if batching != "padded" and not packs:
            reasons.append(reason)
        own_head = engine.label_head and not (reason := _why_not_own_head(sample))
        if engine.label_head and not own_head:
            reasons.append(reason)
        forward = replace(plain, packs=packs, own_head=own_head)
        fast = _fastest(forward, sample.rows[0], engine)
        if fast != forward and (reason := _why_not_fast(fast, sample)):
            reasons.append(reason)
            fast = forward
        reasons += fast.kernels.reasons if fast.kernels else []
    finally:
        model.train(was_training)
    return fast, reasons


def _fastest(forward: Forward, row: Encoded, engine: EngineSpec) -> Forward:
    """All that the spec asks for, of what this device has. `row` is one to try."""
    model, on_cpu = forward.model, forward.device == "cpu"
    if forward.packs:
        forward = replace(forward, grids=engine.segment_attention and on_cpu, shares_prefix=engine.shared_prefix)
    if engine.one_gemm_lora and hasattr(model, "peft_config"):
        lora = fuse(model, lambda: _hidden(forward, [row]), packed_weights=engine.packed_weights)
        lora.refresh()
        forward = replace(forward, lora=lora if lora.groups else None)
    if engine.compile and forward.packs and on_cpu:
        elementwise = Elementwise(base_model(model))
        forward = replace(forward, elementwise=elementwise if elementwise.count else None)
    if forward.packs and engine.segment_attention and not on_cpu:
        forward = replace(forward, kernels=Kernels(Device.of(forward.device)))
    return forward


@dataclass(frozen=True)
class _Sample:
    """Rows, and what the plain way gives for each of them alone."""

    plain: Forward
    rows: Sequence[Encoded]

    @cached_property
    def alone(self) -> list[Tensor]:
        """The hidden states [labels, width] of each row."""
        return [_hidden(self.plain, [row]) for row in self.rows]


def _beginnings(rows: Sequence[Encoded]) -> list[Encoded]:
    """The first tokens of some rows, all with one prefix; every token but the first is a label, so that all hidden states are compared."""
    longest = sorted(rows, key=lambda row: len(row.ids))[-_ROWS:]
    prefix = longest[-1].ids[:_PREFIX]
    ids = [np.concatenate((prefix, row.ids[_PREFIX:_TOKENS], row.ids[:1])) for row in longest]
    return [Encoded(row, np.arange(len(row)) > 0) for row in ids]


@torch.no_grad()
def _hidden(forward: Forward, rows: Sequence[Encoded]) -> Tensor:
    batch: Batch = forward.batch(rows)
    with forward.running(batch):
        return forward.hidden(batch).float()


@torch.no_grad()
def _logits(plain: Forward, row: Encoded) -> Tensor:
    batch = plain.batch([row])
    with plain.running(batch):
        return plain.model_logits(batch)


def _why_not_packed(sample: _Sample) -> str:
    """Empty where packing is exact."""
    plain, rows = sample.plain, sample.rows
    packed = Forward(plain.model, plain.dtype, plain.device, packs=True, own_head=False)
    try:
        together = _hidden(packed, rows)
        poisoned = _hidden(packed, [_poisoned(rows[0], plain.model), *rows[1:]])
    except (attention.Unpackable, KeyError, ValueError, NotImplementedError, AttributeError) as failure:
        return f"Rows cannot be laid end to end in this architecture ({type(failure).__name__}: {failure})."
    first = int(rows[0].trained.sum())
    moved = float((together[first:] - poisoned[first:]).abs().max()) if len(rows) > 1 else 0.0
    if moved > _tolerated_movement(plain, together):
        return f"In this architecture rows laid end to end see each other (hidden states moved by {moved:.1e})."
    if (apart := _difference(together, torch.cat(sample.alone), plain.dtype)) > _AGREEMENT[plain.dtype]:
        return f"In this architecture rows laid end to end differ from rows alone (by {apart:.1e} of their size)."
    return ""


def _why_not_fast(fast: Forward, sample: _Sample) -> str:
    """Empty where all fast ways together give what each row gives alone. A prefix that is shared holds no label."""
    rows = [Encoded(row.ids, np.arange(len(row.ids)) > _PREFIX) for row in sample.rows]
    try:
        together = _hidden(fast, rows)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError) as failure:
        return f"The fast ways do not fit this architecture ({type(failure).__name__}: {failure})."
    alone, dtype = torch.cat([states[_PREFIX:] for states in sample.alone]), sample.plain.dtype
    if (apart := _difference(together, alone, dtype)) > _AGREEMENT[dtype]:
        return f"In this architecture the fast ways differ from rows alone (by {apart:.1e} of their size)."
    return ""


def _poisoned(row: Encoded, model: Any) -> Encoded:
    """The row with every token replaced by its neighbour in the vocabulary."""
    return Encoded((row.ids + 1) % model.get_input_embeddings().weight.shape[0], row.trained)


def _tolerated_movement(plain: Forward, hidden: Tensor) -> float:
    """None for a dense model: same shapes, same kernels, same sums. Experts get batches of other sizes, so their rounding may differ."""
    config = plain.model.config
    if not any(getattr(config, key, None) for key in _EXPERT_KEYS):
        return 0.0
    return 8 * torch.finfo(plain.dtype).eps * float(hidden.abs().max())


@torch.no_grad()
def _why_not_own_head(sample: _Sample) -> str:
    """Empty where the plain output layer on the last hidden state gives the model's own logits."""
    plain = sample.plain
    layer = base_model(plain.model).get_output_embeddings()
    if type(layer) is not nn.Linear:
        return f"The output layer is of a kind of its own ({type(layer).__name__}); all logits are computed."
    own = head_of(plain.model).logits(torch.cat(sample.alone), plain.dtype)
    wanted = torch.cat([_logits(plain, row) for row in sample.rows])
    if (apart := _difference(own, wanted, plain.dtype)) > _AGREEMENT[plain.dtype] / 10:
        return f"This model changes its logits after the output layer (by {apart:.1e} of their size); all logits are computed."
    return ""


def _difference(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> float:
    """How far rows of numbers are apart, each as a share of its norm: the worst in float32, in 16 bits the worst of nine in ten, for there
    rounding alone can carry a single chaotic token far off. What mixes rows up moves all places of a row.
    """
    apart = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1).clamp_min(1e-12)
    return float(apart.max() if dtype == torch.float32 else apart.quantile(0.9))
