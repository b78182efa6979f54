"""The literal list of methods. Adding one touches its own folder and one line here."""

from __future__ import annotations

from importlib import import_module

from jobs.errors import UserError
from jobs.methods.entry import Method

METHODS: dict[str, str] = {
    "full": "jobs.methods.full.entry:FULL",
    "lora": "jobs.methods.lora.entry:LORA",
    "qlora": "jobs.methods.lora.entry:QLORA",
    "lora_8bit": "jobs.methods.lora.entry:LORA_8BIT",
    "rslora": "jobs.methods.lora.entry:RSLORA",
    "dora": "jobs.methods.lora.entry:DORA",
    "pissa": "jobs.methods.lora.entry:PISSA",
    "olora": "jobs.methods.lora.entry:OLORA",
    "lora_ga": "jobs.methods.lora.entry:LORA_GA",
    "eva": "jobs.methods.lora.entry:EVA",
    "loftq": "jobs.methods.lora.entry:LOFTQ",
    "lora_plus": "jobs.methods.lora.entry:LORA_PLUS",
    "adalora": "jobs.methods.lora.adalora_entry:ADALORA",
    "mora": "jobs.methods.mora.entry:MORA",
    "loha": "jobs.methods.loha:LOHA",
    "lokr": "jobs.methods.lokr:LOKR",
    "vera": "jobs.methods.vera:VERA",
    "fourierft": "jobs.methods.fourierft:FOURIERFT",
    "oft": "jobs.methods.oft:OFT",
    "boft": "jobs.methods.boft.entry:BOFT",
    "hra": "jobs.methods.hra:HRA",
    "miss": "jobs.methods.miss:MISS",
    "randlora": "jobs.methods.randlora:RANDLORA",
    "c3a": "jobs.methods.c3a:C3A",
    "shira": "jobs.methods.shira:SHIRA",
    "block_sparse": "jobs.methods.block_sparse.entry:BLOCK_SPARSE",
    "bottleneck_adapter": "jobs.methods.bottleneck.entry:BOTTLENECK_ADAPTER",
    "parallel_adapter": "jobs.methods.bottleneck.entry:PARALLEL_ADAPTER",
    "compacter": "jobs.methods.bottleneck.entry:COMPACTER",
    "adapter_fusion": "jobs.methods.adapter_fusion.entry:ADAPTER_FUSION",
    "ia3": "jobs.methods.ia3:IA3",
    "bitfit": "jobs.methods.bitfit.entry:BITFIT",
    "ln_tuning": "jobs.methods.ln_tuning:LN_TUNING",
    "prompt_tuning": "jobs.methods.prompts.entry:PROMPT_TUNING",
    "prefix_tuning": "jobs.methods.prompts.entry:PREFIX_TUNING",
    "p_tuning": "jobs.methods.prompts.entry:P_TUNING",
    "cpt": "jobs.methods.prompts.entry:CPT",
}

# LoRA by the bits of its base.
LORA_OF_BITS = {16: "lora", 8: "lora_8bit", 4: "qlora"}


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
