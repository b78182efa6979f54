"""The optimisers: AdamW with its state in float32, in 8 bits or in pages of host memory, and Adafactor; state to and from named tensors.

AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101. 8 bits: Dettmers et al. 2022, arXiv:2110.02861, by bitsandbytes. Adafactor: Shazeer
and Stern 2018, arXiv:1804.04235.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Parameters = Mapping[str, nn.Parameter]

# On a CPU an update of all weights as one is no faster than one by one, but gradients that stay allocated stand beside the activations.
FLAT_NUMBERS_ON_CPU = 2**24
_LOOK_UP_TABLES = frozenset({"qmap1", "qmap2"})  # of bitsandbytes: the same in every run, so no part of a checkpoint


@dataclass(frozen=True)
class Group:
    """Weights that share their decay and their learning rate, which is `rate_factor` times the run's."""

    parameters: Parameters
    weight_decay: float
    rate_factor: float


def grouped(
    parameters: Parameters, weight_decay: float, rate_factor: Callable[[str], float], decays: Callable[[str], bool] = lambda _name: True
) -> list[Group]:
    """The groups of some weights. Decay shrinks matrices alone, and those that `decays` allows by their names: biases, norms and scales
    (IA3's are of one row or column) have no size to keep small.
    """
    found: dict[tuple[float, float], dict[str, nn.Parameter]] = {}
    for name, parameter in parameters.items():
        is_matrix = sum(size > 1 for size in parameter.shape) >= 2
        found.setdefault((weight_decay if is_matrix and decays(name) else 0.0, rate_factor(name)), {})[name] = parameter
    return [Group(members, decay, factor) for (decay, factor), members in found.items()]


def usable_kind(kind: str, device: str) -> str:
    """`kind`, or what stands in for it on this device: state in pages that a GPU fetches from host memory needs a GPU."""
    return kind.removeprefix("paged_") if device == "cpu" else kind


def make_optimiser(kind: str, groups: Sequence[Group], *, flat: bool) -> Optimiser:
    """An optimiser of a `usable_kind`; `flat` as `jobs.training.flat` says, where it is AdamW and all weights are float32 on one device; on
    a CPU at most `FLAT_NUMBERS_ON_CPU` of them.
    """
    if kind == "adamw" and flat and _is_uniform(groups) and _pays_flat(groups):
        from jobs.training.flat import FlatAdamW

        return FlatAdamW(groups)
    if kind in ("adamw", "adafactor"):
        return Optimiser(groups, fused_adamw if kind == "adamw" else _adafactor)
    return BitsAndBytes(groups, kind)


def _is_uniform(groups: Sequence[Group]) -> bool:
    weights = [parameter for group in groups for parameter in group.parameters.values()]
    return all(weight.dtype == torch.float32 for weight in weights) and len({weight.device for weight in weights}) == 1


def _pays_flat(groups: Sequence[Group]) -> bool:
    weights = [parameter for group in groups for parameter in group.parameters.values()]
    return weights[0].device.type != "cpu" or sum(weight.numel() for weight in weights) <= FLAT_NUMBERS_ON_CPU


class Optimiser:
    """One of torch's optimisers over named weights. `inner` is that optimiser, whose groups are those given."""

    def __init__(self, groups: Sequence[Group], make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]) -> None:
        self.parameters: Parameters = {name: parameter for group in groups for name, parameter in group.parameters.items()}
        self.inner = make(
            [
                {"params": list(group.parameters.values()), "weight_decay": group.weight_decay, "rate_factor": group.rate_factor}
                for group in groups
            ]
        )

    def clip(self, limit: float) -> float:
        """Shortens the gradient of all weights together to `limit` (0: leaves it as it is); returns its norm before that."""
        norm = torch.nn.utils.get_total_norm(self._gradients())
        if limit:
            weights = [weight for group in self.inner.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(weights, limit, norm)
        return float(norm)

    def step(self, rate: float) -> None:
        """One update at the run's learning rate `rate`."""
        for group in self.inner.param_groups:
            group["lr"] = rate * group["rate_factor"]
        self.inner.step()

    def reset(self, name: str, index: Tensor) -> None:
        """Forgets the moments of some entries of a weight, by their places in it laid flat, int64 [entries]."""
        for value in self.inner.state.get(self.parameters[name], {}).values():
            if isinstance(value, Tensor) and value.shape == self.parameters[name].shape:
                value.view(-1)[index] = 0

    def forget_gradients(self) -> None:
        """Makes ready for the next backward."""
        self.inner.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The state by `<weight>/<key>`; empty before the first update."""
        return {
            f"{name}/{key}": value.detach().contiguous() if isinstance(value, Tensor) else torch.tensor(value)
            for name, parameter in self.parameters.items()
            for key, value in self.inner.state.get(parameter, {}).items()
            if key not in _LOOK_UP_TABLES
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave."""
        order = [parameter for group in self.inner.param_groups for parameter in group["params"]]
        places = {parameter: place for place, parameter in enumerate(order)}
        state = {places[self.parameters[name]]: values for name, values in by_weight(tensors).items()}
        self.inner.load_state_dict({"state": state, "param_groups": self.inner.state_dict()["param_groups"]})

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]


class BitsAndBytes(Optimiser):
    """AdamW by bitsandbytes. Weights of less than 4096 numbers keep their state in float32 also where it is of 8 bits."""

    def __init__(self, groups: Sequence[Group], kind: str) -> None:
        import bitsandbytes

        optimisers: Any = bitsandbytes.optim
        names = {"adamw_8bit": "AdamW8bit", "paged_adamw": "PagedAdamW", "paged_adamw_8bit": "PagedAdamW8bit"}
        super().__init__(groups, lambda settings: getattr(optimisers, names[kind])(settings, lr=0.0))

    def reset(self, name: str, index: Tensor) -> None:
        """Forgets the moments of some entries of a weight. In 8 bits a moment is a place in a table of shares, and zero stands somewhere
        in it.
        """
        state = self.inner.state.get(self.parameters[name], {})
        for key, table in (("state1", "qmap1"), ("state2", "qmap2")):
            if key in state:
                zero = int(state[table].abs().argmin()) if state[key].dtype == torch.uint8 else 0
                state[key].view(-1)[index] = zero

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave, into state that bitsandbytes itself has laid out: in pages, with its look-up tables."""
        inner: Any = self.inner
        found = by_weight(tensors)
        names = {parameter: name for name, parameter in self.parameters.items()}
        for place, group in enumerate(inner.param_groups):
            for index, parameter in enumerate(group["params"]):
                values = found.get(names[parameter], {})
                if not values:
                    continue
                inner.init_state(group, parameter, place, index)
                inner.state[parameter]["step"] = int(values.pop("step"))
                for key, value in values.items():
                    inner.state[parameter][key].copy_(value)


def by_weight(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """State named `<weight>/<key>` as a mapping for each weight."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        weight, key = name.rsplit("/", 1)
        found.setdefault(weight, {})[key] = value
    return found


def fused_adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """Fused AdamW, betas 0.9 and 0.999; the rate is given with each step."""
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def _adafactor(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Adafactor whose learning rate means what AdamW's does.

    The paper's rate is a share of a weight's root mean square, at least 0.001: LoRA's B, which starts at zero, would hardly move. With a
    least of 1 it is the size of a step for all weights up to that size.
    """
    return torch.optim.Adafactor(groups, lr=0.0, eps=(None, 1.0))
