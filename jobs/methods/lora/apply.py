"""LoRA over a 16-bit or a quantised base, by PEFT (Hu et al. 2021, arXiv:2106.09685), from the start that the settings name."""

from __future__ import annotations

from typing import Any

from jobs.methods.lora.entry import other_ranks
from jobs.methods.lora.eva import RHO, principal_components, spread_ranks
from jobs.methods.lora.layers import ADAPTER, lora_layers
from jobs.methods.lora.loftq import correct_rounding
from jobs.methods.lora.starts import MOVING, move_into_adapter
from jobs.methods.selection import setting_unfit
from jobs.methods.setup import Setup
from jobs.methods.targets import target_names
from jobs.methods.tuning import adapted

KEPT_RANK = "rank/"


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a LoRA adapter, the base itself at step 0 (LoftQ: nearer to the base that is not quantised).

    `settings`: `rank alpha dropout targets`, and what a preset adds: `rank_pattern`, `start`, `scale` (rsLoRA, Kalajdzievski 2023,
    arXiv:2312.03732: s is alpha / sqrt(rank)), `update` (DoRA, Liu et al. 2024, arXiv:2402.09353: the norm of each
    output's weights is trained apart from their direction). The default start draws A from the seed; B is zero. Raises `UserError`.
    """
    names = target_names(model, settings["targets"], method="lora")
    start = settings.get("start", "default")
    other = other_ranks(settings, names)
    if start == "eva":
        if other:
            raise setting_unfit("lora", "rank_pattern", "must be empty with the start eva, which chooses the ranks of layers itself")
        return _eva(model, names, settings, setup)
    model = adapted(model, _config(names, settings, rank_pattern=other), setup, method="lora")
    if start in MOVING:
        move_into_adapter(model, start, setup)
    elif start == "loftq":
        correct_rounding(model, setup)
    return model


def _config(names: list[str], settings: dict[str, Any], **given: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=names,
        use_rslora=settings.get("scale") == "root_rank",
        use_dora=settings.get("update") == "decomposed",
        bias="none",
        **given,
    )


def _eva(model: Any, names: list[str], settings: dict[str, Any], setup: Setup) -> Any:
    """LoRA whose ranks and A come from the inputs of the layers; s is the same for all. A layer may get no adapter at all.

    A resumed run takes the ranks that its checkpoint kept; its A and B come with the trained weights.
    """
    rank, alpha = settings["rank"], settings["alpha"]
    ranks = {name.removeprefix(KEPT_RANK): int(value) for name, value in setup.kept.items() if name.startswith(KEPT_RANK)}
    directions = {}
    if not ranks:
        found = principal_components(model, names, RHO * rank, setup)
        ranks = spread_ranks({name: shares for name, (shares, _) in found.items()}, rank)
        directions = {name: chosen for name, (_, chosen) in found.items()}
    ranks = {name: number for name, number in ranks.items() if number}
    other = {name: number for name, number in ranks.items() if number != rank}
    alphas = {name: alpha * number / rank for name, number in other.items()}
    model = adapted(model, _config(sorted(ranks), settings, rank_pattern=other, alpha_pattern=alphas), setup, method="eva")
    for name, layer in lora_layers(model):
        if name in directions:
            layer.lora_A[ADAPTER].weight.data.copy_(directions[name][: ranks[name]])
    return model
