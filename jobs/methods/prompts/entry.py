"""Catalogue entries of the prompt methods (torch-free)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from jobs.methods.adapter import Adapter, Keeps
from jobs.methods.entry import VIRTUAL_TOKENS, Capabilities, Method, Setting
from jobs.methods.settings import base_bits
from jobs.models.frame import Frame
from jobs.models.head_shapes import Shape

_TOKENS = Setting(
    VIRTUAL_TOKENS,
    "Virtual tokens",
    "int",
    20,
    "How many trained tokens stand before each row; they take as many of the model's positions. 5 to 100 is usual.",
    1,
    1024,
)
_TEXT = Setting(
    "start_text",
    "Start text",
    "text",
    "Read what is asked with care, then answer it in the way in which the examples are answered.",
    "Where the start is text: what the virtual tokens are at first, repeated or cut to their number. Best a sentence that says the task.",
)


def _start(*choices: str, help: str) -> Setting:
    return Setting("start", "Start", "choice", choices[0], help, choices=choices)


PROMPT_TUNING = Method(
    id="prompt_tuning",
    name="Prompt tuning",
    family="prompts",
    summary=(
        "Trains the embeddings of a few virtual tokens before every row: some thousand numbers, the smallest file of all. Take it for very "
        "many tasks on one large model. On small models it learns slowly and stays behind LoRA."
    ),
    paper="Lester, Al-Rfou and Constant, The Power of Scale for Parameter-Efficient Prompt Tuning, 2021, arXiv:2104.08691",
    application="jobs.methods.prompts.prompt:apply",
    adapter="jobs.methods.prompts.entry:plan_prompt",
    hooks="jobs.methods.prompts.hooks:PromptHooks",
    learning_rate=3e-2,
    settings=(
        _TOKENS,
        _start(
            "text",
            "rows",
            "random",
            help=(
                "What the virtual tokens are at first. text: the start text. rows: the beginning of a training row. random: numbers as "
                "spread as the model's embeddings; it learns more slowly."
            ),
        ),
        _TEXT,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(tasks=("causal_lm",), bases=(16, 8, 4), merges=False, needs=("decoder",)),
)

PREFIX_TUNING = Method(
    id="prefix_tuning",
    name="Prefix tuning",
    family="prompts",
    summary=(
        "Trains keys and values that every layer finds before each row, as if some tokens had been read already: more numbers than prompt "
        "tuning and more power, and hardly any time at each step. It starts from what the model makes of a real text, so that the first "
        "loss is that of the model itself. No gradient checkpointing, no merge."
    ),
    paper="Li and Liang, Prefix-Tuning: Optimizing Continuous Prompts for Generation, 2021, arXiv:2101.00190",
    application="jobs.methods.prompts.prefix:apply",
    adapter="jobs.methods.prompts.entry:plan_prefix",
    hooks="jobs.methods.prompts.hooks:PromptHooks",
    learning_rate=1e-2,
    settings=(
        _TOKENS,
        _start(
            "text",
            "rows",
            help="Which text the first keys and values are made of. text: the start text. rows: the beginning of a training row.",
        ),
        _TEXT,
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(tasks=("causal_lm",), bases=(16, 8, 4), merges=False, checkpointing=False, needs=("decoder",)),
)

P_TUNING = Method(
    id="p_tuning",
    name="P-tuning",
    family="prompts",
    summary=(
        "Prompt tuning whose virtual tokens come out of a small network that is trained with them and left out of the download: steadier "
        "than training the tokens alone, the same at use. Take it where prompt tuning does not learn."
    ),
    paper="Liu et al., GPT Understands, Too, 2021, arXiv:2103.10385",
    application="jobs.methods.prompts.encoder:apply",
    adapter="jobs.methods.prompts.entry:plan_encoder",
    hooks="jobs.methods.prompts.hooks:PromptHooks",
    learning_rate=3e-3,
    settings=(
        _TOKENS,
        Setting(
            "network",
            "Network",
            "choice",
            "MLP",
            "What makes the virtual tokens. MLP: three layers, each token by itself. LSTM: the paper's, in both directions.",
            choices=("MLP", "LSTM"),
        ),
        Setting("size", "Network size", "int", 128, "The numbers of an inner layer of the network. 64 to 1024 is usual.", 1, 8192),
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(tasks=("causal_lm",), bases=(16, 8, 4), merges=False, needs=("decoder",)),
)

CPT = Method(
    id="cpt",
    name="Context-aware prompt tuning",
    family="prompts",
    summary=(
        "Puts some training rows before every row, as examples, and lets the embeddings of their questions move a little while their "
        "answers stay. Starts as well as showing examples in the prompt does. Take it for very few rows. Every row "
        "becomes longer by the examples, in training and in use, and the download holds them, as token ids."
    ),
    paper="Blau et al., Context-aware Prompt Tuning: Advancing In-Context Learning with Adversarial Methods, 2024, arXiv:2410.17222",
    application="jobs.methods.prompts.context:apply",
    adapter="jobs.methods.prompts.entry:plan_context",
    hooks="jobs.methods.prompts.hooks:CptHooks",
    learning_rate=1e-3,
    settings=(
        Setting(
            "examples",
            "Examples",
            "int",
            4,
            "How many training rows stand before each row, at most; the seed chooses. 2 to 8 is usual.",
            1,
            64,
        ),
        Setting(
            VIRTUAL_TOKENS,
            "Context tokens",
            "int",
            256,
            "How many tokens the examples may have together; as many of the model's positions are kept free. Longer rows are left out.",
            1,
            8192,
        ),
        Setting(
            "bound",
            "Bound",
            "float",
            0.1,
            "How far a token may move from what it was, in a model 2048 wide; it grows with the width's square root. 0.01 to 1 is usual.",
            1e-4,
            100.0,
        ),
        Setting(
            "decay",
            "Decay of examples",
            "float",
            0.95,
            "How much less an example's answer counts in the loss than that of the next, the last being the next to the row. 1: all alike.",
            0.0,
            1.0,
        ),
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(tasks=("causal_lm",), bases=(16, 8, 4), merges=False, needs=("decoder",)),
)


def plan_prompt(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The embeddings of the virtual tokens."""
    return Adapter({"embedding": (settings[VIRTUAL_TOKENS], frame.width)}, keeps=Keeps(), before=settings[VIRTUAL_TOKENS])


def plan_prefix(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """Keys and values of the virtual tokens in every layer."""
    tokens = settings[VIRTUAL_TOKENS]
    return Adapter({"embedding": (tokens, 2 * frame.depth * frame.cached)}, keeps=Keeps(), cached=tokens)


def plan_encoder(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The tokens, and the network that reads them: three layers, or two of an LSTM in both directions (its four gates have two biases each)
    and two layers after it.
    """
    size, width = settings["size"], frame.width
    found: dict[str, Shape] = {"embedding": (settings[VIRTUAL_TOKENS], width)}
    inner: tuple[int, ...] = (width, size, size, width)
    if settings["network"] == "LSTM":
        inner = (2 * size, 2 * size, width)
        for layer, inputs in enumerate((width, 2 * size)):
            for direction in ("forward", "backward"):
                found[f"lstm.{layer}.{direction}"] = (4 * size, inputs + size + 2)
    for number, (inputs, outputs) in enumerate(pairwise(inner)):
        found |= {f"layers.{number}.weight": (outputs, inputs), f"layers.{number}.bias": (outputs,)}
    return Adapter(found, keeps=Keeps(), before=settings[VIRTUAL_TOKENS])


def plan_context(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """A change of the embedding of each token of the examples, of which there are at most so many."""
    tokens = settings[VIRTUAL_TOKENS]
    return Adapter({"delta": (tokens, frame.width)}, unknown="it hangs on the length of the rows that are chosen", before=tokens)
