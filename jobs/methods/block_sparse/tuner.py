"""Block-sparse fine-tuning as a PEFT tuner (Harada, Yamasaki and Yoshida, 2025).

A frozen weight W [out, in] is split in n x m blocks. Scores W_p [n, m] start from N(0, 1); the k blocks with the highest are selected, at
positions p, with v = max(0, W_p[p]). Each has values W_v [k, out/n, in/m], which start at zero:

    delta W = alpha * Sparse(p, v * W_v)        trained numbers: n * m + k * (out/n) * (in/m)

Scores learn by the gradient through v. Which blocks are selected follows from the scores, after each update (`selection`); here a *slot*,
a place in W_v, keeps its block as long as that stays selected: ordered by score instead, as top-k gives them, trained values would move to
another block whenever two scores change their order. A size that n or m does not divide has blocks of the next whole size, the last one
cut, and maybe fewer of them; where they are fewer than k, all are selected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from peft.tuners._buffer_dict import BufferDict
from torch import Tensor, nn
from torch.nn import functional

from jobs.methods.block_sparse.entry import grid as grid_of
from jobs.methods.own import OwnConfig, register
from jobs.methods.update import UpdateLayer, UpdateTuner

TYPE = "BLOCK_SPARSE"


@dataclass
class BlockSparseConfig(OwnConfig):
    """What `adapter_config.json` holds, by the letters of the paper."""

    own_type = TYPE
    n: int = field(default=24, metadata={"help": "rows of blocks"})
    m: int = field(default=32, metadata={"help": "columns of blocks"})
    k: int = field(default=15, metadata={"help": "selected blocks of each matrix"})
    alpha: float = field(default=1.0, metadata={"help": "scale of the update"})


class Grid(NamedTuple):
    """`n` rows and `m` columns of blocks, each `height` outputs by `width` inputs."""

    n: int
    m: int
    height: int
    width: int


class BlockSparseLinear(UpdateLayer):
    """A linear layer with block-sparse adapters; each has its scores [n, m], values [k, height, width] and positions int32 [k], the block
    of each slot as row * m + column. Positions are saved: scores that were rounded on the way might select others.
    """

    adapter_layer_names = ("block_sparse_scores", "block_sparse_values")
    other_param_names = ("block_sparse_positions", "grid", "alpha")

    def __init__(self, base_layer: nn.Module, **quantisation: Any) -> None:
        super().__init__(base_layer, **quantisation)
        self.block_sparse_scores = nn.ParameterDict()
        self.block_sparse_values = nn.ParameterDict()
        self.block_sparse_positions = BufferDict({}, persistent=True)
        self.grid: dict[str, Grid] = {}
        self.alpha: dict[str, float] = {}

    def make(self, adapter: str, config: BlockSparseConfig) -> None:
        """As the base class says; scores are drawn on the CPU, so that they are the same wherever the base is."""
        grid = Grid(*grid_of(self.out_features, self.in_features, config.n, config.m))
        scores, k = torch.randn(grid.n, grid.m), min(config.k, grid.n * grid.m)
        self.grid[adapter], self.alpha[adapter] = grid, config.alpha
        self.block_sparse_scores[adapter] = nn.Parameter(scores.to(self.device))
        self.block_sparse_values[adapter] = nn.Parameter(torch.zeros(k, grid.height, grid.width, device=self.device))
        # Sorted, so that the order of the slots hangs on nothing but the selection.
        selected = scores.flatten().topk(k).indices.sort().values
        self.block_sparse_positions[adapter] = selected.to(self.device, torch.int32)

    def blocks(self, adapter: str) -> Tensor:
        """float32 [k, height, width]: what is added to the weight at the selected places, alpha * v * W_v. Unselected scores get no
        gradient by it, and a selected one that is not positive gets none either, for its block adds nothing.
        """
        scores, positions = self.block_sparse_scores[adapter], self.block_sparse_positions[adapter]
        selected = scores.flatten().index_select(0, positions).clamp(min=0)
        blocks: Tensor = (self.alpha[adapter] * selected)[:, None, None] * self.block_sparse_values[adapter]
        return blocks

    def add(self, adapter: str, x: Tensor, result: Tensor) -> Tensor:
        """As the base class says. Each slot takes its block's inputs and adds to its block's outputs: k small products."""
        grid, positions = self.grid[adapter], self.block_sparse_positions[adapter]
        blocks = self.blocks(adapter)
        inputs = functional.pad(self.operand(x, blocks), (0, grid.m * grid.width - self.in_features))
        taken = inputs.reshape(-1, grid.m, grid.width).index_select(1, positions % grid.m)
        parts = torch.bmm(taken.transpose(0, 1), blocks.transpose(1, 2))
        outputs = functional.pad(result, (0, grid.n * grid.height - self.out_features)).reshape(-1, grid.n, grid.height)
        rows = torch.div(positions, grid.m, rounding_mode="floor")
        added = outputs.index_add(1, rows, parts.transpose(0, 1).to(result.dtype))
        return added.reshape(len(x), -1)[:, : self.out_features]

    def get_delta_weight(self, adapter: str) -> Tensor:
        """As the base class says."""
        grid, positions = self.grid[adapter], self.block_sparse_positions[adapter].long()
        blocks = self.blocks(adapter)
        dense = blocks.new_zeros(grid.n * grid.m, grid.height, grid.width).index_copy(0, positions, blocks)
        rows = dense.reshape(grid.n, grid.m, grid.height, grid.width).transpose(1, 2)
        return rows.reshape(grid.n * grid.height, grid.m * grid.width)[: self.out_features, : self.in_features]


class BlockSparseModel(UpdateTuner):
    """The tuner that PEFT knows by `TYPE`."""

    prefix = "block_sparse_"
    tuner_layer_cls = BlockSparseLinear


register(BlockSparseConfig, BlockSparseModel)
