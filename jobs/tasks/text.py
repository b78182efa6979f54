"""What classification and regression share: rows of one text or a pair, and a head that reads each as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from jobs.tasks.forward import Framing, Laid, TextRow, text_inputs
from jobs.tasks.judging import JudgingWork
from jobs.tasks.reading import Made, Record, covering, cut_count, framed


@dataclass(frozen=True)
class TargetRow(TextRow):
    """A text with what is to be said of it: the number of a class, or a number."""

    target: float

    @property
    def content(self) -> bytes:
        """Tokens, types and target."""
        return self.text.ids.tobytes() + self.text.types.tobytes() + np.float64(self.target).tobytes()


@dataclass(frozen=True)
class TextKind:
    """The head gives each text its classes' logits, or (`number`) a number (a `jobs.tasks.forward.Kind`)."""

    framing: Framing
    number: bool = False

    def lay(self, rows: Sequence[TargetRow]) -> Laid:
        """Texts side by side."""
        targets = torch.tensor([row.target for row in rows], dtype=torch.float32 if self.number else torch.int64)
        return Laid(text_inputs([row.text for row in rows], self.framing), targets, sum(len(row.ids) for row in rows))

    def logits(self, outputs: Any, laid: Laid) -> list[Tensor]:
        """[1, classes] for each row."""
        del laid
        return list(outputs.logits.float().unsqueeze(1))

    def loss(self, outputs: Any, laid: Laid) -> Tensor:
        """Cross-entropy, or the squared difference."""
        logits = outputs.logits.float()
        if self.number:
            return functional.mse_loss(logits[:, 0], laid.targets, reduction="sum")
        return functional.cross_entropy(logits, laid.targets, reduction="sum")

    def hits(self, outputs: Any, laid: Laid) -> int:
        """How many classes were found."""
        return 0 if self.number else int((outputs.logits.argmax(-1) == laid.targets).sum())


class TextWork(JudgingWork):
    """A task of texts as a whole; a subclass says what of a record is learnt."""

    number = False

    def target(self, record: Record) -> float:
        """What is to be said of a record's text."""
        raise NotImplementedError

    def encode(self, records: Sequence[Record], tokenizer: Any, limit: int) -> Made:
        """One row a record."""
        whole, cut = framed(tokenizer, records), framed(tokenizer, records, limit)
        rows = [TargetRow(text, self.target(record)) for text, record in zip(cut, records, strict=True)]
        return Made(rows, list(range(len(rows))), cut_count(whole, cut))

    def natural_length(self, records: Sequence[Record], tokenizer: Any) -> int:
        """Of most texts."""
        return covering([len(text.ids) for text in framed(tokenizer, records)])

    def kind(self) -> TextKind:
        """Texts side by side."""
        return TextKind(self.framing, self.number)

    def shown(self, record: Record) -> str:
        """The text, or the pair."""
        return "\n\n".join(record[name] for name in ("text", "text_b") if name in record)
