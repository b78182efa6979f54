"""MiSS: one small matrix is spread over the whole update (formerly Bone), by PEFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.selection import divisor, setting_unfit, targeted
from jobs.methods.settings import INPUT_DROPOUT, TARGETS, base_bits
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

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
    adapter="jobs.methods.miss:plan",
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


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The shared matrix of each layer."""
    rank, mini = _rank(settings, targeted(frame, settings["targets"], method="miss")), settings["variant"] == "mini"

    def keeps(layer: Layer) -> Keeps:
        """The inputs, folded to the rank."""
        return Keeps(token=rank, copied=rank * layer.outputs)

    def shapes(layer: Layer) -> dict[str, Shape]:
        return {"block": (rank, settings["mini_rank"] if mini else layer.outputs)}

    # what the other variants keep was not looked at
    return beside(frame, settings, "miss", shapes, keeps if settings["variant"] == "balance" else None)


def _rank(settings: Mapping[str, Any], layers: Sequence[Layer]) -> int:
    """The rank, chosen where that is left open. Raises `UserError("method_setting")` where it or mini's width does not fit the layers."""
    variant, rank, narrowest = settings["variant"], int(settings["rank"]), min(layer.inputs for layer in layers)
    if variant == "blocks":
        both = [size for layer in layers for size in (layer.inputs, layer.outputs)]
        rank = divisor(both, rank, at_most=LARGEST_RANK, method="miss", setting="rank")
    if variant == "mini":
        divisor([layer.outputs for layer in layers], settings["mini_rank"], at_most=1, method="miss", setting="mini_rank")
    rank = rank or min(LARGEST_RANK, narrowest)
    if rank > narrowest:
        raise setting_unfit("miss", "rank", f"is {rank}, more than the {narrowest} inputs of the narrowest layer")
    return rank


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with a MiSS adapter; the shared matrix is zero, so that step 0 is the base itself. Raises `UserError`."""
    from peft import MissConfig

    from jobs.methods.tuning import adapted

    layers = targeted(frame_of(model), settings["targets"], method="miss")
    starts: dict[str, Any] = {"balance": True, "blocks": "bat", "mini": "mini"}
    config = MissConfig(
        r=_rank(settings, layers),
        mini_r=settings["mini_rank"],
        miss_dropout=settings["dropout"],
        init_weights=starts[settings["variant"]],
        target_modules=[layer.name for layer in layers],
    )
    return adapted(model, config, setup, method="miss")
