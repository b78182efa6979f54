"""Catalogue entry of MoRA (torch-free)."""

from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import TARGETS, base_bits

MORA = Method(
    id="mora",
    name="MoRA",
    family="low-rank",
    summary=(
        "Learns one square matrix beside each linear layer in the place of LoRA's two thin ones: as many numbers, but an update of much "
        "higher rank. Inputs are folded to the matrix's width and outputs unfolded by fixed rules, so it merges as LoRA does. Take it "
        "where a model is to learn new facts or go on with pretraining; for style and format LoRA does as well."
    ),
    paper="Jiang et al., MoRA: High-Rank Updating for Parameter-Efficient Fine-Tuning, 2024, arXiv:2405.12130",
    application="jobs.methods.mora.apply:apply",
    learning_rate=3e-4,
    settings=(
        Setting(
            "rank",
            "Rank",
            "int",
            8,
            "The rank of the LoRA that would train as many numbers: the square matrix has the side sqrt((inputs + outputs) * rank). "
            "8 to 256 is usual.",
            1,
            1024,
        ),
        Setting(
            "operator",
            "Folding",
            "choice",
            "rotation",
            "How inputs are folded to the matrix's width. Rotation tells the parts of an input apart and is better at small ranks (8); "
            "sharing adds them up, and is enough at large ones (128 and more).",
            choices=("rotation", "sharing"),
        ),
        TARGETS,
        base_bits(16, 8, 4),
    ),
    tuner="jobs.methods.mora.tuner",
    capabilities=Capabilities(bases=(16, 8, 4)),
)
