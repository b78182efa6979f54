"""How a run would be carried out: what of its spec, method, model and device the estimate depends on. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.device import Device, choose_precision
from jobs.methods.adapter import Adapter, Keeps, read_config
from jobs.methods.registry import get_method
from jobs.planning.batches import BatchShape
from jobs.planning.shape import Linear, ModelShape
from jobs.spec import EngineSpec, RunSpec, TrainingSpec

NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Equal to that of jobs.training.optimiser, which imports torch; tests hold them together.
FLAT_NUMBERS_ON_CPU = 2**24


@dataclass(frozen=True)
class Way:
    """The run in the planner's terms. `adapter` is what the method puts upon the base, None where the base itself trains; `targets` are
    those layers within decoder layers that it changes. `base_bits` is 4 or 8 for a quantised base.

    `trains_base`: every weight trains, and is then held in float32. `dropout` keeps LoRA from being computed as one product. `compiled` are
    the regions that have a library (`jobs.planning.compiled`), `trained` the numbers of all that trains.
    """

    device: Device
    method: str
    precision: str
    trains_base: bool
    base_bits: int
    adapter: Adapter | None
    dropout: float
    targets: tuple[Linear, ...]
    training: TrainingSpec
    engine: EngineSpec
    compiled: frozenset[str] = frozenset()
    trained: int = 0

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
        return self.training.batching != "padded" and not self.rounds_inputs and not self.prompts

    @property
    def prompts(self) -> bool:
        """Whether virtual tokens stand before each row: rows are then padded, and run through the whole model to its logits."""
        return self.adapter is not None and bool(self.adapter.before or self.adapter.cached)

    @property
    def label_head(self) -> bool:
        """Whether the output layer sees label positions alone."""
        return self.engine.label_head and not self.prompts

    def lengthened(self, batch: BatchShape) -> BatchShape:
        """A batch of rows with the virtual tokens that pass through the model before each."""
        before = self.adapter.before if self.adapter else 0
        if not before:
            return batch
        return replace(batch, computed=batch.computed + before * batch.rows, squares=batch.rows * (batch.longest + before) ** 2)

    @property
    def keeps(self) -> Keeps:
        """What a step keeps for the adapter in all layers, as far as is known."""
        return (self.adapter.keeps if self.adapter else None) or Keeps()

    @property
    def ranks(self) -> Mapping[str, int]:
        """Of the layers that have LoRA's two matrices and nothing else."""
        return self.adapter.ranks if self.adapter else {}

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
        return bool(self.ranks) and self.engine.one_gemm_lora and not self.dropout and not self.rounds_inputs

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
        few = not self.on_cpu or self.trained <= FLAT_NUMBERS_ON_CPU
        return self.engine.flat_optimiser and self.training.optimiser == "adamw" and few

    @property
    def gradients_stay(self) -> bool:
        """Whether all gradients exist while a forward pass runs."""
        return self.flat or self.training.gradient_accumulation > 1 or self.training.micro_batch_tokens is not None


def choose_way(spec: RunSpec, device: Device, shape: ModelShape, labels: int = 2) -> Way:
    """The way of a spec on a device, for so many labels where it classifies.

    Raises `UserError`: `method_unknown`, `method_setting`, `method_cannot`, `device_cannot`, `checkpointing_cannot`.
    """
    method = get_method(spec.method.id)
    settings: dict[str, Any] = method.resolve(dict(spec.method.settings))
    method.check_device(device)
    method.check_checkpointing(wanted=spec.training.gradient_checkpointing)
    finished = [config for path in spec.method.adapters if (config := read_config(Path(path)))]
    adapter = method.plan_adapter(settings, shape.frame(spec.task, labels), finished)
    adapted = {layer.name for layer in adapter.layers} if adapter else set()
    return Way(
        device=device,
        method=method.id,
        precision=choose_precision(spec.training.precision, device),
        trains_base=not method.capabilities.adapter,
        base_bits=method.base_bits(settings),
        adapter=adapter,
        dropout=float(settings.get("dropout", 0.0)),
        targets=tuple(linear for linear in shape.linears if linear.name in adapted),
        training=spec.training,
        engine=spec.engine,
        trained=adapter.numbers if adapter else shape.total_parameters,
    )
