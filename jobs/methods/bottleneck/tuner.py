"""Bottleneck adapters and Compacter as a PEFT tuner; the equations are in `jobs.methods.bottlenecks`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from jobs.methods.bottlenecks import BLOCK, BOTTLENECK, Block, BlockLayer, BlockTuner, Form, shared_factors
from jobs.methods.own import OwnConfig, register


@dataclass
class BottleneckConfig(OwnConfig):
    """What `adapter_config.json` holds; `form` are the fields of a `Form`."""

    own_type = BOTTLENECK
    form: dict[str, Any] = field(default_factory=lambda: {"size": 64}, metadata={"help": "how the blocks are made"})
    inputs: dict[str, str] = field(
        default_factory=dict, metadata={"help": "layers that read the modules' inputs, where blocks are parallel"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        Form(**self.form)  # refuses what no block can be


class BottleneckLayer(BlockLayer):
    """A layer with one block for each adapter."""

    adapter_layer_names = (BLOCK,)

    def __init__(self, base_layer: nn.Module, shared: Mapping[str, Tensor]) -> None:
        super().__init__(base_layer, shared)
        self.bottleneck_block = nn.ModuleDict()

    def make(self, adapter: str, config: BottleneckConfig) -> None:
        """As the base class says."""
        self.bottleneck_block[adapter] = Block(self.width, Form(**config.form))

    def update(self, adapter: str, read: Tensor | None, given: Tensor) -> Tensor:
        """As the base class says."""
        block: Any = self.bottleneck_block[adapter]
        return self.run(block, adapter, read, given)


class BottleneckModel(BlockTuner):
    """The tuner that PEFT knows. Compacter's factors stand here, once for the model, and are saved once."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    uses_shared_state = True

    def shared(self) -> Mapping[str, Tensor]:
        """As the base class says."""
        found: Any = self.bottleneck_factors
        return cast(Mapping[str, Tensor], found)

    def _pre_injection_hook(self, model: nn.Module, config: BottleneckConfig, adapter_name: str) -> None:
        if not hasattr(self, "bottleneck_factors"):
            self.bottleneck_factors = nn.ParameterDict()
        if n := Form(**config.form).kronecker:
            device = next(model.parameters()).device
            self.bottleneck_factors[adapter_name] = nn.Parameter(shared_factors(n).to(device), requires_grad=not config.inference_mode)


register(BottleneckConfig, BottleneckModel)
