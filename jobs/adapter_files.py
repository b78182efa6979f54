"""How the two files of an adapter are called, as PEFT saves them."""

from __future__ import annotations

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
