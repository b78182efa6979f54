"""Catalogue entries of LoRA and QLoRA (torch-free)."""

from collections.abc import Mapping

from jobs.methods.entry import Capabilities, Method, Setting, SettingValue
from jobs.methods.settings import TARGETS

SETTINGS = (
    Setting(
        "rank", "Rank", "int", 16, "Width of the two low-rank matrices. More rank, more capacity and memory; 8 to 64 is usual.", 1, 1024
    ),
    Setting("alpha", "Alpha", "float", 32, "The update is scaled by alpha / rank. Twice the rank is a common choice.", 0.001, 4096),
    Setting("dropout", "Dropout", "float", 0.0, "Share of the adapter's inputs dropped while training. 0.05 helps on few rows.", 0, 0.9),
    TARGETS,
    Setting(
        "b_rate_ratio",
        "B learns faster by",
        "float",
        1.0,
        "LoRA+: the learning rate of the matrix B as a multiple of that of A, which is the run's. 1 is plain LoRA; 16 is usual for LoRA+, "
        "with a lower learning rate.",
        0.01,
        1000,
    ),
)


def rate_factor(settings: Mapping[str, SettingValue], weight: str) -> float:
    """LoRA+ (Hayou et al. 2024, arXiv:2402.12354): `b_rate_ratio` for a matrix B, by its name in PEFT, and 1 for all else."""
    is_b = ".lora_B." in weight or ".lora_embedding_B." in weight
    return float(settings["b_rate_ratio"]) if is_b else 1.0


LORA = Method(
    id="lora",
    name="LoRA",
    family="low-rank",
    summary=(
        "Freezes the model and learns a low-rank update beside each linear layer. Close to full fine-tuning in quality at a "
        "fraction of the memory, and the adapter is a small file that merges into the model. The first thing to try."
    ),
    paper="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, arXiv:2106.09685",
    application="jobs.methods.lora.apply:apply",
    learning_rate=2e-4,
    settings=SETTINGS,
    rates="jobs.methods.lora.entry:rate_factor",
    capabilities=Capabilities(combines=True),
)

QLORA = Method(
    id="qlora",
    name="QLoRA",
    family="low-rank",
    summary=(
        "LoRA over a base held in 4 bits (NF4, double quantisation, bf16 compute). Takes the least memory; a little slower than LoRA, "
        "and on a CPU it saves memory only. Take it when the model does not fit otherwise."
    ),
    paper="Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023, arXiv:2305.14314",
    application="jobs.methods.lora.apply:apply",
    learning_rate=2e-4,
    settings=SETTINGS,
    rates="jobs.methods.lora.entry:rate_factor",
    capabilities=Capabilities(bases=(4,), combines=True),
)
