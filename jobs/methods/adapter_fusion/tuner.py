"""AdapterFusion as a PEFT tuner (Pfeiffer et al. 2020, arXiv:2005.00247, section 3.2).

At each place, with y what the layer gives and z_n what adapter n of N would add to it, all [width] of one token:

    s = softmax over n of (y' Q) . (z_n' K),    o = sum_n s_n (z_n' V),    the result is y + o

Q, K and V [width, width] are trained, all else is frozen. Q and K are drawn as BERT's weights are, V begins as the identity, so that o is
at first a mean of the adapters (the paper adds noise of 1e-6 to it). Computed as (y' Q K') . z_n and (sum_n s_n z_n)' V, which is the same
and takes three matrix products, however many adapters there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from jobs.methods.bottlenecks import Block, BlockLayer, BlockTuner, Form
from jobs.methods.own import OwnConfig, register

TYPE = "ADAPTER_FUSION"
_DEVIATION = 0.02


@dataclass
class FusionConfig(OwnConfig):
    """What `adapter_config.json` holds; `fused` are the fields of the `Form` of each fused adapter."""

    own_type = TYPE
    fused: list[dict[str, Any]] = field(default_factory=list, metadata={"help": "how the blocks of each fused adapter are made"})
    inputs: dict[str, str] = field(
        default_factory=dict, metadata={"help": "layers that read the modules' inputs, where blocks are parallel"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(Form(**form).kronecker for form in self.fused):
            raise ValueError("Compacter's adapters share factors over the whole model and are not fused")


class Attention(nn.Module):
    """The attention over adapters of one place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width, width) * _DEVIATION)
        self.key = nn.Parameter(torch.randn(width, width) * _DEVIATION)
        self.value = nn.Parameter(torch.eye(width))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """The o [..., width] of y [..., width] and z [..., adapters, width]."""
        asked = y @ self.query @ self.key.T
        shares = (z @ asked[..., None]).float().softmax(dim=-2).to(z.dtype)
        found: Tensor = (shares * z).sum(dim=-2) @ self.value
        return found


class FusionLayer(BlockLayer):
    """A layer with, for each adapter of ours, the frozen blocks that it fuses and the attention over them."""

    adapter_layer_names = ("fusion_attention",)
    other_param_names = ("fusion_blocks",)

    def __init__(self, base_layer: nn.Module, shared: Mapping[str, Tensor]) -> None:
        super().__init__(base_layer, shared)
        self.fusion_attention = nn.ModuleDict()
        self.fusion_blocks = nn.ModuleDict()

    def make(self, adapter: str, config: FusionConfig) -> None:
        """As the base class says."""
        self.fusion_attention[adapter] = Attention(self.width)
        blocks = nn.ModuleList(Block(self.width, Form(**form)) for form in config.fused)
        self.fusion_blocks[adapter] = blocks.requires_grad_(False)

    def update(self, adapter: str, read: Tensor | None, given: Tensor) -> Tensor:
        """As the base class says."""
        blocks: Any = self.fusion_blocks[adapter]
        z = torch.stack([self.run(block, adapter, read, given) for block in blocks], dim=-2)
        found: Tensor = self.fusion_attention[adapter](self.operand(given), z)
        return found


class FusionModel(BlockTuner):
    """The tuner that PEFT knows by `TYPE`."""

    prefix = "fusion_"
    tuner_layer_cls = FusionLayer


register(FusionConfig, FusionModel)
