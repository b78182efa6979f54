"""What everything is held against: the plainest training loop there is, and the small pieces that the tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from jobs.data.encoding import Encoded
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.spec import TrainingSpec
from jobs.training import schedule
from jobs.training.checks import choose_forward
from jobs.training.forward import Forward
from jobs.training.loop import Trainer
from jobs.training.order import permutation

VOCABULARY = 128
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.1,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
    "mistral, window": MistralConfig(**SHAPE, sliding_window=8),
    "gemma2, window and soft-caps": Gemma2Config(**SHAPE, head_dim=16, sliding_window=8, query_pre_attn_scalar=16),
    "gemma3, window": Gemma3TextConfig(**SHAPE, head_dim=16, sliding_window=8, query_pre_attn_scalar=16),
    "phi3": Phi3Config(**SHAPE),
    "gpt-neox": GPTNeoXConfig(**{name: value for name, value in SHAPE.items() if name != "num_key_value_heads"}),
    "granite, scaled logits": GraniteConfig(**SHAPE, logits_scaling=4.0),
    "mixtral": MixtralConfig(**SHAPE, num_local_experts=4),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=128,
        bos_token_id=0,
        eos_token_id=1,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    ),
    "lfm2, convolutions": Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
}
LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear"}


def make_rows(count: int = 22, seed: int = 1) -> list[Encoded]:
    """Rows of 6 to 30 random tokens of ten kinds, so that there is something to learn at once; all but the first few are trained on."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(6, 31, count)
    return [Encoded(generator.integers(3, 13, n).astype(np.int32), np.arange(n) >= generator.integers(1, 5)) for n in lengths]


def templated_rows(count: int = 22, seed: int = 1) -> list[Encoded]:
    """Rows that begin with one of two templates, of 12 and 15 tokens, then a token and 2 to 15 trained ones of their own."""
    generator = np.random.default_rng(seed)
    templates = [generator.integers(20, 60, length) for length in (12, 15)]
    rows = []
    for number in range(count):
        template = templates[number % 2]
        own = generator.integers(3, 13, generator.integers(3, 17))
        ids = np.concatenate((template, own)).astype(np.int32)
        rows.append(Encoded(ids, np.arange(len(ids)) > len(template)))
    return rows


def make_model(name: str, method: str = "full", **settings: Any) -> Any:
    """A small random model of an architecture, made trainable by a method."""
    config = CONFIGS[name]
    torch.manual_seed(0)
    attention = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    module, function = get_method(method).application.split(":")
    apply = getattr(__import__(module, fromlist=[function]), function)
    return apply(model, {**LORA, **settings}, Setup(seed=0))


def make_trainer(
    model: Any, rows: Sequence[Encoded], out: Path, spec: TrainingSpec, **changes: Any
) -> tuple[Trainer, list[dict[str, Any]]]:
    """A trainer in float32, and the list that its events go to."""
    events: list[dict[str, Any]] = []
    engine = changes.get("engine")
    forward, _ = choose_forward(model, rows[:8], dtype=torch.float32, device="cpu", batching=spec.batching, engine=engine)
    values: dict[str, Any] = {
        "forward": forward,
        "rows": rows,
        "validation": [],
        "spec": spec,
        "learning_rate": 3e-3,
        "seed": 3,
        "out": out,
        "emit": lambda kind, **data: events.append({"kind": kind, **data}),
        "stop": lambda: False,
        "fingerprint": {"seed": 3},
    }
    return Trainer(**{**values, **changes}), events


def losses(events: Sequence[dict[str, Any]]) -> list[float]:
    """The losses of the steps, in order."""
    return [event["loss"] for event in events if event["kind"] == "step"]


def reference_losses(model: Any, rows: Sequence[Encoded], spec: TrainingSpec, *, seed: int = 3, learning_rate: float = 3e-3) -> list[float]:
    """Padding, all logits, one backward for each micro-batch, torch's plain AdamW. Nothing of the engine but order and schedule."""
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=spec.weight_decay, foreach=False, fused=False)
    size = spec.micro_batch * spec.gradient_accumulation
    per_epoch = -(-len(rows) // size)
    found = []
    for step in range(spec.max_steps or 0):
        epoch, place = divmod(step, per_epoch)
        chosen = [rows[index] for index in permutation(seed, epoch, len(rows))[place * size : (place + 1) * size]]
        labels_in_step = sum(int(row.trained.sum()) for row in chosen)
        total = 0.0
        for start in range(0, len(chosen), spec.micro_batch):
            ids, mask, labels = padded(chosen[start : start + spec.micro_batch])
            logits = model(input_ids=ids, attention_mask=mask).logits
            flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
            loss = functional.cross_entropy(flat, labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum") / labels_in_step
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(parameters, spec.clip_norm)
        factor = schedule.rate_factor(
            step, total_steps=spec.max_steps or 0, warmup=schedule.warmup_steps(spec.max_steps or 0, spec.warmup_share), kind=spec.schedule
        )
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * factor
        optimiser.step()
        optimiser.zero_grad()
        found.append(total)
    return found


def gradients(forward: Forward, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """The gradients of all trained weights by name, of the summed loss of some rows."""
    forward.model.zero_grad()
    forward.refresh()
    batch = forward.batch(rows)
    with forward.running(batch):
        forward.loss_sum(batch).backward()
    return {name: weight.grad.clone() for name, weight in forward.model.named_parameters() if weight.grad is not None}


def stir(model: Any, seed: int = 5) -> Any:
    """The model with adapter matrices B that are not zero, as after some steps."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model


def padded(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids, attention mask and labels (-100 where not trained on), each [rows, longest]."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.ones(len(rows), longest, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for place, row in enumerate(rows):
        length = len(row.ids)
        ids[place, :length] = torch.from_numpy(row.ids.astype(np.int64))
        mask[place, :length] = 1
        labels[place, :length] = torch.where(torch.from_numpy(row.trained), ids[place, :length], -100)
    return ids, mask, labels


def short(spec: TrainingSpec, steps: int) -> TrainingSpec:
    """The same training, of so many steps."""
    return replace(spec, max_steps=steps, epochs=1000.0)
