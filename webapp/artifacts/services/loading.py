"""How an artifact is loaded elsewhere: commands and lines of Python to copy, with its own names."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext as _

from jobs.adapter_files import CONFIG
from jobs.tasks.registry import get_task
from webapp.runs.kinds import Kind
from webapp.runs.models import Artifact, Run

# What vLLM serves upon a base, and what Ollama reads out of safetensors.
_VLLM_ADAPTERS = frozenset({"lora", "qlora", "rslora"})
_OLLAMA = ("LlamaForCausalLM", "MistralForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM", "Phi3ForCausalLM")


@dataclass(frozen=True)
class Way:
    """One program, what it is called, and what to type."""

    name: str
    text: str
    note: str = ""


def ways_of(artifact: Artifact) -> list[Way]:
    """The ways for an artifact of a run, whose base model is at hand; none for an analysis."""
    folder = artifact.name.removesuffix(".zip")
    if artifact.kind == Artifact.Kind.ANALYSIS:
        return []
    ways = [Way(_("Unpack"), f"unzip {artifact.name} -d {folder}")]
    return ways + (_adapter(artifact, folder) if artifact.kind == Artifact.Kind.ADAPTER else _model(artifact.run, folder))


def _task(run: Run) -> str:
    """The transformers class for the run's task."""
    return {
        "causal_lm": "AutoModelForCausalLM",
        "seq2seq_lm": "AutoModelForSeq2SeqLM",
        "sequence_classification": "AutoModelForSequenceClassification",
        "regression": "AutoModelForSequenceClassification",
        "question_answering": "AutoModelForQuestionAnswering",
        "multiple_choice": "AutoModelForMultipleChoice",
    }[get_task(run.spec.get("task", "causal_lm")).id]


def _base_name(run: Run) -> str:
    """What the base is called where it is loaded from: its name on the Hub, else that of a folder."""
    base = run.base_model
    return base.repository if base.source == base.Source.HUB else f"path/to/{base.name}"


def _adapter(artifact: Artifact, folder: str) -> list[Way]:
    run = artifact.run
    base, task = _base_name(run), _task(run)
    if not any(str(file["name"]) == CONFIG for file in artifact.files):
        return []
    revision = f', revision="{run.base_model.revision}"' if run.base_model.source == run.base_model.Source.HUB else ""
    ways = [
        Way(
            "PEFT",
            f"from peft import PeftModel\nfrom transformers import AutoTokenizer, {task}\n\n"
            f'base = {task}.from_pretrained("{base}"{revision}, dtype="auto")\n'
            f'model = PeftModel.from_pretrained(base, "{folder}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
        )
    ]
    if run.method in _VLLM_ADAPTERS and task == "AutoModelForCausalLM" and run.kind in (Kind.TRAIN, Kind.COMPOSE):
        rank = int(run.spec.get("method", {}).get("settings", {}).get("rank") or run.spec.get("rank") or 16)
        ways.append(Way("vLLM", f"vllm serve {base} --enable-lora --max-lora-rank {max(8, rank)} \\\n  --lora-modules {folder}=./{folder}"))
    return ways


def _model(run: Run, folder: str) -> list[Way]:
    task = _task(run)
    ways = [
        Way(
            "transformers",
            f"from transformers import AutoTokenizer, {task}\n\n"
            f'model = {task}.from_pretrained("{folder}", dtype="auto")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
        )
    ]
    if task == "AutoModelForCausalLM":
        ways.append(Way("vLLM", f"vllm serve ./{folder}"))
        if run.base_model.facts.get("architecture") in _OLLAMA:
            ways.append(
                Way(
                    "Ollama",
                    f'echo "FROM ./{folder}" > Modelfile\nollama create {folder.lower()} -f Modelfile\nollama run {folder.lower()}',
                    _("Ollama converts the weights, and takes the template of the tokenizer where it knows it."),
                )
            )
    return ways
