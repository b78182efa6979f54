"""AdamW over all trained weights as one: a few long vectors in place of hundreds of small tensors.

Every trained weight becomes a view of one float32 vector, its gradient a view of another, so that an update is one call for each group,
clipping one norm and one product, and forgetting the gradients one fill. The numbers are those of one call for each weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from jobs.training.optimiser import Group, Optimiser, by_weight, fused_adamw

# Each weight starts at a multiple of 64 bytes, as torch's own allocations do: matrix products want it.
_ALIGNMENT = 16


class FlatAdamW(Optimiser):
    """Fused AdamW whose weights are one vector for each group. Its state is stored by weight, as that of the others is.

    Gradients stay allocated and are zero where nothing was added. So a weight that a step did not reach, an expert without a token, still
    moves with its momentum; where weights are updated one by one, it rests.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._places: dict[str, tuple[nn.Parameter, slice]] = {}
        ends = list(accumulate((sum(map(_room, group.parameters.values())) for group in groups), initial=0))
        device = next(iter(groups[0].parameters.values())).device
        weights = torch.zeros(ends[-1], device=device)
        self._gradient = torch.zeros_like(weights)
        flat = []
        for start, end in pairwise(ends):
            flat.append(nn.Parameter(weights[start:end]))
            flat[-1].grad = self._gradient[start:end]
        super().__init__(
            [
                Group({str(place): vector}, group.weight_decay, group.rate_factor)
                for place, (vector, group) in enumerate(zip(flat, groups, strict=True))
            ],
            fused_adamw,
        )
        self.parameters = {name: parameter for group in groups for name, parameter in group.parameters.items()}
        for vector, group in zip(flat, groups, strict=True):
            self._take(group, vector)

    def _take(self, group: Group, vector: nn.Parameter) -> None:
        """Makes the weights of a group, and their gradients, views of its vectors."""
        assert vector.grad is not None  # noqa: S101 - for the type checker
        start = 0
        for name, parameter in group.parameters.items():
            place = slice(start, start + parameter.numel())
            view = vector.detach()[place].view(parameter.shape)
            parameter.data = view.copy_(parameter.detach())
            parameter.grad = vector.grad[place].view(parameter.shape)
            self._places[name] = vector, place
            start += _room(parameter)

    def forget_gradients(self) -> None:
        """Sets the gradients to zero where they are: backward adds to the views."""
        self._gradient.zero_()

    def reset(self, name: str, index: Tensor) -> None:
        """Forgets the moments of some entries of a weight, by their places in it laid flat, int64 [entries]."""
        vector, place = self._places[name]
        for value in self.inner.state.get(vector, {}).values():
            if value.ndim:
                value[place][index] = 0

    def tensors(self) -> dict[str, Tensor]:
        """The state by `<weight>/<key>`; empty before the first update."""
        found: dict[str, Tensor] = {}
        for name, (vector, place) in self._places.items():
            for key, value in self.inner.state.get(vector, {}).items():
                found[f"{name}/{key}"] = value[place].view(self.parameters[name].shape) if value.ndim else value.clone()
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave, be it of this optimiser or of AdamW weight by weight."""
        for name, values in by_weight(tensors).items():
            vector, place = self._places[name]
            state = self.inner.state[vector]
            for key, value in values.items():
                whole = state.setdefault(key, torch.zeros_like(vector) if value.ndim else torch.zeros((), device=vector.device))
                (whole[place].view(value.shape) if value.ndim else whole).copy_(value)

    def _gradients(self) -> list[Tensor]:
        return [self._gradient]


def _room(parameter: Tensor) -> int:
    """The numbers that a weight takes in the vector."""
    return -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
