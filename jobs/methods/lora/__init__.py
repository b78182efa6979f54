"""Low-rank adaptation, and its presets (QLoRA: the same adapter over a 4-bit base)."""
