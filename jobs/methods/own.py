"""What methods that PEFT does not have need to be tuners of PEFT's all the same: a type, a base of configs and one of tuners."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from torch import nn


class OwnType(str):
    """The name of a method of ours where PEFT has a member of its enumeration, which cannot be extended: what it reads of one."""

    @property
    def value(self) -> str:
        """The name itself."""
        return str(self)


@dataclass
class OwnConfig(PeftConfig):
    """What `adapter_config.json` holds of every method of ours. `own_type` is the method's upper-case name, a subclass's own."""

    own_type: ClassVar[str]

    target_modules: Any = field(default=None, metadata={"help": "names of the adapted layers"})
    exclude_modules: Any = field(default=None, metadata={"help": "names of layers left out"})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "modules trained whole"})

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type: Any = OwnType(self.own_type)
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))


class OwnTuner(BaseTuner):
    """Puts layers of the class `tuner_layer_cls` into a model. A method's own class names that and its `prefix`, and makes such layers."""

    target_module_mapping: dict[str, Any] = {}

    def make_layer(self, target: nn.Module, name: str) -> Any:
        """A layer around `target`, which the model has as `name`, without an adapter. Raises `TypeError` where there can be none."""
        raise NotImplementedError

    def connect(self, layer: Any, name: str, config: Any) -> None:
        """Ties a layer to others of the model before it gets the adapter of `config`; most need nothing of the kind."""

    def _create_and_replace(  # noqa: PLR0917 - as PEFT calls it
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer: Any = target
        if not isinstance(target, self.tuner_layer_cls):
            layer = self.make_layer(target, current_key)
            layer._active_adapter = adapter_name
        self.connect(layer, current_key, peft_config)
        layer.update_layer(adapter_name, peft_config)
        if layer is not target:
            if adapter_name not in self.active_adapters:
                layer.requires_grad_(False)  # a further adapter is not trained by itself
            self._replace_module(parent, target_name, layer, target)


def register(config: type[OwnConfig], tuner: type[OwnTuner]) -> None:
    """Makes PEFT know a method of ours by the `own_type` of its config.

    Raises `ValueError` where the tuner's prefix is another method's, since saved weights are told apart by it.
    """
    name = OwnType(config.own_type)
    mappings: tuple[dict[Any, Any], ...] = (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING)
    if any(prefix == tuner.prefix and other != name for other, prefix in mappings[1].items()):
        raise ValueError(f"the prefix {tuner.prefix} is taken")
    for mapping, value in zip(mappings, (config, tuner.prefix, tuner), strict=True):
        mapping[name] = value
