"""litgpt: its model, its LoRA, its chunked head and loss, and the body of its fine-tuning loop, with clipping, which that loop lacks.

Its usual precision is taken, `bf16-true`: adapter and optimiser in bfloat16 too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from litgpt.utils import chunked_cross_entropy, instantiate_torch_optimizer
from safetensors.torch import load_file

from benchmarks.peers.common import IGNORED, Job, Meter, parse

_NAME = "SmolLM2-135M-Instruct"
_HEAD_CHUNK = 128


def make_model(job: Job, fabric: Any) -> Any:
    """The GPT of litgpt with an adapter on every linear layer but the head."""
    config = Config.from_name(
        _NAME,
        lora_r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=0.0,
        lora_query=True,
        lora_key=True,
        lora_value=True,
        lora_projection=True,
        lora_mlp=True,
        lora_head=False,
    )
    fabric.seed_everything(job.seed)
    with fabric.init_module():
        model = GPT(config)
    mark_only_lora_as_trainable(model)
    model = fabric.setup_module(model)
    weights: dict[str, torch.Tensor] = {}
    copy_weights_hf_llama(config, {}, weights, load_file(Path(job.model) / "model.safetensors"))
    refused = [name for name in model.load_state_dict(weights, strict=False).missing_keys if "lora" not in name]
    if refused:
        raise RuntimeError(f"weights that litgpt did not find: {refused[:3]}")
    model.max_seq_length = max(len(row["input_ids"]) for row in job.rows)
    return model


def batch(job: Job, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 [rows, longest]: ids padded with 0 and labels padded with `IGNORED`, as litgpt's collator does."""
    rows = [job.rows[index] for index in job.steps[step]]

    def padded(name: str, value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=value)

    return padded("input_ids", 0), padded("labels", IGNORED)


def train(job: Job, meter: Meter) -> None:
    """The body of `litgpt.finetune.lora.fit`, until the meter has enough."""
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-true" if job.precision == "bfloat16" else "32-true")
    model = make_model(job, fabric)
    chosen = {"class_path": "torch.optim.AdamW", "init_args": {"lr": job.learning_rate, "weight_decay": 0.0}}
    optimizer = fabric.setup_optimizers(instantiate_torch_optimizer(chosen, [one for one in model.parameters() if one.requires_grad]))
    model.train()
    meter.begin()
    for step in range(len(job.steps)):
        input_ids, targets = batch(job, step)
        logits = model(input_ids, lm_head_chunk_size=_HEAD_CHUNK)
        logits[-1] = logits[-1][..., :-1, :]
        loss = chunked_cross_entropy(logits, targets[..., 1:])
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        if meter.step(loss.item()):
            return


def main() -> None:
    """Trains LoRA; litgpt's full fine-tuning would hold its weights in bfloat16 alone, which is other work."""
    job, _ = parse("litgpt_lora")
    train(job, Meter(job))


if __name__ == "__main__":
    main()
