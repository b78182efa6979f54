"""Small random models that blocks stand in, of the architectures that differ most, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.run import apply_method
from jobs.spec import Task
from tests.jobs.training.reference import CONFIGS

WIDTH = 64
_ENCODER = {
    "vocab_size": 128, "hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "num_labels": 3,
}  # fmt: skip
TASKS: dict[str, Task] = {"bert": "sequence_classification", "roberta": "sequence_classification", "t5": "seq2seq_lm"}
IDS = torch.arange(3, 40)[None]


def plain_model(name: str) -> Any:
    """The same model at each call: `bert`, `roberta`, `t5`, or one of `CONFIGS`."""
    torch.manual_seed(0)
    if name == "bert":
        return BertForSequenceClassification(BertConfig(**_ENCODER)).eval()
    if name == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(**_ENCODER)).eval()
    if name == "t5":
        shape = {"vocab_size": 128, "d_model": WIDTH, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
        return T5ForConditionalGeneration(T5Config(**shape, decoder_start_token_id=0)).eval()
    return AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="sdpa").eval()


def applied(name: str, method: str, setup: Setup | None = None, **settings: Any) -> Any:
    """Such a model with a method's adapter."""
    entry = get_method(method)
    setup = setup or Setup(seed=0, task=TASKS.get(name, "causal_lm"))
    return apply_method(entry, plain_model(name), entry.resolve(settings), setup)


def answer(model: Any) -> torch.Tensor:
    """The logits of `IDS`, with gradient."""
    model.eval()
    more = {"decoder_input_ids": IDS[:, :9]} if model.config.is_encoder_decoder else {}
    found: torch.Tensor = model(input_ids=IDS, **more).logits
    return found


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """The same without: other kernels may be taken then, so that only these can be equal to the bit."""
    return answer(model)


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """The trained weights by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def stirred(model: Any) -> Any:
    """The model with trained weights as after some steps."""
    torch.manual_seed(2)
    for weight in trained(model).values():
        weight.add_(torch.randn_like(weight), alpha=0.3)
    return model
