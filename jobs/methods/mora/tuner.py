"""MoRA as a PEFT tuner (Jiang et al. 2024, arXiv:2405.12130).

    delta W x = decompress(M compress(x)),    M [s, s] zero at first, s = floor(sqrt((in + out) * r))

so that M has the numbers of a LoRA of rank r. Compress and decompress are fixed and linear, hence the update is a matrix and merges:

- sharing (Eq. 6): an input's segments of length s are added up, M's result is repeated up to the layer's outputs:
  delta W[i, j] = M[i mod s, j mod s].
- rotation (Eq. 7 and 9): segment c is rotated as rotary embeddings rotate position c, by c * 10000^(-2j/s) in its j-th plane, goes through
  M alone, and the results stand one after the other: delta W is M R_c where row block and column block c meet, else zero.

The paper gives both for equal sizes that s divides. Otherwise, as in its authors' code (type 1 and 6): the result is cut to the outputs,
or repeated where it is shorter. The last segment is filled up with zeros, so that no input counts twice. s is even for rotation, and not
above the smaller size, where rows or columns of M would go unused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.methods.mora.entry import side
from jobs.methods.own import OwnConfig, register
from jobs.methods.update import UpdateLayer, UpdateTuner

TYPE = "MORA"
_BASE = 10_000.0


@dataclass
class MoraConfig(OwnConfig):
    """What `adapter_config.json` holds."""

    own_type = TYPE
    r: int = field(default=8, metadata={"help": "rank of the LoRA with as many numbers"})
    operator: str = field(default="rotation", metadata={"help": "rotation or sharing"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.operator not in ("rotation", "sharing"):
            raise ValueError(f"operator is {self.operator!r}, neither rotation nor sharing")


class MoraLinear(UpdateLayer):
    """A linear layer with MoRA adapters; each has its matrix [s, s]."""

    adapter_layer_names = ("mora_matrix",)
    other_param_names = ("rotates",)

    def __init__(self, base_layer: nn.Module, **quantisation: Any) -> None:
        super().__init__(base_layer, **quantisation)
        self.mora_matrix = nn.ParameterDict()
        self.rotates: dict[str, bool] = {}

    def make(self, adapter: str, config: MoraConfig) -> None:
        """As the base class says."""
        self.rotates[adapter] = config.operator == "rotation"
        size = side(self.in_features, self.out_features, config.r, rotates=self.rotates[adapter])
        self.mora_matrix[adapter] = nn.Parameter(torch.zeros(size, size, device=self.device))

    def add(self, adapter: str, x: Tensor, result: Tensor) -> Tensor:
        """As the base class says."""
        matrix = self.mora_matrix[adapter]
        segments = _segments(self.operand(x, matrix), len(matrix))
        if self.rotates[adapter]:
            used = segments[:, : self._used(adapter)]
            parts = torch.bmm(used.transpose(0, 1), self._rotated(adapter).transpose(1, 2)).transpose(0, 1)
        else:
            parts = functional.linear(segments.sum(dim=1), matrix)
        return result + _lengthened(parts.reshape(len(x), -1), self.out_features).to(result.dtype)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """As the base class says."""
        matrix = self.mora_matrix[adapter]
        if self.rotates[adapter]:
            rotated = torch.block_diag(*self._rotated(adapter))  # type: ignore[no-untyped-call]
            missing = ceil(self.in_features / len(matrix)) * len(matrix) - rotated.shape[1]
            wide = functional.pad(rotated, (0, max(missing, 0)))
        else:
            wide = matrix.repeat(1, ceil(self.in_features / len(matrix)))
        return _lengthened(wide[:, : self.in_features].T, self.out_features).T

    def _used(self, adapter: str) -> int:
        """The segments of an input whose results are not cut off."""
        size = len(self.mora_matrix[adapter])
        return min(ceil(self.in_features / size), ceil(self.out_features / size))

    def _rotated(self, adapter: str) -> Tensor:
        """[segments, s, s]: M R_c of each segment c, so that inputs need not be rotated one by one."""
        matrix, size = self.mora_matrix[adapter], len(self.mora_matrix[adapter])
        planes = _BASE ** (-torch.arange(0, size, 2, device=matrix.device) / size)
        angles = torch.arange(self._used(adapter), device=matrix.device)[:, None, None] * planes
        even, odd = matrix.reshape(size, size // 2, 2).unbind(dim=2)
        # R_c [[cos, -sin], [sin, cos]] of each plane from the right: column 2j takes cos and sin, column 2j + 1 takes -sin and cos.
        pairs = (even * angles.cos() + odd * angles.sin(), odd * angles.cos() - even * angles.sin())
        return torch.stack(pairs, dim=3).flatten(2)


def _segments(x: Tensor, size: int) -> Tensor:
    """[tokens, segments, size] of [tokens, in], zeros at the end."""
    padded = functional.pad(x, (0, -x.shape[1] % size))
    return padded.reshape(len(x), -1, size)


def _lengthened(parts: Tensor, length: int) -> Tensor:
    """[rows, length]: cut, or repeated from the beginning."""
    if parts.shape[1] < length:
        parts = parts.repeat(1, ceil(length / parts.shape[1]))
    return parts[:, :length]


class MoraModel(UpdateTuner):
    """The tuner that PEFT knows by `TYPE`."""

    prefix = "mora_"
    tuner_layer_cls = MoraLinear


register(MoraConfig, MoraModel)
