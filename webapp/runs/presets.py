"""Settings by name: the three that everybody has, with reasons and sources, and what a team keeps of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from webapp.runs.filling import Values
from webapp.runs.forms import RunForm
from webapp.runs.words import FIELDS


@dataclass(frozen=True)
class Preset:
    """`values` of fields of the form; what they leave out goes back to its default. `reason` says why, `source` whose experience it is."""

    id: str
    label: Any
    reason: Any
    source: str
    values: Values


PRESETS = (
    Preset(
        "safe", _("Safe"),
        _("Fits nearly everywhere and stops by itself: one row in memory at a time with the usual effective batch of 16, activations "
          "recomputed, the weights of the lowest validation loss kept."),
        "Chen et al. 2016, arXiv:1604.06174; Prechelt 1998, Early Stopping – But When?",
        {"training_micro_batch": 1, "training_gradient_accumulation": 16, "training_gradient_checkpointing": True,
         "training_early_stopping_evaluations": 3, "training_final_weights": "best"},
    ),
    Preset(
        "fast", _("Fast"),
        _("A first look: each row is seen once, short rows share a sequence, and only the losses are compared at the end."),
        "Krell et al. 2021, arXiv:2107.02027",
        {"training_epochs": 1, "training_batching": "packed", "evaluation_generate": False},
    ),
    Preset(
        "best", _("Best"),
        _("Time is no matter: up to five epochs with small batches, which low-rank adapters like, until the validation loss has not "
          "fallen three times, and the best weights are kept."),
        "Schulman et al. 2025, LoRA Without Regret; Prechelt 1998",
        {"training_epochs": 5, "training_micro_batch": 4, "training_gradient_accumulation": 2,
         "training_early_stopping_evaluations": 3, "training_final_weights": "best"},
    ),
)  # fmt: skip


def built_in(name: str) -> Preset | None:
    """One of the three by its id."""
    return next((preset for preset in PRESETS if preset.id == name), None)


def whole(form: RunForm, preset: Preset) -> Values:
    """All fields that a preset decides: its own values, the defaults of the other settings of the training."""
    defaults = {name: form.fields[name].initial for name in training_fields()}
    given = {name: value for name, value in preset.values.items() if not _unfit(form, name)}
    return {**defaults, **given}


def training_fields() -> list[str]:
    """The fields of the training, by name."""
    return [words.path.replace(".", "_") for words in FIELDS if words.path.startswith("training.")]


def settings_of(form: RunForm) -> Values:
    """What a preset of the team keeps of a form: the method with its settings, and the training."""
    method = str(form["method"].value())
    names = ["method", *(name for name in form.fields if name.startswith(f"settings_{method}_")), *training_fields()]
    return {name: form[name].value() for name in names}


def _unfit(form: RunForm, name: str) -> bool:
    """Whether the chosen method does not bear a field: recomputing, with some."""
    method = form.methods.get(str(form["method"].value()))
    return name == "training_gradient_checkpointing" and method is not None and not method.capabilities.checkpointing
