"""What HF Trainer and those built on it share: the model as their documentation makes it, their settings, and the meter put in place."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback

from benchmarks.peers.common import Job, Meter, training_arguments


def load_base(job: Job) -> Any:
    """The base model: frozen weights in the precision itself (4 bits for QLoRA), trained ones in float32 (bf16 comes from autocast)."""
    dtype = torch.bfloat16 if job.precision == "bfloat16" and job.method != "full" else torch.float32
    options: dict[str, Any] = {}
    if job.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
        )
        options["device_map"] = {"": "cpu"}
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype, attn_implementation="sdpa", **options)
    model.config.use_cache = False
    return model


def lora_config(job: Job) -> Any:
    """The adapter of LoRA and QLoRA: all linear layers, no dropout."""
    from peft import LoraConfig

    return LoraConfig(r=job.rank, lora_alpha=job.alpha, lora_dropout=0.0, target_modules="all-linear", bias="none", task_type="CAUSAL_LM")


def load_tokenizer(job: Job) -> Any:
    """Only its padding is used: the rows come as ids."""
    return AutoTokenizer.from_pretrained(job.model)


def settings(job: Job, out: str, *, compiled: bool = False) -> dict[str, Any]:
    """`training_arguments` and a few more; what is not named keeps its default, the fused AdamW among it."""
    return {
        **training_arguments(job, out),
        "gradient_checkpointing": False,
        "torch_compile": compiled,
        "eval_strategy": "no",
        "report_to": [],
        "dataloader_num_workers": 0,
    }


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Tells the meter of each step, and the trainer when to stop."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.loss: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.meter.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.meter.step(float(self.loss)):
            control.should_training_stop = True


def metered(trainer_class: Any, meter: Meter) -> Any:
    """`trainer_class` with the meter attached; it trains as it does."""

    class Metered(trainer_class):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.watch = _Watch(meter)
            self.add_callback(self.watch)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            self.watch.loss = super().training_step(*args, **kwargs)
            return self.watch.loss

    return Metered
