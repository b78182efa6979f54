"""What the catalogue says of a method: form, JSON schema, docs page and `python -m jobs methods` are drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from jobs.device import Device
from jobs.errors import UserError
from jobs.methods.ranks import read_ranks, write_ranks
from jobs.spec import TASKS, Task

if TYPE_CHECKING:
    from jobs.methods.adapter import Adapter
    from jobs.models.frame import Frame

SettingValue = bool | int | float | str
SettingType = Literal["int", "float", "bool", "choice", "text", "ranks"]
Bits = Literal[4, 8, 16]
Need = Literal["biases", "decoder", "linear"]

BASE_BITS = "base_bits"
VIRTUAL_TOKENS = "virtual_tokens"


@dataclass(frozen=True)
class Setting:
    """One setting: its range, its default, and a sentence that says what it does. Bounds are inclusive.

    A value of the type `ranks` is text as `jobs.methods.ranks` reads it, or the object of names and ranks that stands for it.
    """

    name: str
    label: str
    type: SettingType
    default: SettingValue
    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, method: str, value: Any) -> SettingValue:
        """`value` in this setting's type. Raises `UserError("method_setting")`."""
        try:
            return self._read(value)
        except ValueError as fault:
            raise UserError("method_setting", method=method, setting=self.name, reason=str(fault), where={"field": self.name}) from None

    def _read(self, value: Any) -> SettingValue:
        if not self._is_of_type(value):
            raise ValueError(f"is {value!r}, not of type {self.type}")
        if self.choices and value not in self.choices:
            raise ValueError(f"is {value!r}, not one of {', '.join(self.choices)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and not value >= self.minimum:
                raise ValueError(f"is {value}, below {self.minimum:g}")
            if self.maximum is not None and not value <= self.maximum:
                raise ValueError(f"is {value}, above {self.maximum:g}")
        if self.type == "ranks":
            return write_ranks(read_ranks(value))
        return float(value) if self.type == "float" else value

    def _is_of_type(self, value: Any) -> bool:
        kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "ranks": (str, Mapping)}
        return isinstance(value, kinds.get(self.type, (str,))) and (self.type == "bool" or not isinstance(value, bool))


@dataclass(frozen=True)
class Capabilities:
    """What a method can do.

    - `tasks` that it trains for.
    - `bases`: the bits that the base's weights may have (16 stands for 16 and 32), its usual one first.
    - `devices` that it runs on.
    - `merges`: its result can be added into the base's weights.
    - `adapter`: it leaves an adapter; false where the base itself is trained.
    - `combines`: several of its adapters on one base can be combined into one.
    - `needs` of the architecture: `biases`, `decoder` (a causal model), `linear` (layers that are `torch.nn.Linear`, as GPT-2's are not).
    - `checkpointing`: activations may be computed again in the backward pass in place of being kept.
    - `extends`: a training may go on for more steps than were planned; false where the plan of its steps is a part of the method.
    - `adapters`: how many finished adapters it builds on, at least; `adapters_of`: the ids of the methods that these may be of.
    """

    tasks: tuple[Task, ...] = TASKS
    bases: tuple[Bits, ...] = (16,)
    devices: tuple[str, ...] = ("cpu", "cuda")
    merges: bool = True
    adapter: bool = True
    combines: bool = False
    checkpointing: bool = True
    extends: bool = True
    needs: tuple[Need, ...] = ()
    adapters: int = 0
    adapters_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """One entry of the catalogue.

    Import strings (`package.module:name`) name what is loaded on first use:

    - `application`: the torch half, `apply(model, settings, setup) -> model` (`jobs.methods.setup.Setup`).
    - `adapter`: free of torch, `(settings, frame) -> jobs.methods.adapter.Adapter`: what is put upon a base of that frame; a method that
      builds on finished adapters is given the contents of their `adapter_config.json` too. Empty where every weight of the base trains.
    - `hooks`: the class of `jobs.methods.hooks` that acts between the steps; none where empty.
    - `tuner`: a module that makes PEFT know the method, where it is one of ours.
    - `rates`: free of torch, `rate_factor(settings, weight) -> float`: the learning rate of a trained weight, by its name, as a multiple of
      the run's; empty where it is the same for all.
    """

    id: str
    name: str
    family: str
    summary: str
    paper: str
    application: str
    learning_rate: float
    settings: tuple[Setting, ...] = ()
    adapter: str = ""
    rates: str = ""
    hooks: str = ""
    tuner: str = ""
    capabilities: Capabilities = field(default_factory=Capabilities)

    def base_bits(self, settings: Mapping[str, SettingValue]) -> Bits:
        """The bits of the base's weights under resolved `settings`."""
        chosen = int(settings.get(BASE_BITS, self.capabilities.bases[0]))
        return next(bits for bits in self.capabilities.bases if bits == chosen)

    def virtual_tokens(self, settings: Mapping[str, SettingValue]) -> int:
        """The positions that the method takes before each row under resolved `settings`."""
        return int(settings.get(VIRTUAL_TOKENS, 0))

    def resolve(self, given: Mapping[str, Any]) -> dict[str, SettingValue]:
        """Every setting, defaults filled in. Raises `UserError` for an unknown name or a value out of range."""
        known = {setting.name: setting for setting in self.settings}
        for name in given:
            if name not in known:
                raise UserError(
                    "method_setting",
                    method=self.id,
                    setting=name,
                    where={"field": name},
                    reason=f"is unknown; known are {', '.join(known) or 'none'}",
                )
        return {name: setting.check(self.id, given.get(name, setting.default)) for name, setting in known.items()}

    def rate_factor(self, settings: Mapping[str, SettingValue], weight: str) -> float:
        """The learning rate of a trained weight as a multiple of the run's; `settings` are resolved."""
        if not self.rates:
            return 1.0
        module, name = self.rates.split(":")
        return float(getattr(import_module(module), name)(settings, weight))

    def plan_adapter(
        self, settings: Mapping[str, SettingValue], frame: Frame, finished: Sequence[Mapping[str, Any]] = ()
    ) -> Adapter | None:
        """What is put upon a base under resolved `settings`, with the head of the task that `frame` has; None where the base itself trains.

        `finished` are the configs of the adapters that the method builds on. Raises `UserError` where settings and base do not go together.
        """
        if not self.capabilities.adapter:
            return None
        module, name = self.adapter.split(":")
        given = (settings, frame, finished) if self.capabilities.adapters else (settings, frame)
        found: Adapter = getattr(import_module(module), name)(*given)
        return replace(found, head=frame.head)

    def check_task(self, task: Task) -> None:
        """Raises `UserError("task_cannot")` where this method does not train for such a task."""
        if task not in self.capabilities.tasks:
            known = ", ".join(self.capabilities.tasks)
            raise UserError("task_cannot", method=self.name, task=task, known=known, where={"field": "method.id"})

    def check_checkpointing(self, *, wanted: bool) -> None:
        """Raises `UserError("checkpointing_cannot")` where gradient checkpointing is `wanted` and this method does not bear it."""
        if wanted and not self.capabilities.checkpointing:
            raise UserError("checkpointing_cannot", method=self.name, where={"field": "training.gradient_checkpointing"})

    def check_adapters(self, given: Sequence[str]) -> None:
        """Raises `UserError`: `adapters_needed` where there are fewer finished adapters than it builds on, `adapters_unwanted` where it
        builds on none.
        """
        least, where = self.capabilities.adapters, {"field": "method.adapters"}
        if given and not least:
            raise UserError("adapters_unwanted", method=self.name, where=where)
        if len(given) < least:
            kinds = " or ".join(self.capabilities.adapters_of)
            raise UserError("adapters_needed", method=self.name, least=least, given=len(given), kinds=kinds, where=where)

    def check_device(self, device: Device) -> None:
        """Raises `UserError("device_cannot")` where this method does not run on such a device."""
        if device["kind"] not in self.capabilities.devices:
            raise UserError(
                "device_cannot",
                what=self.name,
                reason=f"it needs {' or '.join(self.capabilities.devices)}, this is {device['name']}",
                instead="Choose another method.",
                where={"field": "method.id"},
            )
