"""LLaMA-Factory by its own `run_exp`, on rows tokenised beforehand (its `tokenized_path`)."""

from __future__ import annotations

import sys
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.peers.common import Job, Meter, parse, training_arguments


def without_audio() -> None:
    """LLaMA-Factory imports torchaudio, of which PyPI has no build for a CPU build of torch; training text, it never calls it."""
    stand_in = ModuleType("torchaudio")
    stand_in.__spec__ = ModuleSpec("torchaudio", loader=None)
    sys.modules["torchaudio"] = stand_in


def write_rows(job: Job, folder: Path) -> None:
    """The rows as LLaMA-Factory's own preprocessing leaves them on disk."""
    from datasets import Dataset, DatasetDict

    rows = [{**row, "attention_mask": [1] * len(row["input_ids"]), "images": None, "videos": None, "audios": None} for row in job.examples]
    DatasetDict(train=Dataset.from_list(rows)).save_to_disk(str(folder))


def arguments(job: Job, rows: Path, out: Path) -> dict[str, Any]:
    """Its YAML file, as an object."""
    quantised = {"quantization_bit": 4, "quantization_method": "bnb", "quantization_type": "nf4", "double_quantization": True}
    adapter = {"lora_rank": job.rank, "lora_alpha": job.alpha, "lora_dropout": 0.0, "lora_target": "all"}
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": job.model,
        "template": "smollm2",
        "dataset": "tokenised",
        "tokenized_path": str(rows),
        "disable_shuffling": True,
        "finetuning_type": "full" if job.method == "full" else "lora",
        **({} if job.method == "full" else adapter),
        **(quantised if job.method == "qlora" else {}),
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True,
        **training_arguments(job, str(out)),
        "report_to": "none",
        "preprocessing_num_workers": None,
    }


def main() -> None:
    """Trains until the meter has enough; what LLaMA-Factory saves afterwards is not measured."""
    job, _ = parse("llama_factory")
    meter = Meter(job)
    without_audio()
    from llamafactory.train.sft import workflow
    from llamafactory.train.tuner import run_exp

    from benchmarks.peers.hugging_face import metered

    workflow.CustomSeq2SeqTrainer = metered(workflow.CustomSeq2SeqTrainer, meter)
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder) / "rows", Path(folder) / "out"
        write_rows(job, rows)
        run_exp(arguments(job, rows, out))


if __name__ == "__main__":
    main()
