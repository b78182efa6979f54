"""MiSS: one small matrix is spread over the whole update (formerly Bone), by PEFT."""

from __future__ import annotations

from typing import Any

from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import INPUT_DROPOUT, TARGETS, base_bits
from jobs.methods.setup import Setup

# Of the automatic rank for blocks: PEFT's own default.
LARGEST_RANK = 64

MISS = Method(
    id="miss",
    name="MiSS",
    family="reparametrisation",
    summary=(
        "One small trained matrix is repeated over the whole update of a layer, so that there is no second factor to learn. Fast, and "
        "often ahead of LoRA with as many trained numbers. Take it as an alternative to LoRA on a causal model."
    ),
    paper="Kang and Yin, MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure, 2024, arXiv:2409.15371",
    application="jobs.methods.miss:apply",
    learning_rate=2e-4,
    settings=(
        Setting(
            "rank",
            "Rank",
            "int",
            64,
            "Rows of the shared matrix, at most a layer's inputs. 32 to 128 is usual. Blocks need one that divides every layer's sizes; "
            f"0 chooses the largest up to {LARGEST_RANK}.",
            0,
            1024,
        ),
        Setting(
            "variant",
            "Variant",
            "choice",
            "balance",
            "Balance repeats the matrix along the inputs. Blocks (Bat) multiplies it with the layer's own weight: slower, learns more. "
            "Mini repeats it along the outputs too: very few numbers.",
            choices=("balance", "blocks", "mini"),
        ),
        Setting("mini_rank", "Width of mini", "int", 1, "Columns of mini's matrix; it must divide every layer's outputs.", 1, 1024),
        INPUT_DROPOUT,
        TARGETS,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4), needs=("linear",)),
)


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a MiSS adapter; the shared matrix is zero, so that step 0 is the base itself. Raises `UserError`."""
    from peft import MissConfig

    from jobs.methods.targets import divisor, setting_unfit, sizes, target_names
    from jobs.methods.tuning import adapted

    names = target_names(model, settings["targets"], method="miss")
    shapes = [sizes(model.get_submodule(name)) for name in names]
    variant, rank, narrowest = settings["variant"], settings["rank"], min(inputs for inputs, _ in shapes)
    if variant == "blocks":
        rank = divisor([size for shape in shapes for size in shape], rank, at_most=LARGEST_RANK, method="miss", setting="rank")
    if variant == "mini":
        divisor([outputs for _, outputs in shapes], settings["mini_rank"], at_most=1, method="miss", setting="mini_rank")
    rank = rank or min(LARGEST_RANK, narrowest)
    if rank > narrowest:
        raise setting_unfit("miss", "rank", f"is {rank}, more than the {narrowest} inputs of the narrowest layer")
    starts: dict[str, Any] = {"balance": True, "blocks": "bat", "mini": "mini"}
    config = MissConfig(
        r=rank,
        mini_r=settings["mini_rank"],
        miss_dropout=settings["dropout"],
        init_weights=starts[variant],
        target_modules=names,
    )
    return adapted(model, config, setup, method="miss")
