"""Catalogue entry of AdaLoRA (torch-free)."""

from collections.abc import Mapping
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside, two_matrices
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.selection import setting_unfit
from jobs.methods.settings import INPUT_DROPOUT, TARGETS, base_bits
from jobs.models.frame import Frame, Layer

ADALORA = Method(
    id="adalora",
    name="AdaLoRA",
    family="low-rank",
    summary=(
        "Learns an update P E Q in the form of an SVD and, while training, drops the singular values that matter least over all layers, so "
        "that layers end with different ranks. Slower than LoRA, and needs some hundred steps; take it where the adapter must be small."
    ),
    paper="Zhang et al., Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, 2023, arXiv:2303.10512",
    application="jobs.methods.lora.adalora:apply",
    adapter="jobs.methods.lora.adalora_entry:plan",
    hooks="jobs.methods.lora.adalora:AdaloraHooks",
    learning_rate=1e-3,
    settings=(
        Setting("rank", "Rank at the start", "int", 12, "Rank of every layer at first. Half more than the target is usual.", 2, 1024),
        Setting("target_rank", "Rank at the end", "int", 8, "Mean rank of the layers in the end, below that at the start.", 1, 1023),
        Setting("alpha", "Alpha", "float", 32, "The update is scaled by alpha / rank at the start.", 0.001, 4096),
        INPUT_DROPOUT,
        TARGETS,
        base_bits(16, 8, 4),
        Setting(
            "warmup", "Full rank first", "float", 0.1, "Share of the steps before anything is dropped. 0.1 to 0.2 is usual.",
            0, 0.4,
        ),
        Setting(
            "settled", "Settled ranks last", "float", 0.3,
            "Share of the steps, at the end, in which ranks stay. 0.3 to 0.6 is usual.", 0, 0.5,
        ),
        Setting("interval", "Steps between drops", "int", 10, "Ranks are chosen anew every so many steps. 1 to 100 is usual.", 1, 1000),
        Setting(
            "orthogonality", "Orthogonality", "float", 0.1,
            "Weight of the penalty that keeps P and Q orthogonal. 0.1 to 0.5 is usual; 0 leaves it out.", 0, 10,
        ),
    ),
    capabilities=Capabilities(bases=(16, 8, 4), extends=False),
)  # fmt: skip


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """P, E and Q of each layer at the rank that it starts with. Raises `UserError("method_setting")` where that is not above the target."""
    rank, target = settings["rank"], settings["target_rank"]
    if target >= rank:
        raise setting_unfit("adalora", "target_rank", f"is {target}, and must be below the rank at the start, {rank}")

    def keeps(layer: Layer) -> Keeps:
        """The update too, since what scales it is a tensor."""
        return Keeps(token=rank + layer.outputs, copied=rank * (layer.inputs + layer.outputs), reads=True, casts=True)

    return beside(frame, settings, "adalora", lambda layer: two_matrices(layer, rank) | {"E": (rank, 1)}, keeps)
