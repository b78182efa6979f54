"""Catalogue entry of BitFit (torch-free)."""

from jobs.methods.entry import Capabilities, Method
from jobs.methods.settings import base_bits

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
