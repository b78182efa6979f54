"""How a run would be carried out: what of its spec, method, model and device the estimate depends on. Free of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jobs.device import Device, choose_precision
from jobs.methods.registry import get_method
from jobs.planning.shape import Linear, ModelShape
from jobs.spec import EngineSpec, RunSpec, TrainingSpec

NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# transformers' attention classes hold their linear layers under one of these names.
_ATTENTION_LAYER = re.compile(r"\.(self_attn|self_attention|attention|attn)\.[^.]+$")


@dataclass(frozen=True)
class Way:
    """The run in the planner's terms. `rank` is 0 and `targets` are none where there is no adapter; `base_bits` is 4 or 8 for a quantised
    base.

    `trains_base`: every weight trains, and is then held in float32. `dropout` keeps LoRA from being computed as one product. `compiled` are
    the regions that have a library (`jobs.planning.compiled`).
    """

    device: Device
    method: str
    precision: str
    trains_base: bool
    base_bits: int
    rank: int
    dropout: float
    targets: tuple[Linear, ...]
    training: TrainingSpec
    engine: EngineSpec
    compiled: frozenset[str] = frozenset()

    @property
    def on_cpu(self) -> bool:
        """Whether the device is a CPU."""
        return self.device["kind"] == "cpu"

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in the arithmetic."""
        return NUMBER_BYTES[self.precision]

    @property
    def stream_bytes(self) -> int:
        """Bytes of a number of the residual stream: float32 where the weights are."""
        return 4 if self.trains_base else self.compute_bytes

    @property
    def rounds_inputs(self) -> bool:
        """Whether layers compute as LLM.int8 does, whose inputs are rounded to 8 bits too; on a CPU they compute with dense weights."""
        return self.base_bits == 8 and not self.on_cpu

    @property
    def packed(self) -> bool:
        """Whether rows are laid end to end."""
        return self.training.batching != "padded" and not self.rounds_inputs

    @property
    def grids(self) -> bool:
        """Whether rows are attended to in grids, by the engine's own attention."""
        return self.packed and self.engine.segment_attention and self.on_cpu

    @property
    def elementwise(self) -> bool:
        """Whether norms, rotary embedding and gated activation are the engine's regions, compiled or not."""
        return self.packed and self.engine.compile and self.on_cpu

    @property
    def fused_lora(self) -> bool:
        """Whether base and LoRA update are one matrix product."""
        return self.rank > 0 and self.engine.one_gemm_lora and not self.dropout and not self.rounds_inputs

    @property
    def packs_weights(self) -> bool:
        """Whether frozen float32 weights are held in oneDNN's layout besides, once for each direction."""
        return self.fused_lora and self.engine.packed_weights and self.on_cpu and self.precision == "float32" and self.base_bits == 16

    @property
    def mixes(self) -> bool:
        """Whether autocast makes narrow copies of weights and inputs."""
        return self.compute_bytes < 4 and not self.fused_lora

    @property
    def flat(self) -> bool:
        """Whether all trained weights are updated as one; their gradients then exist from the first step to the last."""
        return self.engine.flat_optimiser and self.training.optimiser == "adamw"

    @property
    def gradients_stay(self) -> bool:
        """Whether all gradients exist while a forward pass runs."""
        return self.flat or self.training.gradient_accumulation > 1 or self.training.micro_batch_tokens is not None


def choose_way(spec: RunSpec, device: Device, shape: ModelShape) -> Way:
    """The way of a spec on a device. Raises `UserError`: `method_unknown`, `method_setting`, `device_cannot`, `checkpointing_cannot`."""
    method = get_method(spec.method.id)
    settings: dict[str, Any] = method.resolve(dict(spec.method.settings))
    method.check_device(device)
    method.check_checkpointing(wanted=spec.training.gradient_checkpointing)
    rank = int(settings.get("rank", 0)) if method.capabilities.adapter else 0
    return Way(
        device=device,
        method=method.id,
        precision=choose_precision(spec.training.precision, device),
        trains_base=not method.capabilities.adapter,
        base_bits=method.base_bits(settings),
        rank=rank,
        dropout=float(settings.get("dropout", 0.0)),
        targets=_targets(shape, str(settings.get("targets", "all-linear"))) if rank else (),
        training=spec.training,
        engine=spec.engine,
    )


def _targets(shape: ModelShape, wanted: str) -> tuple[Linear, ...]:
    if wanted == "attention":
        return tuple(linear for linear in shape.linears if _ATTENTION_LAYER.search(linear.name))
    return shape.linears + shape.expert_linears
