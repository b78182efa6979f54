"""The model card: what was trained on what, how, and how well it does. Front matter as huggingface_hub's `ModelCardData` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from huggingface_hub import ModelCardData

from jobs.export.context import ExportContext
from jobs.spec import Task

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
MEASURES = (
    ("loss", "Loss (nats per token)"),
    ("perplexity", "Perplexity"),
    ("token_accuracy", "Token accuracy"),
    ("exact_match", "Exact match"),
    ("label_accuracy", "Label accuracy"),
    ("choice_accuracy", "Choice accuracy"),
    ("choice_accuracy_normalised", "Choice accuracy, per character"),
)


PROBED = ("base", "tuned")
# The Hub's names of what a model is for; it has none for multiple choice.
PIPELINES: dict[Task, str] = {
    "causal_lm": "text-generation",
    "sequence_classification": "text-classification",
    "regression": "text-classification",
    "question_answering": "question-answering",
    "seq2seq_lm": "text2text-generation",
}


def model_card(
    context: ExportContext, *, kind: str, results: Mapping[str, Mapping[str, Any]], weights: Mapping[str, Any] | None = None
) -> str:
    """The text of README.md for an artifact of `kind` (`adapter`, `merged`, `model`).

    `results` are the `eval` data to show, by model: those measured on just these weights (and the base, to compare). `weights` are the
    facts of a merged or fully trained model's weights. `context.facts` may hold `data` (a mapping of file name to sha256) and any plain
    value, shown as it stands.
    """
    parts = [
        _front_matter(context, kind),
        f"# {' '.join(context.spec.name.split()) or 'Fine-tuned model'}",
        _opening(context, kind),
        _table("Results on held-out rows", ["", *results], _result_rows(results)),
        _table("General probe: what was forgotten", ["", *PROBED, "Difference"], _probe_rows(context.probe)),
        _table("Weights", ["", "Value"], [[name, _shown(value)] for name, value in (weights or {}).items()]),
        _table("Composition" if context.made else "Training", ["Setting", "Value"], _training_rows(context)),
        _table("Data", ["File", "sha256"], [[name, f"`{digest}`"] for name, digest in context.facts.get("data", {}).items()]),
        _table("Libraries", ["Name", "Version"], [[name, version(name)] for name in LIBRARIES]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(context: ExportContext, kind: str) -> str:
    model = context.spec.model
    data = ModelCardData(
        base_model=model.name or None,
        license=model.licence.lower() or None,
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag=PIPELINES.get(context.spec.task),
        tags=["graft", context.method.id],
    )
    return f"---\n{data.to_yaml()}\n---"


def _opening(context: ExportContext, kind: str) -> str:
    model = context.spec.model
    base = f"{model.name or 'the base model'}{f' (revision `{model.revision}`)' if model.revision else ''}"
    what = {"adapter": "An adapter for", "merged": "A merged model: an adapter added into", "model": "All parameters trained, from"}[kind]
    licence = f" The base model's licence is {model.licence}; it applies to what is made of it." if model.licence else ""
    remark = f" {context.hooks.remark}" if kind == "adapter" and context.hooks.remark else ""
    return f"{what} {base}, {context.made or f'trained with {context.method.name}'}.{remark}{licence}"


def _result_rows(results: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    rows = [[label, *(_shown(data.get(key)) for data in results.values())] for key, label in MEASURES]
    named = dict.fromkeys(key for data in results.values() for key in data.get("metrics") or {})
    rows += [[_words(key), *(_shown((data.get("metrics") or {}).get(key)) for data in results.values())] for key in named]
    return [row for row in rows if any(cell for cell in row[1:])]


def _words(key: str) -> str:
    """A metric's name for people: `f1_macro` is "F1 macro"."""
    return key.replace("_", " ").capitalize()


def _probe_rows(probe: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Loss and choice accuracy of base and tuned model on the whole probe, and the loss on each kind of its items."""
    before, after = (probe.get(model, {}) for model in PROBED)
    kinds = {kind: [data.get("kinds", {}).get(kind, {}).get("loss") for data in (before, after)] for kind in before.get("kinds", {})}
    figures = {label: [data.get(key) for data in (before, after)] for key, label in MEASURES if key in ("loss", "choice_accuracy")}
    figures |= {f"Loss: {kind}": pair for kind, pair in kinds.items()}
    return [
        [label, _shown(float(old)), _shown(float(new)), f"{new - old:+.4g}"]
        for label, (old, new) in figures.items()
        if old is not None and new is not None
    ]


def _training_rows(context: ExportContext) -> list[list[str]]:
    facts = {key: value for key, value in context.facts.items() if not isinstance(value, Mapping)}
    named = {"method": context.method.id, "seed": context.spec.seed, **({} if context.made else context.settings), **facts}
    return [[f"`{name}`", _shown(value)] for name, value in named.items() if value != ""]


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return f"## {title}\n\n" + "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
