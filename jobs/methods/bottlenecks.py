"""What bottleneck adapters, Compacter and AdapterFusion share: the block, and tuners that put blocks behind the layers of a model.

A block narrows an activation, bends it and widens it again (Houlsby et al. 2019, arXiv:1902.00751), all weights in float32:

    f(x) = scale * up(g(down(x)))

It reads what the module's last layer gives and is added to that, so with the zero start of `up` the model begins as the base; or it is
parallel (He et al. 2021, arXiv:2110.04366) and reads what the module reads. In Compacter (Karimi Mahabadi et al. 2021, arXiv:2106.04647)
`down` and `up` are sums of n Kronecker products, W = sum_i A_i (x) S_i T_i, with A [n, n, n] shared by all blocks of the model.
"""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from jobs.methods.own import OwnTuner
from jobs.methods.targets import sizes

NON_LINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}
# What a saved adapter calls the blocks of a layer, and its type in PEFT's words.
BLOCK, BOTTLENECK = "bottleneck_block", "BOTTLENECK"


@dataclass(frozen=True)
class Form:
    """How a block is made: numbers between `down` and `up`, their non-linearity, the scale of the result, whether it reads the module's
    input (`parallel`) or its output; `kronecker` is n and `rank` that of S_i T_i where it is Compacter's, 0 where the matrices are plain.
    """

    size: int
    non_linearity: str = "relu"
    scaling: float = 1.0
    parallel: bool = False
    kronecker: int = 0
    rank: int = 0

    def __post_init__(self) -> None:
        if self.non_linearity not in NON_LINEARITIES:
            raise ValueError(f"the non-linearity is {self.non_linearity!r}, not one of {', '.join(NON_LINEARITIES)}")
        if self.kronecker and self.size % self.kronecker:
            raise ValueError(f"the bottleneck of {self.size} is no multiple of {self.kronecker}")


class KroneckerLinear(nn.Module):
    """x [..., in] to [..., out] by W = sum_i A_i (x) S_i T_i, which is never made: x goes through T, A and S in turn.

    S [n, out/n, rank] and T [n, rank, in/n] are its own, A is given.
    """

    def __init__(self, inputs: int, outputs: int, form: Form, *, zero: bool = False) -> None:
        """`zero`: W is zero at first. Raises `ValueError` where n does not divide a width."""
        super().__init__()
        n, rank = form.kronecker, form.rank
        if inputs % n or outputs % n:
            raise ValueError(f"{n} does not divide {inputs if inputs % n else outputs}, the width of a layer")
        self.left = nn.Parameter(torch.zeros(n, outputs // n, rank))
        self.right = nn.Parameter(torch.empty(n, rank, inputs // n))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # So that the numbers of W, sums of n, have Glorot's variance 2 / (in + out); those of A have 1 / n.
        deviation = (2.0 / (inputs + outputs)) ** 0.25
        nn.init.normal_(self.right, std=deviation)
        if not zero:
            nn.init.normal_(self.left, std=deviation * rank**-0.5)

    def forward(self, x: Tensor, factors: Tensor) -> Tensor:
        """`factors` is A [n, n, n]."""
        n, rank, part = self.right.shape
        inner = functional.linear(x.reshape(-1, part), self.right.flatten(0, 1)).view(-1, n, n, rank)
        mixed = torch.einsum("iab,tbir->tair", factors, inner).reshape(-1, n * rank)
        found = functional.linear(mixed, self.left.transpose(0, 1).flatten(1))
        widened: Tensor = found.view(*x.shape[:-1], -1) + self.bias
        return widened


def shared_factors(n: int) -> Tensor:
    """A [n, n, n] at the start."""
    return torch.randn(n, n, n) / math.sqrt(n)


class Block(nn.Module):
    """One block of a model of some width; see the module."""

    def __init__(self, width: int, form: Form) -> None:
        super().__init__()
        self.form = form
        self.down: nn.Module
        self.up: nn.Module
        if form.kronecker:
            self.down, self.up = KroneckerLinear(width, form.size, form), KroneckerLinear(form.size, width, form, zero=True)
            return
        self.down, self.up = nn.Linear(width, form.size), nn.Linear(form.size, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, *factors: Tensor) -> Tensor:
        """[..., width] of `x` [..., width]; `factors` is Compacter's A, else nothing."""
        inner = NON_LINEARITIES[self.form.non_linearity](self.down(x, *factors))
        found: Tensor = self.up(inner, *factors) * self.form.scaling
        return found


class BlockLayer(nn.Module, BaseTunerLayer):
    """The last linear layer of a module, of 16, 8 or 4 bits or GPT-2's `Conv1D`, with blocks behind it.

    A method's own class says how an adapter is made (`make`) and what it adds (`update`).
    """

    def __init__(self, base_layer: nn.Module, shared: Mapping[str, Tensor]) -> None:
        """`shared` are Compacter's factors by adapter, which the tuner holds."""
        super().__init__()
        self.base_layer = base_layer
        self.width = sizes(self.get_base_layer())[1]
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._shared = (shared,)  # within a tuple, lest it is taken for a part of this layer and saved with each
        self._listens = False
        self._heard: Tensor | None = None

    def make(self, adapter: str, config: Any) -> None:
        """Makes the weights of an adapter, float32, on the host. Raises `ValueError` where `config` does not fit the layer."""
        raise NotImplementedError

    def update(self, adapter: str, read: Tensor | None, given: Tensor) -> Tensor:
        """What an adapter adds to what the layer has `given` [..., width]; `read` is the input of the module, where that is kept."""
        raise NotImplementedError

    def update_layer(self, adapter: str, config: Any) -> None:
        """Puts an adapter behind the layer; PEFT's name. Raises what `make` raises."""
        self.make(adapter, config)
        device = self.get_base_layer().weight.device
        for name in (*self.adapter_layer_names, *self.other_param_names):
            made = getattr(self, name)[adapter]
            if not any(weight.is_meta for weight in made.parameters()):
                made.to(device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def listen(self, reader: nn.Module) -> None:
        """Keeps, from each call of `reader` to the next one of this layer, what it reads: the input of the module that this layer ends."""
        if self._listens:
            return
        self._listens, here = True, weakref.ref(self)

        def hear(_reader: nn.Module, inputs: tuple[Any, ...]) -> None:
            layer = here()  # none where the adapter was taken off the model
            if layer is not None:
                layer._heard = inputs[0]

        reader.register_forward_pre_hook(hear)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., width]: what the base layer gives, and the updates of the active adapters."""
        given: Tensor = self.base_layer(x, *args, **kwargs)
        read, self._heard = self._heard, None
        if self.disable_adapters:
            return given
        if self._listens and read is None:
            raise RuntimeError("the module's input was not seen: its first layer was not called before its last")
        found = given
        for adapter in self.active_adapters:
            if adapter in getattr(self, self.adapter_layer_names[0]):
                found = (found + self.update(adapter, read, given)).to(given.dtype)
        return found

    def run(self, block: Block, adapter: str, read: Tensor | None, given: Tensor) -> Tensor:
        """What one block gives, of the right one of the two."""
        x = read if block.form.parallel else given
        if x is None:
            raise RuntimeError("a parallel block needs the module's input, and this layer does not listen to it")
        return block(self.operand(x), *([self._shared[0][adapter]] if block.form.kronecker else []))  # type: ignore[no-any-return]

    def operand(self, x: Tensor) -> Tensor:
        """`x` in float32, as the blocks' weights; autocast chooses the dtype itself."""
        found: Tensor = x if torch.is_autocast_enabled(x.device.type) else self._cast_input_dtype(x, torch.float32)
        return found


class BlockTuner(OwnTuner):
    """Puts layers of the class `tuner_layer_cls` into a model. `target_modules` of the config are the layers that modules end with, and
    `inputs` says by their full names which layers read the modules' inputs, where blocks are parallel.
    """

    tuner_layer_cls: type[BlockLayer]

    def shared(self) -> Mapping[str, Tensor]:
        """Compacter's factors by adapter."""
        return {}

    def make_layer(self, target: nn.Module, name: str) -> BlockLayer:
        """As the base class says."""
        if not isinstance(target, nn.Linear | Conv1D):
            raise TypeError(f"{name} is no linear layer but {type(target).__name__}")
        return self.tuner_layer_cls(target, self.shared())

    def connect(self, layer: BlockLayer, name: str, config: Any) -> None:
        """As the base class says: to the layer that reads the module's input."""
        if name in config.inputs:
            layer.listen(self.model.get_submodule(config.inputs[name]))

    def _check_merge_allowed(self) -> None:
        raise ValueError("an adapter with a non-linearity of its own cannot be added into the weights of the base; use it as an adapter")

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """PEFT's own looks for the name at the end of a key; ours stands before the parts of a block."""
        return re.sub(rf"(\.{cls.prefix}\w+)\.{re.escape(adapter_name)}(?=\.|$)", r"\1", key)
