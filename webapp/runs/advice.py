"""The advice beside the form of a new run: three methods with settings, and what to ask less of where the form does not fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from jobs.methods.registry import get_method
from jobs.planning.estimate import USABLE_SHARE
from jobs.planning.rules import WISHES, Wish
from jobs.spec import RunSpec
from webapp.accounts.models import Team
from webapp.runs.filling import changes, shown, to_query
from webapp.runs.forms import RunForm
from webapp.runs.services.advise import advise

# The wishes in the words of the form.
WISH_WORDS = {"quality": _("Quality"), "memory": _("Little memory"), "speed": _("Speed")}


@dataclass(frozen=True)
class Need:
    """What a run would take: `peak_bytes` of the device's memory, and `seconds` of training with what they rest on (None: not known)."""

    peak_bytes: int
    fits: bool
    seconds: float | None
    basis: str


@dataclass(frozen=True)
class Choice:
    """A recommended method: what it would change in the form (`facts`, and `use`, which fills it in), why, and what it would take."""

    method: str
    facts: list[tuple[str, str]]
    reason: str
    source: str
    asked: list[str]
    need: Need
    use: str


@dataclass(frozen=True)
class Remedy:
    """One change of several to be made together: after it and those before it the peak is `peak_bytes`; `use` makes all of them."""

    change: str
    peak_bytes: int
    fits: bool
    use: str


@dataclass(frozen=True)
class Panel:
    """What is advised. `need` is that of the form as it stands, None where that cannot be launched at all (`refusal` says why)."""

    device: dict[str, Any]
    choices: list[Choice]
    need: Need | None
    refusal: str
    remedies: list[Remedy]

    @property
    def usable_bytes(self) -> float:
        """What a run may take of the device's memory."""
        return float(USABLE_SHARE * self.device["memory_bytes"])

    @property
    def enough(self) -> bool:
        """Whether all remedies together make the form fit."""
        return bool(self.remedies) and self.remedies[-1].fits


def page_of(form: RunForm, **more: Any) -> dict[str, Any]:
    """The context of the page with the form of a new run."""
    everything = dict.fromkeys(("data", "check", "model", "method", "settings", "launch"), True)
    return {"form": form, "families": form.families(), "wish": "quality", "wishes": WISH_WORDS, "at": everything, **more}


def wish_of(text: str) -> Wish:
    """A wish by its name; quality where there is none of this name."""
    return text if text in WISHES else "quality"


def panel(team: Team, form: RunForm, wish: Wish) -> Panel:
    """The advice for a valid form. Raises `UserError` where none can be given."""
    recipe = form.recipe()
    spec = recipe.spec()
    answer = advise(team, spec, dataset_version=recipe.dataset_version, base_model=recipe.base_model, wish=wish)
    refusal = answer["refusal"]
    return Panel(
        device=answer["device"],
        choices=[_choice(form, spec, one) for one in answer["recommendations"]],
        need=_need(answer) if answer["estimate"] else None,
        refusal=f"{refusal['message']} {refusal['remedy']}" if refusal else "",
        remedies=[_remedy(spec, one) for one in answer["less"]],
    )


def _choice(form: RunForm, spec: RunSpec, one: dict[str, Any]) -> Choice:
    wanted = RunSpec.from_json({**spec.to_json(), "method": one["method"], "training": one["training"]})
    values = changes(spec, wanted)
    method = get_method(wanted.method.id)
    # of a method's settings only those that are not its defaults are worth a word
    defaults = changes(spec, RunSpec.from_json({**wanted.to_json(), "method": {"id": method.id}}))
    told = {name: value for name, value in values.items() if not name.startswith("settings_") or defaults.get(name) != value}
    return Choice(
        method=method.name,
        facts=shown(form, told),
        reason=one["reason"],
        source=one["source"],
        asked=one["changes"],
        need=_need(one),
        use=to_query(values),
    )


def remedy_of(spec: RunSpec, change: str, peak: int, changed: RunSpec, *, fits: bool) -> Remedy:
    """A step of `jobs.planning.advice` for the form that made `spec`: method and training of the `changed` spec fill it in."""
    wanted = RunSpec.from_json({**spec.to_json(), "method": asdict(changed.method), "training": asdict(changed.training)})
    return Remedy(change, peak, fits, to_query(changes(spec, wanted)))


def _remedy(spec: RunSpec, one: dict[str, Any]) -> Remedy:
    return remedy_of(spec, one["change"], one["peak"], RunSpec.from_json(one["spec"]), fits=one["fits"])


def _need(answer: dict[str, Any]) -> Need:
    found, timing = answer["estimate"], answer["timing"] or {}
    return Need(found["memory"]["peak"], found["fits"], timing.get("seconds"), timing.get("basis", ""))
