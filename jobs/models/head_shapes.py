"""What transformers' classes put upon a base model for a task: names and shapes of their weights. Free of torch.

A test holds them against those classes.
"""

from __future__ import annotations

import re

from jobs.models.architectures import is_encoder
from jobs.spec import Task

Shape = tuple[int, ...]
# Modules that PEFT trains whole beside any adapter of a task that classifies or rates, by their name.
TRAINED_WITH_ANY_ADAPTER = ("classifier", "score")

# Encoders whose head of a class is a layer, a bend and a layer, in one module; those that choose answers by another way than they classify.
_TWO_LAYERS = ("Roberta", "XLMRoberta", "Camembert", "Electra", "MPNet")
_STEM = re.compile(r"^(.+?)(?:Model|For\w+)$")


def head_shapes(architecture: str, task: Task, width: int, labels: int) -> dict[str, Shape]:
    """The weights of the head for `task`, by name, that the class of the base's architecture has; none for tasks that write.

    `labels` are those of a classification; a rating has one output, a choice one for each of its candidates, an answer a begin and an end.
    """
    if task in ("causal_lm", "seq2seq_lm"):
        return {}
    if not is_encoder(architecture):
        return {"score.weight": (labels if task == "sequence_classification" else 1, width)}
    found = _STEM.match(architecture)
    stem = found[1] if found else architecture
    if task == "question_answering":
        return _linear("classifier" if stem == "ModernBert" else "qa_outputs", 2, width)
    outputs = labels if task == "sequence_classification" else 1
    if stem in _TWO_LAYERS and task != "multiple_choice":
        return _linear("classifier.dense", width, width) | _linear("classifier.out_proj", outputs, width)
    return _inner(stem, width) | _linear("classifier", outputs, width)


def _inner(stem: str, width: int) -> dict[str, Shape]:
    """The layer before the last one, which some models have in their files."""
    names = {
        "DistilBert": "pre_classifier",
        "Electra": "sequence_summary.summary",
        "Albert": "albert.pooler",
        "DebertaV2": "pooler.dense",
        "ModernBert": "",
        "XLMRoberta": "roberta.pooler.dense",
        "Camembert": "roberta.pooler.dense",
    }
    name = names.get(stem, f"{stem.lower()}.pooler.dense")
    return _linear(name, width, width) if name else {}


def _linear(name: str, outputs: int, inputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
