"""What a base in 8 or 4 bits costs, measured: how far each layer's weights move, and the loss on held-out rows before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.analysis.defaults import BITS
from jobs.analysis.ranks import RANKS
from jobs.analysis.spectrum import widths
from jobs.analysis.subject import Subject
from jobs.data.split import spread
from jobs.methods.targets import linear_layers
from jobs.training.loss import dataset_loss

# Held-out rows whose loss is compared: the same ones at every width, so that few are enough to see a difference between the widths.
ROWS = 64


@dataclass(frozen=True)
class LayerError:
    """What quantisation does to a layer's weights W: the norm of the error over that of W (Frobenius)."""

    name: str
    relative_error: float


@dataclass(frozen=True)
class Width:
    """The base at some bits. `loss` is the mean per label on held-out rows before any training, None where there are none; `layers` is
    empty at 16 bits, to which the others are compared. `repaired` says for ranks what share of the error's energy a correction of that
    rank can take away at the most: the mean over the modules of the layer in the middle.
    """

    bits: int
    loss: float | None
    relative_error: float
    layers: tuple[LayerError, ...]
    repaired: dict[int, float]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def measure_bits(subject: Subject, wanted: tuple[int, ...] = BITS, progress: Callable[[int, int], None] | None = None) -> list[Width]:
    """The base at each of the `wanted` bits, one after the other in memory. Raises `UserError`."""
    found = []
    for done, bits in enumerate(wanted):
        loss = _loss(subject, bits)
        errors, shares = _errors(subject, bits) if bits < 16 else ([], {})
        mean = sum(error.relative_error for error in errors) / max(1, len(errors))
        found.append(Width(bits, loss, mean, tuple(errors), shares))
        if progress:
            progress(done + 1, len(wanted))
    return found


def _loss(subject: Subject, bits: int) -> float | None:
    loaded = subject.load(bits)
    held_out = loaded.encoded.of(loaded.split).rows
    return dataset_loss(loaded.runner, spread(held_out, ROWS)).loss if held_out else None


def _errors(subject: Subject, bits: int) -> tuple[list[LayerError], dict[int, float]]:
    """The error of every layer, and what a correction takes away of it in the middle of the model."""
    layers = dict(linear_layers(subject.load(16).model))
    middle = _middle(list(layers))
    errors, shares = [], []
    for name, layer in layers.items():
        weight = weight_of(layer)
        lost = weight.float() - rounded(weight, bits)
        errors.append(LayerError(name, float(lost.norm() / weight.float().norm())))
        if name in middle:
            shares.append(repaired(lost))
    ranks = [rank for rank in RANKS if all(rank in share for share in shares)]
    return errors, {rank: sum(share[rank] for share in shares) / len(shares) for rank in ranks}


def _middle(names: list[str]) -> set[str]:
    """The names of the layers in the middle of the stack: those that share all but the last parts with the one in the middle."""
    place = names[len(names) // 2].split(".")
    numbers = [index for index, part in enumerate(place) if part.isdigit()]
    prefix = ".".join(place[: numbers[0] + 1]) + "." if numbers else ""
    return {name for name in names if name.startswith(prefix)}


def weight_of(layer: Any) -> Tensor:
    """[outputs, inputs] of a linear layer that is not quantised."""
    weight: Tensor = layer.weight.detach()
    return weight if tuple(weight.shape) == widths(layer) and hasattr(layer, "in_features") else weight.t().contiguous()


def rounded(weight: Tensor, bits: int) -> Tensor:
    """`weight` [outputs, inputs] as a base of 8 bits (LLM.int8: each row by its largest) or 4 bits (NF4, double quantisation) computes with
    it, float32.
    """
    from bitsandbytes import functional

    if bits == 8:
        codes, scales, _ = functional.int8_vectorwise_quant(weight.to(torch.float16).contiguous())
        dense: Tensor = codes.float() * (scales.float()[:, None] / 127)
        return dense
    packed, state = functional.quantize_4bit(weight.contiguous(), quant_type="nf4", compress_statistics=True)
    unpacked: Tensor = functional.dequantize_4bit(packed, state).float()
    return unpacked


def repaired(lost: Tensor) -> dict[int, float]:
    """For each of `RANKS` that the matrix `lost` is wide enough for: the share of its energy that the best matrix of that rank has (Eckart
    and Young 1936). What LoftQ (Li et al. 2023, arXiv:2310.08659) begins with; more is not to be had by a rank alone.
    """
    small = lost if lost.shape[0] <= lost.shape[1] else lost.t()
    energies = torch.linalg.eigvalsh(small @ small.t()).clamp_min(0).flip(0).double()
    shares = (energies.cumsum(0) / energies.sum().clamp_min(torch.finfo(torch.float64).tiny)).tolist()
    return {rank: shares[rank - 1] for rank in RANKS if rank <= len(shares)}
