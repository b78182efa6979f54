"""Virtual tokens: what prompt methods put before every row, as embeddings (prompt tuning) or as keys and values (prefix tuning)."""

from __future__ import annotations

from typing import Any


def virtual_tokens(model: Any) -> int:
    """How many positions an adapter takes before each row; 0 without such an adapter. Also where it is switched off: a model is then
    compared with itself, and both must be asked the same.
    """
    config: Any = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if getattr(config, "is_prompt_learning", False) else 0
