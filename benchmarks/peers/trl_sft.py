"""TRL's SFTTrainer on rows that are tokenised already, padded or padding-free; gradient checkpointing, on by default, is off."""

from __future__ import annotations

import tempfile

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks.peers.common import Meter, parse
from benchmarks.peers.hugging_face import load_base, load_tokenizer, lora_config, metered, settings


def main() -> None:
    """Trains until the meter has enough."""
    job, flags = parse("trl_sft", padding_free="rows laid end to end in place of padding")
    meter = Meter(job)
    model = load_base(job)
    torch.manual_seed(job.seed)
    with tempfile.TemporaryDirectory() as out:
        arguments = SFTConfig(
            train_sampling_strategy="sequential", max_length=None, padding_free=flags["padding_free"], packing=False, **settings(job, out)
        )
        metered(SFTTrainer, meter)(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(job.examples),
            processing_class=load_tokenizer(job),
            peft_config=None if job.method == "full" else lora_config(job),
        ).train()


if __name__ == "__main__":
    main()
