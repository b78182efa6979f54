"""From a micro-batch to its loss, on an unmodified transformers model with or without a PEFT adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from jobs.data.encoding import Encoded
from jobs.training import attention
from jobs.training.batches import Batch, pack, pad
from jobs.training.cross_entropy import Head, linear_cross_entropy, score
from jobs.training.elementwise import Elementwise
from jobs.training.fused_lora import FusedLora
from jobs.training.kernels import Kernels


@dataclass(frozen=True)
class Forward:
    """How a model is run; each way is exact, and `jobs.training.checks.choose_forward` decides on those that this model allows.

    `packs`: rows end to end without padding, else padded. `grids`: short rows by our own attention, `kernels`: all rows by those of a GPU,
    else by torch's, row by row. `shares_prefix`: what rows begin with in common is computed once. `own_head`: logits only at label
    positions and tile by tile, else the model's own logits, whole. `lora`: the LoRA layers that take one matrix product. `elementwise`: the
    modules that run as regions. `dtype` is that of the arithmetic; float32 weights are cast by autocast where it is narrower.
    """

    model: Any
    dtype: torch.dtype
    device: str
    packs: bool
    own_head: bool
    grids: bool = False
    kernels: Kernels | None = None
    shares_prefix: bool = False
    lora: FusedLora | None = None
    elementwise: Elementwise | None = None

    def refresh(self) -> None:
        """To be called whenever trained weights have changed: before the first step, after each update, after a restore."""
        if self.lora:
            self.lora.refresh()

    def batch(self, rows: Sequence[Encoded]) -> Batch:
        """A micro-batch on the device."""
        batch = pack(rows, share_prefix=self.shares_prefix, grids=self.grids) if self.packs else pad(rows)
        return batch.to(self.device)

    @contextmanager
    def running(self, batch: Batch) -> Iterator[None]:
        """Surrounds forward and backward of a batch: what attention sees, and autocast."""
        with ExitStack() as stack:
            if self.packs:
                rows = attention.Rows(batch.segments, batch.blocks, self.kernels)
                stack.enter_context(attention.packed(base_model(self.model), rows))
            for fast in (self.lora, self.elementwise):
                if fast:
                    stack.enter_context(fast.running())
            stack.enter_context(torch.autocast(self.device.split(":")[0], dtype=self.dtype, enabled=self._mixes()))
            yield

    def _mixes(self) -> bool:
        """Whether some weights are wider than the arithmetic: all of them in full fine-tuning, adapters that are not fused."""
        return self.dtype != torch.float32 and not (self.lora and self.lora.whole)

    def loss_sum(self, batch: Batch) -> Tensor:
        """The summed cross-entropy of the batch's labels, float32 [], with gradient. Call it, and backward, within `running`."""
        if not self.own_head:
            return functional.cross_entropy(self.model_logits(batch), batch.labels, reduction="sum")
        return linear_cross_entropy(self.hidden(batch), head_of(self.model), batch.labels, self.dtype)

    @torch.no_grad()
    def score(self, rows: Sequence[Encoded]) -> tuple[float, int]:
        """(summed cross-entropy, number of labels that are the most likely token) of some rows, without gradients."""
        batch = self.batch(rows)
        with self.running(batch):
            if self.own_head:
                loss, correct = score(self.hidden(batch), head_of(self.model), batch.labels, self.dtype)
            else:
                logits = self.model_logits(batch)
                loss = functional.cross_entropy(logits, batch.labels, reduction="sum")
                correct = (logits.argmax(dim=-1) == batch.labels).sum()
        return float(loss), int(correct)

    def hidden(self, batch: Batch) -> Tensor:
        """[labels, width]: the last hidden state at the places that predict a label."""
        decoder = base_model(self.model).get_decoder()
        states: Tensor = decoder(**_inputs(batch)).last_hidden_state
        return states.reshape(-1, states.shape[-1])[batch.label_rows]

    def model_logits(self, batch: Batch) -> Tensor:
        """float32 [labels, vocabulary]: the model's own logits at the same places; those of virtual tokens come first and are cut off."""
        logits: Tensor = self.model(**_inputs(batch)).logits[:, -batch.input_ids.shape[1] :]
        return logits.reshape(-1, logits.shape[-1])[batch.label_rows].float()

    def of(self, model: Any) -> Forward:
        """The same way of running another model of the same architecture, one without an adapter."""
        return replace(self, model=model, lora=None, elementwise=None)


def base_model(model: Any) -> Any:
    """The transformers model beneath a PEFT adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def head_of(model: Any) -> Head:
    """The output layer, which must be a plain `nn.Linear`."""
    base = base_model(model)
    layer = base.get_output_embeddings()
    return Head(layer.weight, layer.bias, getattr(base.config, "final_logit_softcapping", None))


def _inputs(batch: Batch) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.position_ids is not None:
        inputs["position_ids"] = batch.position_ids
    if batch.attention_mask is not None:
        inputs["attention_mask"] = batch.attention_mask
    return inputs
