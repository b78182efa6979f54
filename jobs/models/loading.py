"""The base model and its tokenizer, from a local folder of safetensors and from nowhere else."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from jobs.errors import UserError
from jobs.models.heads import CAUSAL, Head, mark_fresh
from jobs.models.mapped import Pages, let_go, weight_files
from jobs.models.quantisation import keep_gradients_after_evaluation, quantisation

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(folder: Path, *, precision: str, trains_base: bool, bits: int = 16, device: str = "cpu", head: Head = CAUSAL) -> Any:
    """The base model with the `head` of a task, in evaluation mode, on `device`; `jobs.models.heads.fresh_heads` tells what of it is new.

    Weights that are trained are float32 whatever the precision (16-bit arithmetic comes from autocast, so that small updates are not
    rounded away); frozen ones are held in the precision itself, or quantised where `bits` is 8 or 4. Raises `UserError("model_unusable")`.
    """
    import transformers

    attention = _attention(folder, head)
    dtype = torch.float32 if trains_base else DTYPES[precision]
    options: dict[str, Any] = dict(head.config)
    if bits < 16:
        options["quantization_config"] = quantisation(bits, DTYPES[precision], kept=head.unquantised)
    if bits < 16 or device != "cpu":
        options["device_map"] = {"": device}
    torch.manual_seed(head.seed)
    try:
        with _reading(in_parts=bits < 16 and device == "cpu") as pages:
            model, found = getattr(transformers, head.auto).from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attention,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
            if pages:
                let_go(model, weight_files(model.parameters()), pages)
                pages.leave()
    except (OSError, ValueError, KeyError) as failure:
        raise UserError("model_unusable", reason=_first_line(failure)) from failure
    _correct_quantised(model, bits, device, DTYPES[precision])
    if not head.stands_alone:
        mark_fresh(model, found["missing_keys"])
    model.eval()
    return model


def _reading(*, in_parts: bool) -> AbstractContextManager[Pages | None]:
    if not in_parts:
        return nullcontext()
    from jobs.models.reading import reading_in_parts

    return reading_in_parts()


def _correct_quantised(model: Any, bits: int, device: str, dtype: torch.dtype) -> None:
    """Has quantised layers compute in evaluation as they do in training."""
    if bits == 4:
        keep_gradients_after_evaluation(model)
    if bits == 8 and device == "cpu":
        from jobs.models.int8 import compute_densely

        compute_densely(model, dtype)


def load_tokenizer(folder: Path, *, files: Path | None = None, writes: bool = True) -> Any:
    """The tokenizer of a model's folder (or of the folder `files`, where an adapter brings its own), which must be able to say where in
    a text each token stands and, where the model `writes`, have a token to end with. Raises `UserError`.
    """
    _require_config(folder)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(files or folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as failure:
        raise UserError("model_unusable", reason=f"its tokenizer does not load: {_first_line(failure)}") from failure
    if not tokenizer.is_fast:
        raise UserError("model_unusable", reason="its tokenizer has no tokenizer.json, so characters cannot be matched to tokens")
    if writes and tokenizer.eos_token is None:
        raise UserError("model_unusable", reason="its tokenizer has no end-of-sequence token")
    return tokenizer


def _require_config(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError("model_missing", path=folder)


def _attention(folder: Path, head: Head) -> str:
    """Torch's SDPA where the architecture has it and nothing is lost: SDPA silently leaves out soft-capped scores (Gemma 2)."""
    _require_config(folder)
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        architecture = getattr(transformers, head.auto)._model_mapping[type(config)]
    except (OSError, ValueError, KeyError) as failure:
        raise UserError("model_unusable", reason=_first_line(failure)) from failure
    return "sdpa" if architecture._supports_sdpa and not getattr(config, "attn_logit_softcapping", None) else "eager"


def _first_line(failure: BaseException) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0][:300]
