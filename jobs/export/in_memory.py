"""A merge by peft's own `merge_and_unload`, with the whole base in host memory: for adapters that are not merged tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.adapter_files import WEIGHTS
from jobs.export.dequantised import Dequantised
from jobs.methods.registry import know_tuners
from jobs.models.heads import CAUSAL, Head

if TYPE_CHECKING:
    from jobs.spec import StoredDtype

# Initialisations that took a part out of the base which peft does not take out again, or takes out another, when it loads the adapter.
LOST_INITIALISATIONS = ("pissa_niter_", "lora_ga", "corda", "loftq")


def why_not(config: Mapping[str, Any]) -> str | None:
    """Why peft's merge of such an adapter would give another model than was trained, if it would."""
    if config.get("peft_type") == "XLORA":
        return "X-LoRA mixes its adapters anew for each input, which no single weight can do"
    if config.get("layer_replication"):
        return "it repeats layers of the base, so the merged model would be another one than the base's config describes"
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(LOST_INITIALISATIONS):
        return (
            f"its initialisation {start} changed the base, and that change is not in the adapter's files; "
            "save it again as plain LoRA (path_initial_model_for_weight_conversion)"
        )
    return None


def merge_in_memory(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    shard_bytes: int,
    dtype: StoredDtype,
    dequantised: Dequantised | None,
    head: Head = CAUSAL,
) -> None:
    """Merges into the existing folder `out`, the base loaded with the task's `head` in the dtype that is stored.

    Raises `ValueError` where the adapter does not fit the base or cannot be merged, or a merged weight is not finite.
    """
    import torch
    import transformers

    model = getattr(transformers, head.auto).from_pretrained(
        base,
        dtype="auto" if dtype == "base" else dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        **head.config,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            start = dequantised(name) if dequantised else None
            if start is not None:
                parameter.copy_(start)
    merged = _merge(model, adapter)
    for name, parameter in merged.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"the merged weight {name} is not finite")
    merged.save_pretrained(out, max_shard_size=shard_bytes)


def _merge(model: Any, adapter: Path) -> Any:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    from jobs.methods.tuning import merged

    know_tuners()
    try:
        tuned = PeftModel.from_pretrained(model, adapter)
    except (RuntimeError, KeyError) as failure:
        raise ValueError(f"the adapter does not fit the base: {str(failure).strip()[:300]}") from failure
    known = get_peft_model_state_dict(tuned, save_embedding_layers=False).keys() | tuned.state_dict().keys()
    if unused := load_file(adapter / WEIGHTS).keys() - known:
        raise ValueError(f"{len(unused)} adapter tensors match no tensor of the base, {min(unused)} among them")
    try:
        # Not peft's safe_merge: on 16-bit weights it rounds the update before it is added, and the sum again.
        return merged(tuned)
    except (AttributeError, NotImplementedError) as failure:
        raise ValueError(f"{tuned.active_peft_config.peft_type.value} adapters do not merge into a base") from failure
