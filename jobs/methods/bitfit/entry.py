"""Catalogue entry of BitFit (torch-free)."""

from collections.abc import Mapping
from typing import Any

from jobs.errors import UserError
from jobs.methods.adapter import Adapter, Keeps
from jobs.methods.entry import Capabilities, Method
from jobs.methods.settings import base_bits
from jobs.models.frame import Frame

BITFIT = Method(
    id="bitfit",
    name="BitFit",
    family="selective",
    summary=(
        "Trains the biases that the model already has, about one number in a thousand, and nothing else. Good on encoders with little "
        "data. Models without biases (Llama, Qwen3, Gemma, T5) have nothing to train this way."
    ),
    paper=(
        "Ben Zaken, Ravfogel and Goldberg, BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked "
        "Language-models, 2021, arXiv:2106.10199"
    ),
    application="jobs.methods.bitfit.apply:apply",
    adapter="jobs.methods.bitfit.entry:plan",
    tuner="jobs.methods.bitfit.tuner",
    learning_rate=1e-3,
    settings=(base_bits(16, 8, 4),),
    # T5, the one family of encoder-decoders here, has no biases.
    capabilities=Capabilities(
        tasks=("causal_lm", "sequence_classification", "regression", "question_answering", "multiple_choice"),
        bases=(16, 8, 4),
        needs=("biases",),
    ),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """A change of each bias of linear layers and norms, heads left out. Raises `UserError("method_cannot")` where there are none."""
    del settings
    layers = tuple(layer for layer in frame.layers if layer.biased)
    sizes = {layer.name: layer.outputs for layer in layers} | {norm.name: norm.numbers for norm in frame.norms if norm.biased}
    if not sizes:
        raise UserError(
            "method_cannot", method=BITFIT.name, reason=f"its architecture ({frame.kind}) has no biases",
            instead="Choose layer norm tuning or (IA)³, which are as small, or LoRA.", where={"field": "method.id"},
        )  # fmt: skip
    return Adapter({f"{name}.delta": (size,) for name, size in sizes.items()}, layers, keeps=Keeps())
