"""The value matrices of AdapterFusion are held near the identity, with which they begin."""

from __future__ import annotations

import torch
from torch import Tensor

from jobs.methods.hooks import Hooks

_VALUE = ".value"


class FusionHooks(Hooks):
    """Adds value_penalty * sum over places of |V - I|^2 to the loss, as the paper regularises V ("to avoid introducing additional
    capacity"); towards the identity, not towards zero, as in its authors' code.
    """

    def decays(self, weight: str) -> bool:
        """As the base class says: decay would pull V to zero."""
        return not weight.endswith(_VALUE)

    def penalty(self) -> Tensor | None:
        """As the base class says."""
        strength = float(self.settings["value_penalty"])
        if not strength:
            return None
        values = [value for name, value in self.model.named_parameters() if name.endswith(_VALUE) and value.requires_grad]
        apart = [(value - torch.eye(len(value), device=value.device)).square().sum() for value in values]
        return strength * torch.stack(apart).sum()
