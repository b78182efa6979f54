"""A model to be asked: base, perhaps an adapter upon it, and the tokenizer, loaded as a run loads them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.adapter_files import CONFIG, WEIGHTS
from jobs.device import choose_precision, torch_name
from jobs.errors import UserError
from jobs.methods.registry import know_tuners
from jobs.models.device import probe
from jobs.models.heads import CAUSAL, Head, finished_head
from jobs.models.loading import DTYPES, load_model, load_tokenizer


@dataclass(frozen=True)
class Opened:
    """`model` in evaluation mode on `device` (torch's name); `precision` is that of the arithmetic, `head` what it was loaded with."""

    model: Any
    tokenizer: Any
    precision: str
    device: str
    head: Head = CAUSAL

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the arithmetic."""
        return DTYPES[self.precision]

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The arithmetic that a run evaluates in: autocast where it is 16-bit, since an adapter's own weights are float32."""
        with torch.autocast(self.device.split(":")[0], dtype=self.dtype, enabled=self.dtype != torch.float32):
            yield


def open_model(folder: Path, adapter: Path | None, *, bits: int = 16, precision: str = "auto") -> Opened:
    """Loads what `folder` (and `adapter`, as peft saves it) hold, with the head that it was trained with; `bits` 4 quantises the base as
    QLoRA does.

    The tokenizer is the adapter's where it brings one: it was trained behind that chat template. Raises `UserError`.
    """
    found = probe()
    torch.set_num_threads(found["threads"])
    device, chosen = torch_name(found), choose_precision(precision, found)
    if adapter is not None:
        _require_adapter(adapter)
    head = finished_head(folder, adapter)
    own_tokenizer = adapter is not None and (adapter / "tokenizer.json").is_file()
    tokenizer = load_tokenizer(folder, files=adapter if own_tokenizer else None, writes=head.stands_alone)
    model = load_model(folder, precision=chosen, trains_base=False, bits=bits, device=device, head=head)
    if adapter is not None:
        model = with_adapter(model, adapter)
    return Opened(model, tokenizer, chosen, device, head)


def mergeable(model: Any) -> bool:
    """Whether an adapter upon the model can be added into its weights: not into 4-bit ones, and not virtual tokens."""
    quantised = getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_quantized", False)
    return hasattr(model, "peft_config") and not quantised and hasattr(model.base_model, "merge_and_unload")


def _require_adapter(folder: Path) -> None:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError("adapter_unusable", path=folder, reason=f"it has no {name}")


def with_adapter(model: Any, folder: Path) -> Any:
    """`model` with the adapter of `folder` upon it, to be asked. Raises `UserError("adapter_unusable")`."""
    return add_adapter(model, folder, "default")


def add_adapter(model: Any, folder: Path, name: str) -> Any:
    """The same by a name of its own, also upon a model that has adapters already. Raises `UserError("adapter_unusable")`."""
    from peft import PeftModel

    _require_adapter(folder)
    know_tuners()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that will go
            if not isinstance(model, PeftModel):
                return PeftModel.from_pretrained(model, str(folder), adapter_name=name).eval()
            model.load_adapter(str(folder), adapter_name=name, torch_device=str(model.device))
            return model.eval()
    except (OSError, ValueError, KeyError, RuntimeError) as failure:
        reason = " ".join(str(failure).split())[:300] or type(failure).__name__
        raise UserError("adapter_unusable", path=folder, reason=reason) from failure
