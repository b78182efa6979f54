"""The ways of making several low-rank updates one (free of torch: a form lists them).

The ids are those of PEFT's `add_weighted_adapter`, and so are the rules. A low-rank update is a product of two factors, scale * B A.
`stack` puts the factors side by side; `factors` combines all A and all B by themselves, which keeps the rank but brings products of one
adapter's A with another's B; `update` combines the products and cuts the result back to a rank by its singular values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.errors import UserError

Id = Literal[
    "cat", "svd", "linear", "ties", "dare_linear", "dare_ties", "magnitude_prune",
    "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd",
]  # fmt: skip


@dataclass(frozen=True)
class Combination:
    """`rule` names a function of `peft.utils.merge_utils`; `prunes`: it keeps a share of the entries, the density."""

    id: Id
    name: str
    of: Literal["stack", "factors", "update"]
    rule: str
    summary: str

    @property
    def prunes(self) -> bool:
        """Whether the density means something to it."""
        return self.rule != "task_arithmetic"

    @property
    def draws(self) -> bool:
        """Whether it depends on the seed."""
        return self.rule.startswith("dare")


_TIES = "keeps the largest entries of each, lets them vote on the sign of every entry, and averages those that agree"
_DARE = "drops entries at random and scales the rest up"
_PRUNE = "keeps the largest entries of each, and adds these"
_FACTORS = "Combines the factors A and B by themselves, so ranks must be equal; cheap, and rougher than the same on updates."
_UPDATE = "Combines the updates themselves and cuts the result to a rank: slower, and truer than the same on factors."
_PAPERS = {
    "ties": "Yadav et al. 2023, arXiv:2306.01708",
    "dare_linear": "Yu et al. 2023, arXiv:2311.03099",
    "dare_ties": "Yu et al. 2023, arXiv:2311.03099, and Yadav et al. 2023, arXiv:2306.01708",
}

COMBINATIONS: dict[str, Combination] = {
    each.id: each
    for each in (
        Combination(
            "cat", "Concatenation", "stack", "task_arithmetic",
            "The exact weighted sum of the updates: factors are put side by side, so ranks add up; of block-sparse adapters the blocks are "
            "collected, and added where several meet. Take it first.",
        ),
        Combination(
            "svd", "Sum, cut to a rank", "update", "task_arithmetic",
            "The weighted sum of the updates, cut to the rank asked for as well as can be. Take it where concatenation grows too large.",
        ),
        Combination(
            "linear", "Linear", "factors", "task_arithmetic",
            "The weighted sum of the factors; ranks must be equal and stay. Meant for adapters that began from the same weights.",
        ),
        Combination("ties", "TIES", "factors", "ties", f"TIES {_TIES} ({_PAPERS['ties']}). {_FACTORS}"),
        Combination("dare_linear", "DARE", "factors", "dare_linear", f"DARE {_DARE}, then adds ({_PAPERS['dare_linear']}). {_FACTORS}"),
        Combination("dare_ties", "DARE and TIES", "factors", "dare_ties", f"{_DARE.capitalize()}, then votes on signs as TIES does "
                    f"({_PAPERS['dare_ties']}). {_FACTORS}"),
        Combination("magnitude_prune", "Pruned sum", "factors", "magnitude_prune", f"{_PRUNE.capitalize()}. {_FACTORS}"),
        Combination("ties_svd", "TIES of updates", "update", "ties", f"TIES {_TIES} ({_PAPERS['ties']}). {_UPDATE} Take it where "
                    "adapters contradict one another."),
        Combination("dare_linear_svd", "DARE of updates", "update", "dare_linear", f"DARE {_DARE}, then adds "
                    f"({_PAPERS['dare_linear']}). {_UPDATE}"),
        Combination("dare_ties_svd", "DARE and TIES of updates", "update", "dare_ties", f"{_DARE.capitalize()}, then votes on signs as "
                    f"TIES does ({_PAPERS['dare_ties']}). {_UPDATE}"),
        Combination("magnitude_prune_svd", "Pruned sum of updates", "update", "magnitude_prune", f"{_PRUNE.capitalize()}. {_UPDATE}"),
    )
}  # fmt: skip


def unfit(reason: object, instead: str) -> UserError:
    """The refusal of adapters that cannot be made one."""
    return UserError("composition_unfit", reason=reason, instead=instead)
