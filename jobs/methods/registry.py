"""The literal list of methods. Adding one touches its own folder and one line here."""

from __future__ import annotations

from importlib import import_module

from jobs.errors import UserError
from jobs.methods.entry import Method

METHODS: dict[str, str] = {
    "full": "jobs.methods.full.entry:FULL",
    "lora": "jobs.methods.lora.entry:LORA",
    "qlora": "jobs.methods.lora.entry:QLORA",
}


def get_method(method_id: str) -> Method:
    """The entry of a method. Raises `UserError("method_unknown")`."""
    if method_id not in METHODS:
        raise UserError("method_unknown", method=method_id, known=", ".join(METHODS), where={"field": "method.id"})
    module, name = METHODS[method_id].split(":")
    entry: Method = getattr(import_module(module), name)
    return entry


def all_methods() -> list[Method]:
    """Every entry, in the order of the list."""
    return [get_method(method_id) for method_id in METHODS]


def know_tuners() -> None:
    """Makes PEFT know the methods of ours, so that an adapter of any of them loads. Imports torch."""
    for method in all_methods():
        if method.tuner:
            import_module(method.tuner)
