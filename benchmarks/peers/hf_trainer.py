"""HF Trainer and PEFT: rows padded to the longest of the batch, or flattened; compiled or not."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from peft import get_peft_model, prepare_model_for_kbit_training
from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening, Trainer, TrainingArguments

from benchmarks.peers.common import IGNORED, Job, Meter, parse
from benchmarks.peers.hugging_face import load_base, load_tokenizer, lora_config, metered, settings


def make_model(job: Job) -> Any:
    """The model as PEFT's guides make it; A is drawn from the job's seed, as in Graft."""
    model = load_base(job)
    if job.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    torch.manual_seed(job.seed)
    return model if job.method == "full" else get_peft_model(model, lora_config(job))


def main() -> None:
    """Trains until the meter has enough."""
    job, flags = parse("hf_trainer", flatten="rows laid end to end in place of padding", compile="torch_compile=True")
    meter = Meter(job, compiled=flags["compile"])
    collator = DataCollatorWithFlattening() if flags["flatten"] else DataCollatorForSeq2Seq(load_tokenizer(job), label_pad_token_id=IGNORED)
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            train_sampling_strategy="sequential", remove_unused_columns=False, **settings(job, out, compiled=flags["compile"])
        )
        metered(Trainer, meter)(model=make_model(job), args=arguments, train_dataset=job.examples, data_collator=collator).train()


if __name__ == "__main__":
    main()
