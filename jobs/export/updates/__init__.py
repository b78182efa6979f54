"""The kinds of adapters that are merged tensor by tensor: one small file each, and this table. All without torch."""

from __future__ import annotations

from jobs.export.updates.change import CannotStreamError, Change, Kind
from jobs.export.updates.ia3 import IA3
from jobs.export.updates.lora import LORA
from jobs.export.updates.lycoris import LOHA, LOKR
from jobs.export.updates.tokens import TRAINABLE_TOKENS
from jobs.export.updates.vera import VERA

# Layer norms are trained as copies that take the place of the base's: nothing but whole tensors, which every kind may have.
LN_TUNING = Kind(lambda adapter, tensor: None, frozenset())

# By peft's own name of the type.
KINDS: dict[str, Kind] = {
    "LORA": LORA,
    "IA3": IA3,
    "LOHA": LOHA,
    "LOKR": LOKR,
    "VERA": VERA,
    "LN_TUNING": LN_TUNING,
    "TRAINABLE_TOKENS": TRAINABLE_TOKENS,
}

__all__ = ["KINDS", "CannotStreamError", "Change", "Kind"]
