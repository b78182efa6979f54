"""Catalogue entry of BOFT (torch-free)."""

from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import TARGETS, base_bits

# Of the automatic choice: the paper's blocks are of 4 or 8.
LARGEST_BLOCK = 8

BOFT = Method(
    id="boft",
    name="BOFT",
    family="reparametrisation",
    summary=(
        "OFT by a product of sparse rotations, the factors of a butterfly, and a scale for each output: blocks that are rotated in one "
        "factor are mixed in the next, so few numbers reach the whole width. About twice as slow as LoRA, and for each layer it keeps a "
        "matrix as wide as its inputs, squared. Take it where OFT is too coarse, on a small model."
    ),
    paper="Liu et al., Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization, 2023, arXiv:2311.06243",
    application="jobs.methods.boft.apply:apply",
    tuner="jobs.methods.boft.kernel",
    learning_rate=1e-3,
    settings=(
        Setting(
            "block_size",
            "Block size",
            "int",
            0,
            "Inputs that are rotated together; it must divide the width of every layer. 4 or 8 is usual. 0 chooses the largest up to "
            f"{LARGEST_BLOCK} that fits.",
            0,
            1024,
        ),
        Setting(
            "factors",
            "Factors",
            "int",
            1,
            "Rotations in a row. One is OFT with a scale. Two to four are the paper's; such an adapter loads outside Graft only where PEFT "
            "can build its CUDA kernel.",
            1,
            8,
        ),
        Setting(
            "dropout", "Dropout", "float", 0.0, "Share of the blocks that are not rotated in a training step. 0 to 0.1 is usual.", 0, 0.9
        ),
        TARGETS,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4), needs=("linear",)),
)
