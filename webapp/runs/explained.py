"""What is usual for a setting, and where its default comes from: shown beside the field when one asks."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from django.forms import BoundField
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs.methods.entry import Method, Setting
from jobs.methods.registry import all_methods
from webapp.runs.fields import setting_name


class Explained(NamedTuple):
    """`usual` range in words, and the `source` of the default."""

    usual: Any
    source: Any


_HABIT = gettext_lazy("The usual figure of other trainers of the same kind.")

EXPLAINED = {
    "training_epochs": Explained(
        gettext_lazy("1 to 3; more learns small data by heart."), gettext_lazy("3 is what LLaMA-Factory and Unsloth begin with.")
    ),
    "training_learning_rate": Explained(
        gettext_lazy("1e-5 to 5e-5 for all weights, 1e-4 to 3e-4 for low-rank adapters."),
        gettext_lazy("Each method has its own, by its paper. A low-rank adapter wants about ten times that of full fine-tuning "
                     "(LoRA Without Regret, 2025)."),
    ),
    "training_micro_batch": Explained(gettext_lazy("1 to 16, as much as fits."), _HABIT),
    "training_gradient_accumulation": Explained(
        gettext_lazy("So that micro-batch × accumulation is 8 to 32."), gettext_lazy("8 × 2 is the usual effective batch of 16.")
    ),
    "training_schedule": Explained(
        gettext_lazy("Cosine or linear."), gettext_lazy("Cosine, from Loshchilov & Hutter 2017, arXiv:1608.03983.")
    ),
    "training_warmup_share": Explained(gettext_lazy("0 to 0.1."), gettext_lazy("0.03, as QLoRA was trained (arXiv:2305.14314).")),
    "training_max_length": Explained(
        gettext_lazy("512 to 4096, or what the data needs."), gettext_lazy("Empty takes the 99th percentile of the rows' lengths.")
    ),
    "training_weight_decay": Explained(gettext_lazy("0 to 0.1."), gettext_lazy("0, as AutoTrain, H2O LLM Studio and Axolotl have it.")),
    "training_clip_norm": Explained(gettext_lazy("0.3 to 1."), gettext_lazy("1, as AutoTrain has it (arXiv:1211.5063).")),
    "training_optimiser": Explained(
        gettext_lazy("AdamW; in 8 bits where memory is short."), gettext_lazy("Loshchilov & Hutter 2019, arXiv:1711.05101.")
    ),
    "training_early_stopping_evaluations": Explained(gettext_lazy("2 or 3, or none."), gettext_lazy("Off: all steps are taken.")),
    "training_gradient_checkpointing": Explained(
        gettext_lazy("On where memory is short."), gettext_lazy("Off, as it costs a third of the time (arXiv:1604.06174).")
    ),
}  # fmt: skip


def explained(bound: BoundField) -> Explained | None:
    """Of a field of the form; a method's setting is told from its entry in the catalogue."""
    if found := EXPLAINED.get(bound.name):
        return found
    entry = _settings().get(bound.name)
    return _of_setting(*entry) if entry else None


@cache
def _settings() -> dict[str, tuple[Method, Setting]]:
    return {setting_name(method, setting): (method, setting) for method in all_methods() for setting in method.settings}


def _of_setting(method: Method, setting: Setting) -> Explained:
    low, high = setting.minimum, setting.maximum
    if low is not None and high is not None:
        usual = _("From %(low)s to %(high)s.") % {"low": f"{low:g}", "high": f"{high:g}"}
    elif setting.choices:
        usual = _("One of %(choices)s.") % {"choices": ", ".join(setting.choices)}
    else:
        usual = ""
    told = {"default": "–" if setting.default in (None, "") else setting.default, "method": method.name, "paper": method.paper}
    if method.paper:
        return Explained(usual, _("%(default)s, by the catalogue's entry of %(method)s (%(paper)s).") % told)
    return Explained(usual, _("%(default)s, by the catalogue's entry of %(method)s.") % told)
