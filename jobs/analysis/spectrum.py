"""The spectrum of the loss's gradient, layer by layer, over a few mini-batches of a run's own rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from jobs.analysis.defaults import DIRECTIONS
from jobs.analysis.ranks import LayerSpectrum
from jobs.analysis.sketch import Sketch, draw
from jobs.methods.targets import linear_layers
from jobs.training.order import Order, dropout_seed
from jobs.training.running import Runner

_LAYER = re.compile(r"\.(\d+)\.")

Progress = Callable[[int, int], None]


def mini_batches(rows: Sequence[Any], micro_batch: int, count: int, seed: int) -> list[list[Any]]:
    """The first `count` micro-batches of a run's first epoch, fewer where there are not so many rows."""
    order = Order(len(rows), micro_batch, 1, seed)
    steps = islice(order.micro_batches(0, min(count, order.steps_per_epoch)), count)
    return [[rows[index] for index in batch] for step in steps for batch in step]


def gradient_spectra(
    runner: Runner,
    batches: Sequence[Sequence[Any]],
    *,
    directions: int = DIRECTIONS,
    seed: int = 0,
    progress: Progress = lambda _done, _total: None,
) -> list[LayerSpectrum]:
    """The leading singular values of the gradient of the engine's own loss (mean over the batches' labels) by the weight of every linear
    layer but the heads, in the model's order. The base may be held in 16, 8 or 4 bits, and must be frozen; its mode is put back.

    A layer that the loss does not reach has zeros. Both passes see the same dropout.
    """
    model, was_training = runner.model, runner.model.training
    layers = dict(linear_layers(model))
    sketches = _sketches(layers, directions, seed, runner.device)
    model.train()
    try:
        with _watched(model, layers, sketches):
            for number in range(2):
                for place, rows in enumerate(batches):
                    torch.manual_seed(dropout_seed(seed, 0, place))
                    _backward(runner, rows)
                    progress(number * len(batches) + place + 1, 2 * len(batches))
                if number == 0:
                    for sketch in sketches.values():
                        sketch.turn()
    finally:
        model.train(was_training)
    labels = max(1, sum(row.labels for rows in batches for row in rows))
    return [_spectrum(name, layers[name], sketch, 1 / labels) for name, sketch in sketches.items()]


def widths(layer: Any) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer; GPT-2's `Conv1D` has other names for them."""
    return (layer.out_features, layer.in_features) if hasattr(layer, "in_features") else (layer.nf, layer.nx)


def _sketches(layers: dict[str, Any], directions: int, seed: int, device: str) -> dict[str, Sketch]:
    """Layers of one width share their random directions."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[int, tuple[Tensor, Tensor]] = {}
    sketches = {}
    for name, layer in layers.items():
        outputs, inputs = widths(layer)
        if inputs not in drawn:
            drawn[inputs] = draw(inputs, directions, generator, device)
        sketches[name] = Sketch(outputs, *drawn[inputs])
    return sketches


def _backward(runner: Runner, rows: Sequence[Any]) -> None:
    batch = runner.batch(rows)
    with torch.enable_grad(), runner.running(batch):
        torch.autograd.backward(runner.loss_sum(batch))


@contextmanager
def _watched(model: Any, layers: dict[str, Any], sketches: dict[str, Sketch]) -> Iterator[None]:
    """Within it the sketches see what flows through their layers, and gradients flow although no weight takes one."""
    hooks = [layer.register_forward_hook(_see(sketches[name])) for name, layer in layers.items()]
    # A frozen embedding gives an output without gradient, and with it all layers up to the first that trains, which is none here. T5's
    # encoder and decoder have one each.
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    hooks += [module.register_forward_hook(lambda _layer, _given, output: output.detach().requires_grad_()) for module in embeddings]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _see(sketch: Sketch) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
    def see(_layer: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            x = given[0].detach()
            output.register_hook(lambda gradient: sketch.add(_flat(x), _flat(gradient)))  # type: ignore[no-untyped-call]

    return see


def _flat(numbers: Tensor) -> Tensor:
    return numbers.detach().reshape(-1, numbers.shape[-1]).float()


def _spectrum(name: str, layer: Any, sketch: Sketch, scale: float) -> LayerSpectrum:
    outputs, inputs = widths(layer)
    values, energy = sketch.found(scale)
    place = _LAYER.search(f".{name}.")
    return LayerSpectrum(name, int(place[1]) if place else None, name.rpartition(".")[2], outputs, inputs, values.tolist(), energy)
