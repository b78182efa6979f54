"""The estimate beside the form, ready to draw: a bar of memory by part, figures, and remedies that fill the form in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from jobs.errors import UserError
from jobs.spec import RunSpec
from webapp.accounts.models import Team
from webapp.runs.advice import Remedy, remedy_of
from webapp.runs.forms import RunForm
from webapp.runs.services.estimating import Takes, takes

# The bar is drawn in these units; the page scales it.
WIDTH = 1000
PARTS = {
    "weights": _("weights"),
    "adapter": _("adapter"),
    "fused adapter and scratch": _("fused adapter"),
    "weights in oneDNN's layout": _("packed weights"),
    "optimiser": _("optimiser"),
    "gradients": _("gradients"),
    "activations": _("activations"),
    "output layer and loss": _("output layer and loss"),
    "backward in passing": _("backward pass"),
    "update in passing": _("update"),
}
PHASES = {
    "loading": _("while the model is loaded"),
    "preparing": _("while training is prepared"),
    "training": _("in training"),
    "evaluating": _("in the evaluation"),
    "exporting": _("in the export"),
}


@dataclass(frozen=True)
class Part:
    """One part of the memory: `x` and `width` are where it stands in the bar, `shade` its pattern, from 1."""

    label: Any
    size: int
    x: float
    width: float
    shade: int


@dataclass(frozen=True)
class Panel:
    """The estimate, or why there is none (`unknown`). `limit_x` is where the usable memory ends in the bar."""

    takes: Takes | None = None
    unknown: str = ""
    parts: tuple[Part, ...] = ()
    limit_x: float = 0.0
    phase: Any = ""
    remedies: tuple[Remedy, ...] = ()

    @property
    def enough(self) -> bool:
        """Whether all remedies together make the form fit."""
        return bool(self.remedies) and self.remedies[-1].fits


def panel_of(team: Team, form: RunForm) -> Panel:
    """The estimate of a bound form."""
    if not form.is_valid():
        faults = [f"{form.fields[name].label}: {errors[0]}" if name in form.fields else errors[0] for name, errors in form.errors.items()]
        return Panel(unknown=" ".join(str(fault) for fault in faults))
    try:
        recipe = form.recipe()
        spec = recipe.spec()
        found = takes(team, spec, dataset_version=recipe.dataset_version, base_model=recipe.base_model)
    except UserError as error:
        return Panel(unknown=f"{error.message} {error.remedy}")
    return _drawn(spec, found)


def _drawn(spec: RunSpec, found: Takes) -> Panel:
    memory = found.found.memory
    sizes = {str(PARTS.get(name, name)): size for name, size in memory.parts.items()}
    sizes[str(_("libraries"))] = memory.runtime
    beyond = memory.peak - sum(sizes.values())
    if beyond > 0:  # the peak is not in training
        sizes[str(PHASES[memory.peak_phase])] = beyond
    scale = WIDTH / max(memory.peak, found.device["memory_bytes"])
    parts, x = [], 0.0
    for place, (label, size) in enumerate(sizes.items()):
        parts.append(Part(label, size, round(x, 2), round(size * scale, 2), place % 6 + 1))
        x += size * scale
    return Panel(
        takes=found,
        parts=tuple(parts),
        limit_x=round(found.usable_bytes * scale, 2),
        phase=PHASES[memory.peak_phase],
        remedies=tuple(remedy_of(spec, one.change, one.peak, one.spec, fits=one.fits) for one in found.remedies),
    )
