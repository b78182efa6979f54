"""Catalogue entries of the LoRA family (torch-free). What one mechanism can vary is a setting; a preset has it fixed or another default."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, two_matrices, upon
from jobs.methods.entry import Capabilities, Method, Setting, SettingValue
from jobs.methods.ranks import ranks_of, read_ranks
from jobs.methods.selection import setting_unfit, targeted
from jobs.methods.settings import INPUT_DROPOUT, TARGETS, base_bits
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

APPLICATION = "jobs.methods.lora.apply:apply"
ADAPTER = "jobs.methods.lora.entry:plan"
HOOKS = "jobs.methods.lora.hooks:LoraHooks"
RATES = "jobs.methods.lora.entry:rate_factor"

RANK = Setting(
    "rank", "Rank", "int", 16, "Width of the two low-rank matrices. More rank, more capacity and memory; 8 to 64 is usual.", 1, 1024
)
# Not of EVA and AdaLoRA, which choose the ranks of single layers themselves.
RANK_PATTERN = Setting(
    "rank_pattern",
    "Ranks of single layers",
    "ranks",
    "",
    "Layers with another rank, one a line: its name or the end of it, a colon and the rank, as model.layers.0.self_attn.q_proj: 8 or "
    "q_proj: 32; the longest name that fits counts. The scale goes by the layer's own rank.",
)


def alpha(default: float, scale: str = "alpha / rank. Twice the rank is a common choice.") -> Setting:
    """The scale of the update."""
    return Setting("alpha", "Alpha", "float", default, f"The update is scaled by {scale}", 0.001, 4096)


def ratio(default: float) -> Setting:
    """LoRA+'s ratio of learning rates."""
    return Setting(
        "b_rate_ratio",
        "B learns faster by",
        "float",
        default,
        "LoRA+: the learning rate of the matrix B as a multiple of that of A, which is the run's. 1 is plain LoRA; 16 is usual for LoRA+, "
        "with a lower learning rate.",
        0.01,
        1000,
    )


def start(*choices: str) -> Setting:
    """Where A and B begin; the first is the default."""
    return Setting(
        "start",
        "Start",
        "choice",
        choices[0],
        "Where the two matrices begin. default: A drawn at random, B zero. pissa: the principal part of the weights. olora: an orthonormal "
        "basis of them. eva: where the layer's inputs vary most. lora_ga: along the first gradient. loftq: what makes up for 4 bits.",
        choices=choices,
    )


def fixed(name: str, label: str, value: str, text: str) -> Setting:
    """What a preset is made of: a choice of one."""
    return Setting(name, label, "choice", value, text, choices=(value,))


def rate_factor(settings: Mapping[str, SettingValue], weight: str) -> float:
    """LoRA+ (Hayou et al. 2024, arXiv:2402.12354): `b_rate_ratio` for a matrix B, by its name in PEFT, and 1 for all else."""
    is_b = ".lora_B." in weight or ".lora_embedding_B." in weight
    return float(settings["b_rate_ratio"]) if is_b else 1.0


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """A and B of each layer, and with DoRA the norm of each output's weights. Raises `UserError("method_setting")`."""
    layers = targeted(frame, settings["targets"], method="lora")
    other, decomposed = other_ranks(settings, [layer.name for layer in layers]), settings.get("update") == "decomposed"
    ranks = {layer.name: int(other.get(layer.name, settings["rank"])) for layer in layers}

    def shapes(layer: Layer) -> dict[str, Shape]:
        magnitude: dict[str, Shape] = {"magnitude": (layer.outputs,)} if decomposed else {}
        return two_matrices(layer, ranks[layer.name]) | magnitude

    def keeps(layer: Layer) -> Keeps:
        """With DoRA base and update too, which are scaled each by itself; the norm of their sum is taken without a gradient."""
        rank = ranks[layer.name]
        plain = Keeps(token=rank, copied=rank * (layer.inputs + layer.outputs), reads=True, casts=True)
        return plain + Keeps(token=2 * layer.outputs) if decomposed else plain

    found = replace(upon(layers, shapes, keeps), ranks={} if decomposed else ranks)
    return replace(found, unknown="it hangs on the rows, by which EVA spreads the ranks") if settings.get("start") == "eva" else found


def other_ranks(settings: Mapping[str, Any], layers: Iterable[str]) -> dict[str, int]:
    """The ranks of those of the `layers` that have another than `rank`, by their full names. Raises `UserError("method_setting")`."""
    try:
        ranks = ranks_of(read_ranks(str(settings.get("rank_pattern", ""))), layers)
    except ValueError as fault:
        raise setting_unfit("lora", "rank_pattern", str(fault)) from None
    return {name: rank for name, rank in ranks.items() if rank != settings["rank"]}


_COMMON = (RANK, alpha(32), INPUT_DROPOUT, TARGETS)


def _moving(name: str) -> tuple[Setting, ...]:
    """The settings of a preset that moves a part of the base into the adapter."""
    return (RANK, alpha(16, "alpha / rank. The rank itself is usual here."), INPUT_DROPOUT, TARGETS, ratio(1.0), start(name), RANK_PATTERN)


LORA = Method(
    id="lora",
    name="LoRA",
    family="low-rank",
    summary=(
        "Freezes the model and learns a low-rank update beside each linear layer. Close to full fine-tuning in quality at a "
        "fraction of the memory, and the adapter is a small file that merges into the model. The first thing to try."
    ),
    paper="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, arXiv:2106.09685",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=2e-4,
    settings=(*_COMMON, ratio(1.0), start("default", "pissa", "olora", "eva", "lora_ga"), RANK_PATTERN),
    rates=RATES,
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
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=2e-4,
    settings=(*_COMMON, ratio(1.0), start("default", "eva", "loftq"), RANK_PATTERN),
    rates=RATES,
    capabilities=Capabilities(bases=(4,), combines=True),
)

LORA_8BIT = Method(
    id="lora_8bit",
    name="LoRA on 8 bits",
    family="low-rank",
    summary=(
        "LoRA over a base held in 8 bits (LLM.int8). Half the memory of 16 bits for the base and nearer to it than 4 bits. On a GPU inputs "
        "are rounded to 8 bits too, and rows are padded. Take it when 4 bits cost quality."
    ),
    paper="Dettmers et al., LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale, 2022, arXiv:2208.07339",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=2e-4,
    settings=(*_COMMON, ratio(1.0), start("default", "eva"), RANK_PATTERN),
    rates=RATES,
    capabilities=Capabilities(bases=(8,), combines=True),
)

RSLORA = Method(
    id="rslora",
    name="rsLoRA",
    family="low-rank",
    summary=(
        "LoRA whose update is scaled by alpha / sqrt(rank) in place of alpha / rank, so that a higher rank does not learn slower. Take it "
        "for ranks of 64 and more; at low ranks it is LoRA with a larger alpha."
    ),
    paper="Kalajdzievski, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA, 2023, arXiv:2312.03732",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=1e-4,
    settings=(
        Setting("rank", "Rank", "int", 64, f"{RANK.help[: RANK.help.index(';')]}; 64 to 256 is where this scale pays.", 1, 1024),
        alpha(16, "alpha / sqrt(rank): at rank 64, 16 gives a scale of 2."),
        INPUT_DROPOUT,
        TARGETS,
        base_bits(16, 8, 4),
        ratio(1.0),
        fixed("scale", "Scale", "root_rank", "The update is divided by the square root of the rank."),
        RANK_PATTERN,
    ),
    rates=RATES,
    capabilities=Capabilities(bases=(16, 8, 4), combines=True),
)

DORA = Method(
    id="dora",
    name="DoRA",
    family="low-rank",
    summary=(
        "LoRA that learns the size of each output's weights apart from their direction. Often a little better than LoRA at low ranks and "
        "on few rows; each step is slower, since the norms of the weights are computed anew. Merges like LoRA."
    ),
    paper="Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, 2024, arXiv:2402.09353",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=2e-4,
    settings=(
        *_COMMON,
        base_bits(16, 4),
        ratio(1.0),
        fixed("update", "Update", "decomposed", "Magnitude and direction of the weights are learned apart."),
        RANK_PATTERN,
    ),
    rates=RATES,
    capabilities=Capabilities(bases=(16, 4)),
)

PISSA = Method(
    id="pissa",
    name="PiSSA",
    family="low-rank",
    summary=(
        "LoRA that starts as the principal part of each weight, with the rest frozen. Learns faster in the first steps than LoRA; take it "
        "for short trainings on a 16-bit base. It is saved as a plain LoRA of twice the rank, which loads and merges anywhere."
    ),
    paper="Meng et al., PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models, 2024, arXiv:2404.02948",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=1e-4,
    settings=_moving("pissa"),
    rates=RATES,
    capabilities=Capabilities(combines=True),
)

OLORA = Method(
    id="olora",
    name="OLoRA",
    family="low-rank",
    summary=(
        "LoRA that starts from an orthonormal basis of each weight (its QR decomposition), with the rest frozen. Quick to set up, learns "
        "faster in the first steps than LoRA; take it as PiSSA. It is saved as a plain LoRA of twice the rank."
    ),
    paper="Büyükakyüz, OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models, 2024, arXiv:2406.01775",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=1e-4,
    settings=_moving("olora"),
    rates=RATES,
    capabilities=Capabilities(combines=True),
)

LORA_GA = Method(
    id="lora_ga",
    name="LoRA-GA",
    family="low-rank",
    summary=(
        "LoRA that starts along the gradient of the first rows, so that its first steps are as near as can be to full fine-tuning. "
        "Takes some passes over a few rows before the training. It is saved as a plain LoRA of twice the rank."
    ),
    paper="Wang et al., LoRA-GA: Low-Rank Adaptation with Gradient Approximation, 2024, arXiv:2407.05000",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=1e-4,
    settings=_moving("lora_ga"),
    rates=RATES,
    capabilities=Capabilities(tasks=("causal_lm",), combines=True),
)

EVA = Method(
    id="eva",
    name="EVA",
    family="low-rank",
    summary=(
        "LoRA that looks at a few rows first: it starts where the inputs of each layer vary most, and gives more rank to layers that need "
        "it, at the same number of ranks in all. Takes seconds more at the start; take it where data is unlike what the base has seen."
    ),
    paper="Paischer et al., Parameter Efficient Fine-tuning via Explained Variance Adaptation, 2024, arXiv:2410.07170",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=2e-4,
    settings=(*_COMMON, base_bits(16, 8, 4), ratio(1.0), start("eva")),
    rates=RATES,
    capabilities=Capabilities(tasks=("causal_lm",), bases=(16, 8, 4), combines=True),
)

LOFTQ = Method(
    id="loftq",
    name="LoftQ",
    family="low-rank",
    summary=(
        "QLoRA that starts as the best low-rank correction of what 4 bits lose of the weights. Take it in place of QLoRA where rounding "
        "hurts: small models, high ranks. Its adapter belongs to the 4-bit base; a merge into the 16-bit weights leaves the correction out."
    ),
    paper="Li et al., LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models, 2023, arXiv:2310.08659",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=1e-4,
    settings=(
        Setting("rank", "Rank", "int", 64, "Width of the two low-rank matrices. More rank makes up for more of the rounding.", 1, 1024),
        alpha(64, "alpha / rank. The rank itself is usual here."),
        INPUT_DROPOUT,
        TARGETS,
        ratio(1.0),
        start("loftq"),
        RANK_PATTERN,
    ),
    rates=RATES,
    capabilities=Capabilities(bases=(4,)),
)

LORA_PLUS = Method(
    id="lora_plus",
    name="LoRA+",
    family="low-rank",
    summary=(
        "LoRA whose matrix B learns faster than A, which wide models need to learn both. Faster and sometimes better than LoRA at no cost; "
        "take it with a lower learning rate when LoRA learns slowly."
    ),
    paper="Hayou et al., LoRA+: Efficient Low Rank Adaptation of Large Models, 2024, arXiv:2402.12354",
    application=APPLICATION,
    adapter=ADAPTER,
    hooks=HOOKS,
    learning_rate=5e-5,
    settings=(*_COMMON, base_bits(16, 8, 4), ratio(16.0), RANK_PATTERN),
    rates=RATES,
    capabilities=Capabilities(bases=(16, 8, 4), combines=True),
)
