"""Passes over a few training rows, for starts that look at the data: what the linear layers read, and the gradients that reach them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.errors import UserError
from jobs.methods.setup import Setup

# Tokens that a start looks at: enough for directions of a rank of some tens, seconds of a small model on a CPU.
TOKENS = 1024
ROW_TOKENS = 256


def sample_rows(setup: Setup, start: str) -> list[Any]:
    """Some training rows in an order drawn from the run's seed, about `TOKENS` tokens of them. Raises `UserError("method_cannot")`."""
    order = np.random.default_rng(setup.seed).permutation(len(setup.rows))
    chosen, tokens = [], 0
    for index in order:
        row = setup.rows[int(index)]
        if not row.trained[1:ROW_TOKENS].any():
            continue
        chosen.append(row)
        tokens += min(len(row.ids), ROW_TOKENS)
        if tokens >= TOKENS:
            break
    if not chosen:
        raise UserError(
            "method_cannot", method=start, reason=f"it looks at the data, and no row has a trained token among its first {ROW_TOKENS}",
            instead="Take another start.", where={"field": "method.id"},
        )  # fmt: skip
    return chosen


def row_ids(model: Any, row: Any) -> Tensor:
    """The first tokens of a row, int64 [1, tokens], on the model's device."""
    ids = torch.from_numpy(row.ids[:ROW_TOKENS].astype(np.int64))[None]
    return ids.to(next(model.parameters()).device)


def shared_inputs(model: Any, layers: dict[str, Any], row: Any) -> list[list[str]]:
    """The names of `layers` in groups that read one and the same input (query, key and value; gate and up), each in the order it ran."""
    together: dict[int, list[str]] = {}
    alive: list[Tensor] = []  # so that no two inputs have the same id

    def note(name: str, given: Tensor) -> None:
        alive.append(given)
        together.setdefault(id(given), []).append(name)

    with torch.no_grad(), seeing_inputs(layers, note):
        model(input_ids=row_ids(model, row), use_cache=False)
    return list(together.values())


@contextmanager
def seeing_inputs(layers: dict[str, Any], see: Any) -> Iterator[None]:
    """Within it `see(name, input)` is called whenever one of `layers` runs; the input is [..., inputs]."""
    hooks = [layer.register_forward_pre_hook(lambda _layer, given, name=name: see(name, given[0])) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def flat(numbers: Tensor) -> Tensor:
    """[..., width] as float32 [tokens, width]."""
    return numbers.detach().reshape(-1, numbers.shape[-1]).float()


def passes(model: Any, rows: Sequence[Any], count: int, setup: Setup) -> Iterator[Iterator[tuple[Any, Tensor]]]:
    """`count` passes over the rows, each as (row, its token ids); tells of the progress, and puts the model back into its mode."""
    was_training = model.training
    model.eval()

    def one(number: int) -> Iterator[tuple[Any, Tensor]]:
        for place, row in enumerate(rows, start=1):
            yield row, row_ids(model, row)
            setup.progress(number * len(rows) + place, count * len(rows), "rows")

    try:
        for number in range(count):
            yield one(number)
    finally:
        model.train(was_training)
