"""Rules that say which methods suit a run, each with its source. Free of torch.

A rule is an opinion of the literature, not a measurement of ours, and the numbers from which one holds are our judgement:
`jobs.planning.recommend` puts a team's own runs before all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from jobs.methods.entry import SettingValue

Wish = Literal["quality", "memory", "speed"]
WISHES: tuple[Wish, ...] = get_args(Wish)

BILLION = 1_000_000_000
# Below so many rows dropout is taken, and DoRA's few parameters; above the second, one epoch.
FEW_ROWS, MANY_ROWS = 1_000, 50_000
# Trained tokens from which an adapter of a usual rank begins to be too small.
MUCH_TO_LEARN = 5_000_000


@dataclass(frozen=True)
class Facts:
    """What the rules look at. `trained_tokens` are those of one epoch, `steps` the optimiser's; `languages` are codes such as `en`, none
    where they are not known.
    """

    rows: int
    trained_tokens: float
    steps: int
    parameters: int
    languages: tuple[str, ...] = ()

    @property
    def foreign(self) -> bool:
        """Whether the rows are of a language other than the one that most base models know best."""
        return any(not language.lower().startswith("en") for language in self.languages)


@dataclass(frozen=True)
class Rule:
    """A method with settings that suits some facts.

    `quality` orders rules where quality is wished for: higher is better; memory and speed are not a matter of rules but of the estimate.
    `wishes` are those that it comes into question for. `tells` is the sentence for the user; it may name `{rows}` and `{tokens}`.
    """

    method: str
    quality: int
    tells: str
    source: str
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    holds: Callable[[Facts], bool] = lambda _facts: True
    wishes: tuple[Wish, ...] = WISHES


RULES: tuple[Rule, ...] = (
    Rule(
        "full", 95,
        "All weights train: with {tokens} trained tokens there is more to learn than an adapter of a usual rank holds.",
        "Biderman et al. 2024, LoRA Learns Less and Forgets Less, arXiv:2405.09673",
        holds=lambda facts: facts.trained_tokens > MUCH_TO_LEARN,
        wishes=("quality",),
    ),
    Rule(
        "rslora", 90,
        "A high rank, scaled so that it learns as fast as a low one: {tokens} trained tokens, or a language that the base knows less of.",
        "Kalajdzievski 2023, arXiv:2312.03732; the need of a higher rank: Biderman et al. 2024, arXiv:2405.09673",
        {"rank": 64},
        holds=lambda facts: facts.trained_tokens > MUCH_TO_LEARN or facts.foreign,
        wishes=("quality",),
    ),
    Rule(
        "dora", 85,
        "With {rows} rows a low rank that learns size and direction of the weights apart is often a little better than plain LoRA.",
        "Liu et al. 2024, arXiv:2402.09353",
        {"rank": 8, "alpha": 16.0},
        holds=lambda facts: facts.rows < FEW_ROWS,
        wishes=("quality",),  # each step is slower than LoRA's, which the estimate does not know
    ),
    Rule(
        "lora", 80,
        "LoRA on all linear layers comes closest to training all weights at a fraction of the memory, and merges into the model.",
        "Hu et al. 2021, arXiv:2106.09685; all linear layers: Dettmers et al. 2023, arXiv:2305.14314, figure 2",
    ),
    Rule(
        "lora", 50,
        "LoRA on the attention alone is the smallest and fastest of the usual adapters; it learns a little less.",
        "Hu et al. 2021, arXiv:2106.09685, section 7.1; that it loses: Dettmers et al. 2023, arXiv:2305.14314, figure 2",
        {"rank": 8, "alpha": 16.0, "targets": "attention"},
    ),
    Rule(
        "lora_8bit", 70,
        "LoRA over a base in 8 bits: half the memory of its weights, and little is lost.",
        "Dettmers et al. 2022, arXiv:2208.07339, table 1",
    ),
    Rule(
        "qlora", 60,
        "LoRA over a base in 4 bits takes the least memory of all; its paper trains with rank 64.",
        "Dettmers et al. 2023, arXiv:2305.14314",
        {"rank": 64, "alpha": 128.0},
    ),
    Rule(
        "pissa", 82,
        "In a training of only some steps, a start along the principal parts of the weights learns faster than LoRA's own.",
        "Meng et al. 2024, arXiv:2404.02948",
        holds=lambda facts: facts.steps < 200,
        wishes=("quality",),
    ),
)  # fmt: skip


def settings_of(rule: Rule, facts: Facts) -> dict[str, Any]:
    """The rule's settings, with dropout on few rows where the method is a LoRA of its plain form (Dettmers et al. 2023,
    arXiv:2305.14314, appendix A: 0.05 helps models up to 13 B).
    """
    few = rule.method in ("lora", "lora_8bit", "qlora") and facts.rows < FEW_ROWS and facts.parameters <= 13 * BILLION
    return {**rule.settings, **({"dropout": 0.05} if few else {})}


def training_of(rule: Rule, facts: Facts) -> dict[str, Any]:
    """The training that goes with a rule: one epoch on very many rows, else three (the usual choices of today's trainers), and half the
    learning rate above 13 B parameters (Dettmers et al. 2023, appendix: 2e-4, and 1e-4 for 33 and 65 B).
    """
    changes: dict[str, Any] = {"epochs": 1.0 if facts.rows > MANY_ROWS else 3.0, "learning_rate": None}
    if rule.method != "full" and facts.parameters > 13 * BILLION:
        changes["learning_rate"] = 1e-4
    return changes
