"""What a loss over some rows leaves: the sums that every figure of an evaluation is made of."""

from __future__ import annotations

from typing import Protocol

# exp() of more is no double any longer.
LARGEST_EXPONENT = 709.0


class LossSums(Protocol):
    """Sums over the label tokens of all held-out rows: negative log-likelihood (nats), how many, how many were the likeliest token."""

    @property
    def loss_sum(self) -> float:
        """Negative log-likelihood, in nats."""

    @property
    def tokens(self) -> int:
        """Label tokens."""

    @property
    def correct(self) -> int:
        """Label tokens that the model finds the likeliest."""
