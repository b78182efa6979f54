"""A row never sees another: a neighbour's tokens change, and everything else stays, to the bit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from jobs.data.encoding import Encoded
from jobs.spec import EngineSpec
from jobs.training.batches import Batch
from jobs.training.checks import choose_forward
from jobs.training.forward import Forward, head_of
from tests.jobs.training.reference import CONFIGS, VOCABULARY, make_model, stir, templated_rows

POISONED = 1
PACKED = [name for name in CONFIGS if name != "lfm2, convolutions"]


def _rows() -> list[Encoded]:
    """Four rows of one template, no two of a length, so that their places do not hang on their tokens."""
    chosen = {len(row.ids): row for row in templated_rows(22)[::2]}
    return list(chosen.values())[:4]


def _poison(row: Encoded) -> Encoded:
    """All tokens from the first that is trained on are others."""
    return Encoded(np.where(row.trained, (row.ids + 7) % VOCABULARY, row.ids), row.trained)


def _own(batch: Batch, row: Encoded) -> slice:
    """Where the own tokens of a row stand."""
    segment = next(segment for segment in batch.segments if segment.prefix + segment.length == len(row.ids))
    return slice(segment.start, segment.stop)


@dataclass
class Seen:
    """What the rows but the poisoned one make of a batch, and what their loss leaves behind in it."""

    logits: torch.Tensor
    embeddings: torch.Tensor
    weights: dict[str, torch.Tensor]


def _see(forward: Forward, rows: list[Encoded]) -> Seen:
    model, batch = forward.model, forward.batch(rows)
    counts = [int(row.trained.sum()) for row in rows]
    kept = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(counts)) != POISONED
    batch = replace(batch, label_rows=batch.label_rows[kept], labels=batch.labels[kept])
    captured = []

    def capture(_module, _inputs, output):
        output.requires_grad_() if output.is_leaf else output.retain_grad()
        captured.append(output)

    handle = model.get_input_embeddings().register_forward_hook(capture)
    model.zero_grad()
    with torch.no_grad(), forward.running(batch):
        logits = head_of(model).logits(forward.hidden(batch), torch.float32)
    captured.clear()
    with forward.running(batch):
        forward.loss_sum(batch).backward()
    handle.remove()
    gradient, poisoned = captured[0].grad[0], _own(batch, rows[POISONED])
    assert float(gradient[poisoned].abs().max()) == 0.0, "a row's loss reaches back into another row"
    rest = torch.cat((gradient[: poisoned.start], gradient[poisoned.stop :]))
    assert int((rest == 0).all(dim=1).sum()) == len(rows) - 1, "the last token of a row, and no other, predicts nothing"
    weights = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return Seen(logits, rest, weights)


@pytest.mark.parametrize("architecture", PACKED)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_poisoned_neighbour_moves_nothing(architecture, method):
    _compare(architecture, method, EngineSpec())


@pytest.mark.parametrize("switch", ["segment_attention", "shared_prefix", "compile", "one_gemm_lora"])
def test_nor_does_it_without_one_of_the_fast_ways(switch):
    _compare("llama", "lora", replace(EngineSpec(), **{switch: False}))


def _compare(architecture: str, method: str, engine: EngineSpec) -> None:
    """Experts get other tokens, and so sums of another order; all else is equal to the bit."""
    model, rows = stir(make_model(architecture, method)), _rows()
    forward, _ = choose_forward(model, rows, dtype=torch.float32, device="cpu", engine=engine)
    forward.refresh()
    batch = forward.batch(rows)
    assert (forward.packs, forward.shares_prefix, bool(batch.blocks)) == (True, engine.shared_prefix, engine.segment_attention)
    assert (batch.input_ids.numel() < batch.tokens) == engine.shared_prefix
    poisoned = [*rows[:POISONED], _poison(rows[POISONED]), *rows[POISONED + 1 :]]
    first, second = _see(forward, rows), _see(forward, poisoned)
    tolerance = 1e-5 if architecture == "mixtral" else 0.0
    assert _moved(first.logits, second.logits) <= tolerance
    assert _moved(first.embeddings, second.embeddings) <= tolerance
    assert first.weights.keys() == second.weights.keys()
    moved = {name: _moved(wanted, second.weights[name]) for name, wanted in first.weights.items()}
    assert max(moved.values()) <= tolerance, moved


def _moved(first: torch.Tensor, second: torch.Tensor) -> float:
    assert float(first.norm()) > 0.0
    return float((first - second).abs().max())
