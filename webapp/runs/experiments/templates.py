"""Ready-made experiments: what the form is filled in with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True)
class Template:
    """A ready-made experiment: its id in links, its name, a sentence about it, the fields of `ExperimentForm` that it fills in, and, told
    once it is chosen, where it comes from and what was changed (perhaps nothing).
    """

    id: str
    name: Any
    help: Any
    values: Mapping[str, Any]
    source: Any = ""


# The thesis's training rows, and the rows of one of its steps: 4 in a micro-batch, 2 of these.
_ROWS, _MICRO_BATCH, _ACCUMULATION, _EPOCHS, _WARM_UP_STEPS = 2251, 4, 2, 3, 5
_STEPS = _EPOCHS * math.ceil(_ROWS / (_MICRO_BATCH * _ACCUMULATION))

TEMPLATES = (
    Template(
        "full-lora-qlora",
        _("Full, LoRA, QLoRA"),
        _("A thesis's comparison: all weights, LoRA and QLoRA of rank 16 on the same rows, without its faults."),
        {
            "kind": "list",
            "lines": "full\nlora rank=16 alpha=16 dropout=0\nqlora rank=16 alpha=16 dropout=0\n",
            "training_epochs": _EPOCHS,
            "training_micro_batch": _MICRO_BATCH,
            "training_gradient_accumulation": _ACCUMULATION,
            "training_schedule": "linear",
            "training_warmup_share": round(_WARM_UP_STEPS / _STEPS, 4),
            "training_weight_decay": 0.01,
            "training_optimiser": "adamw_8bit",
            "training_max_length": 2048,
            "training_batching": "padded",
            "training_final_weights": "best",
        },
        _("After the published notebooks of the thesis that compares full fine-tuning, LoRA and QLoRA of Llama-3.2-1B on ARC-Easy. Left as "
          "it was: batch of 8, 3 epochs, linear schedule, 5 steps of warm-up, weight decay 0.01, 8-bit AdamW, no packing. Mended: each "
          "method trains at its own rate (full fine-tuning took LoRA's), QLoRA has rank 16 as its text says, the weights of the lowest "
          "validation loss are kept, and accuracy is measured as docs/evaluation.md says. It fits any data."),
    ),
    Template(
        "ranks",
        _("LoRA, ranks 4 to 64"),
        _("How much rank the task needs. Alpha grows with the rank, so that the scale of the update stays the same."),
        {"kind": "grid", "methods": ["lora"], "ranks": "4, 8, 16, 32, 64", "seeds": "0", "scale_alpha": True},
    ),
    Template(
        "seeds",
        _("One method, three seeds"),
        _("How far chance alone moves the figures: what is smaller than this spread is no difference."),
        {"kind": "grid", "methods": ["lora"], "seeds": "0-2"},
    ),
    Template(
        "rates",
        _("LoRA, five learning rates"),
        _("A factor of two up and down from LoRA's own rate."),
        {"kind": "grid", "methods": ["lora"], "rates": "5e-5, 1e-4, 2e-4, 4e-4, 8e-4", "seeds": "0"},
    ),
)  # fmt: skip
BY_ID = {template.id: template for template in TEMPLATES}
