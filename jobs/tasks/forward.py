"""From a micro-batch to its loss, for every task but writing: plain padded batches through the model as transformers and PEFT have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.data.tokens import Row

# A batch of an evaluation: few enough tokens that memory stays below that of a training step.
_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Laid:
    """A micro-batch: `inputs` are the model's arguments, `targets` what its outputs are compared with; `tokens` is the sum of the rows'
    lengths, whatever is computed.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    tokens: int

    def to(self, device: str) -> Laid:
        """The same batch on a device."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, targets=self.targets.to(device, non_blocking=True))


class Kind(Protocol):
    """A task's own part of a forward: how rows are laid out, and what is made of the model's outputs."""

    def lay(self, rows: Sequence[Any]) -> Laid:
        """A micro-batch in host memory."""

    def logits(self, outputs: Any, laid: Laid) -> list[Tensor]:
        """For each row float32 [places, classes]: what the model decides by, padding left out."""

    def loss(self, outputs: Any, laid: Laid) -> Tensor:
        """The summed loss of all labels, float32 []."""

    def hits(self, outputs: Any, laid: Laid) -> int:
        """How many labels the model finds the likeliest; 0 where that means nothing."""


@dataclass(frozen=True)
class TaskForward:
    """How a model with a task's head is run (a `jobs.training.running.Runner`); float32 weights are cast by autocast where `dtype` is
    narrower.
    """

    model: Any
    dtype: torch.dtype
    device: str
    kind: Kind
    packs: bool = False

    def refresh(self) -> None:
        """Nothing is kept beside the weights."""

    def batch(self, rows: Sequence[Row]) -> Laid:
        """A micro-batch on the device."""
        return self.kind.lay(rows).to(self.device)

    @contextmanager
    def running(self, batch: Laid) -> Iterator[None]:
        """Surrounds forward and backward of a batch: autocast."""
        del batch
        with torch.autocast(self.device.split(":")[0], dtype=self.dtype, enabled=self.dtype != torch.float32):
            yield

    def loss_sum(self, batch: Laid) -> Tensor:
        """The summed loss of the batch's labels, float32 [], with gradient. Call it, and backward, within `running`."""
        return self.kind.loss(self.model(**batch.inputs), batch)

    @torch.no_grad()
    def score(self, rows: Sequence[Row]) -> tuple[float, int]:
        """(summed loss, number of labels that were found) of some rows, without gradients."""
        batch = self.batch(rows)
        with self.running(batch):
            outputs = self.model(**batch.inputs)
            return float(self.kind.loss(outputs, batch)), self.kind.hits(outputs, batch)

    @torch.no_grad()
    def logits(self, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None) -> Measured:
        """Loss and logits of all rows in evaluation mode, in their order; the model's mode is put back afterwards."""
        was_training = self.model.training
        self.model.eval()
        found: dict[int, Tensor] = {}
        loss, hits = 0.0, 0
        try:
            for places in batches_of(rows):
                batch = self.batch([rows[place] for place in places])
                with self.running(batch):
                    outputs = self.model(**batch.inputs)
                    loss += float(self.kind.loss(outputs, batch))
                    hits += self.kind.hits(outputs, batch)
                    found |= dict(zip(places, (logits.cpu() for logits in self.kind.logits(outputs, batch)), strict=True))
                if progress:
                    progress(len(found), len(rows))
        finally:
            self.model.train(was_training)
        return Measured(loss, sum(row.labels for row in rows), hits, [found[place] for place in range(len(rows))])

    def of(self, model: Any) -> TaskForward:
        """The same way of running another model of the same architecture, one without an adapter."""
        return replace(self, model=model)


@dataclass(frozen=True)
class Measured:
    """What a model makes of rows: the summed loss over `labels` labels, of which `hits` were found, and each row's logits."""

    loss_sum: float
    labels: int
    hits: int
    logits: list[Tensor]

    @property
    def loss(self) -> float | None:
        """The mean loss of a label; None without any."""
        return self.loss_sum / self.labels if self.labels else None


def batches_of(rows: Sequence[Row]) -> Iterator[list[int]]:
    """The rows' places in batches: rows of like length together, longest first."""
    batch: list[int] = []
    for place in sorted(range(len(rows)), key=lambda place: -len(rows[place].ids)):
        if batch and (len(batch) + 1) * len(rows[batch[0]].ids) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def side_by_side(parts: Sequence[NDArray[Any]], fill: int, *, left: bool = False) -> Tensor:
    """int64 [rows, longest]: arrays padded with `fill`, on the right or on the left."""
    longest = max(len(part) for part in parts)
    laid = np.full((len(parts), longest), fill, dtype=np.int64)
    for place, part in enumerate(parts):
        laid[place, longest - len(part) if left else 0 :][: len(part)] = part
    return torch.from_numpy(laid)


def text_inputs(texts: Sequence[Text], framing: Framing) -> dict[str, Tensor]:
    """The model's arguments for some texts: ids and mask, and what else the framing asks for."""
    left = framing.causal
    inputs = {"input_ids": side_by_side([text.ids for text in texts], framing.pad_id, left=left)}
    inputs["attention_mask"] = side_by_side([np.ones(len(text.ids)) for text in texts], 0, left=left)
    if framing.types:
        inputs["token_type_ids"] = side_by_side([text.types for text in texts], 0)
    if left:
        # From the mask, since models count positions from the first column, padding or not.
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    return inputs


@dataclass(frozen=True)
class Text:
    """A text, or a pair, as tokens: `ids` and `types` (which of the pair) int32 [length]."""

    ids: NDArray[np.int32]
    types: NDArray[np.int32]


@dataclass(frozen=True)
class TextRow:
    """A row of which the model reads one text and learns one thing, which a subclass adds."""

    text: Text

    @property
    def ids(self) -> NDArray[np.int32]:
        """int32 [length]: its tokens."""
        return self.text.ids

    @property
    def labels(self) -> int:
        """One."""
        return 1


@dataclass(frozen=True)
class Framing:
    """How texts are laid out for a model. A `causal` one is padded on the left: its head reads the last column, and where that is looked
    up by the padding token (as transformers does), a text that ends in the same token would lose it. `types`: it reads which text of a pair
    a token is of.
    """

    pad_id: int
    causal: bool = False
    types: bool = False

    @classmethod
    def of(cls, tokenizer: Any, *, causal: bool) -> Framing:
        """That of a tokenizer; one without a padding token pads with the end of a sequence."""
        pad = tokenizer.pad_token_id
        types = "token_type_ids" in tokenizer.model_input_names and not causal
        return cls(int(tokenizer.eos_token_id if pad is None else pad), causal, types)
