"""What the loop asks of a way to run a model: from rows to a loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

import torch
from torch import Tensor


class Runner(Protocol):
    """A model and how it is run; `jobs.training.forward.Forward` for writing, `jobs.tasks.forward.TaskForward` for all else.

    `packs`: rows lie end to end, so that padding costs nothing. `dtype` is that of the arithmetic, `device` torch's name.
    """

    @property
    def model(self) -> Any:
        """The model, with or without an adapter."""

    @property
    def dtype(self) -> torch.dtype:
        """That of the arithmetic."""

    @property
    def device(self) -> str:
        """Torch's name of it."""

    @property
    def packs(self) -> bool:
        """Whether rows lie end to end."""

    def refresh(self) -> None:
        """To be called whenever trained weights have changed."""

    def batch(self, rows: Sequence[Any]) -> Any:
        """A micro-batch on the device, with `tokens`, how many it holds."""

    def running(self, batch: Any) -> AbstractContextManager[None]:
        """Surrounds forward and backward of a batch."""

    def loss_sum(self, batch: Any) -> Tensor:
        """The summed loss of the batch's labels, float32 [], with gradient. Call it, and backward, within `running`."""

    def score(self, rows: Sequence[Any]) -> tuple[float, int]:
        """(summed loss, number of labels that were found) of some rows, without gradients."""

    def of(self, model: Any) -> Self:
        """The same way of running another model of the same architecture, one without an adapter."""
