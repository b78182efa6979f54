"""HF Trainer and PEFT as a script that starts from the file: rows read, tokenised with the chat template, model, adapter, first step."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Trains one step of the job in the file given, and prints when each part was done (seconds since the epoch)."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import torch
    from datasets import load_dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    at = {"imports_at": time.time()}
    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        whole = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
        prompt = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        return {"input_ids": whole, "labels": [-100] * len(prompt) + whole[len(prompt) :]}

    with tempfile.TemporaryDirectory() as folder:
        rows = load_dataset("json", data_files=job["rows"], split="train", cache_dir=folder)
        rows = rows.map(encode, remove_columns=rows.column_names)
        at["rows_at"] = time.time()
        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.bfloat16)
        adapter = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, adapter)
        at["model_at"] = time.time()

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *arguments: Any, **named: Any) -> None:
                at["step_at"] = time.time()

        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=8,
            max_steps=1,
            learning_rate=2e-4,
            bf16=True,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[Clock()]).train()
    print(json.dumps(at))


if __name__ == "__main__":
    main()
