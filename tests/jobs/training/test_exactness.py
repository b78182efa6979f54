"""Our loop gives the losses of the plainest one, whatever the architecture, the method and the way of batching."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jobs.data.encoding import Encoded
from jobs.spec import TrainingSpec
from jobs.training.checks import choose_forward
from jobs.training.forward import Forward
from tests.jobs.training.reference import CONFIGS, VOCABULARY, losses, make_model, make_rows, make_trainer, reference_losses, short

STEPS = 10
UNPACKED = {"lfm2, convolutions"}
OWN_LOGITS = {"granite, scaled logits"}


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_losses_equal_the_reference(architecture, method, accumulation, tmp_path):
    spec = short(TrainingSpec(micro_batch=4, gradient_accumulation=accumulation, weight_decay=0.0), STEPS)
    rows = make_rows()
    expected = reference_losses(make_model(architecture, method), rows, spec)
    trainer, events = make_trainer(make_model(architecture, method), rows, tmp_path, spec)
    assert trainer.forward.packs is (architecture not in UNPACKED)
    assert trainer.forward.own_head is (architecture not in OWN_LOGITS)
    trainer.run()
    found = losses(events)
    assert len(found) == STEPS
    assert expected[0] - expected[-1] > 0.01, "the reference learns nothing, so equality says little"
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-5


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("own_head", [True, False])
def test_each_way_gives_the_same_gradients(packs, own_head):
    model = make_model("qwen2")
    rows = make_rows(6)

    def gradients(forward: Forward) -> torch.Tensor:
        model.zero_grad()
        batch = forward.batch(rows)
        with forward.running(batch):
            forward.loss_sum(batch).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    choose_forward(model, rows, dtype=torch.float32, device="cpu")
    plain = gradients(Forward(model, torch.float32, "cpu", packs=False, own_head=False))
    other = gradients(Forward(model, torch.float32, "cpu", packs=packs, own_head=own_head))
    assert float((plain - other).norm() / plain.norm()) < 1e-6


def _outer_rows(forward, rows, outer):
    """Hidden states of the first and the last of three rows, and the gradient of their squares at the embeddings of those two."""
    batch = forward.batch(rows)
    captured = []

    def capture(_module, _inputs, output):
        output.retain_grad()
        captured.append(output)

    handle = forward.model.get_input_embeddings().register_forward_hook(capture)
    with forward.running(batch):
        states = forward.hidden(batch)
        kept = torch.cat([states[: outer[0]], states[sum(outer) :]])
        kept.square().sum().backward()
    handle.remove()
    gradient = captured[0].grad[0]
    start, end = len(rows[0].ids), len(rows[0].ids) + len(rows[1].ids)
    assert float(gradient[start:end].abs().max()) == 0.0, "a row's loss reaches back into another row"
    return kept.detach(), torch.cat([gradient[:start], gradient[end:]])


@pytest.mark.parametrize("architecture", [name for name in CONFIGS if name not in UNPACKED])
def test_a_poisoned_neighbour_moves_nothing(architecture):
    """Rows before and after the changed one keep logits and gradients, to the bit in a dense model."""
    model = make_model(architecture)
    model.eval()
    rows = make_rows(3)
    poisoned = [rows[0], Encoded((rows[1].ids + 7) % VOCABULARY, rows[1].trained), rows[2]]
    forward, _ = choose_forward(model, rows, dtype=torch.float32, device="cpu")
    outer = int(rows[0].trained.sum()), int(rows[1].trained.sum())
    first, second = (_outer_rows(forward, batch_rows, outer) for batch_rows in (rows, poisoned))
    tolerance = 1e-6 if architecture == "mixtral" else 0.0
    assert float((first[0] - second[0]).abs().max()) <= tolerance
    assert float((first[1] - second[1]).abs().max()) <= tolerance * 10


def test_what_is_not_exact_is_said():
    rows = make_rows(4)
    forward, reasons = choose_forward(make_model("lfm2, convolutions"), rows, dtype=torch.float32, device="cpu")
    assert not forward.packs
    assert "see each other" in reasons[0]
    forward, reasons = choose_forward(make_model("granite, scaled logits"), rows, dtype=torch.float32, device="cpu")
    assert forward.packs
    assert not forward.own_head
    assert "changes its logits" in reasons[0]


def test_a_spec_that_wants_padding_gets_it(tmp_path):
    rows = make_rows(8)
    spec = short(TrainingSpec(micro_batch=4, gradient_accumulation=1), 2)
    padded, padded_events = make_trainer(make_model("llama"), rows, tmp_path / "a", TrainingSpec(**{**vars(spec), "batching": "padded"}))
    packed, packed_events = make_trainer(make_model("llama"), rows, tmp_path / "b", spec)
    padded.run()
    packed.run()
    assert (padded.forward.packs, packed.forward.packs) == (False, True)
    assert np.allclose(losses(padded_events), losses(packed_events), atol=1e-6)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    """Its recomputation happens during backward, where the rows' borders must still be known."""
    rows = make_rows(8)
    found = []
    for checkpointing in (False, True):
        spec = short(TrainingSpec(micro_batch=4, gradient_accumulation=1, gradient_checkpointing=checkpointing), 4)
        trainer, events = make_trainer(make_model("llama", "lora", dropout=0.1), rows, tmp_path / str(checkpointing), spec)
        trainer.run()
        found.append(losses(events))
    assert found[0] == found[1]
