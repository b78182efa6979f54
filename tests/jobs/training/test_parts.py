"""Order, schedule, attention's refusals, and the tiled cross-entropy."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from jobs.training import cross_entropy
from jobs.training.attention import Unpackable, packed_attention
from jobs.training.cross_entropy import Head, linear_cross_entropy, score
from jobs.training.order import Order, dropout_seed, permutation
from jobs.training.schedule import rate_factor, warmup_steps


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own():
    order = Order(rows=22, micro_batch=4, gradient_accumulation=2, seed=5)
    assert order.steps_per_epoch == 3
    steps = list(order.micro_batches(0, 6))
    epochs = [[row for step in steps[start : start + 3] for micro in step for row in micro] for start in (0, 3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(22))] * 2
    assert epochs[0] != epochs[1]
    assert [[len(micro) for micro in step] for step in steps[:3]] == [[4, 4], [4, 4], [4, 2]]


def test_the_order_from_any_step_on_is_that_of_the_whole():
    order = Order(rows=22, micro_batch=4, gradient_accumulation=2, seed=5)
    whole = list(order.micro_batches(0, 9))
    for start in range(9):
        assert list(order.micro_batches(start, 9)) == whole[start:]


def test_random_choices_hang_on_seed_and_place_alone():
    assert permutation(1, 0, 50).tolist() == permutation(1, 0, 50).tolist()
    assert len({tuple(permutation(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}) == 9
    seeds = [dropout_seed(seed, step, micro) for seed in range(3) for step in range(3) for micro in range(3)]
    assert len(set(seeds)) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(("epochs", "limit", "steps"), [(3.0, None, 9), (0.1, None, 1), (1.5, None, 5), (3.0, 4, 4)])
def test_total_steps(epochs, limit, steps):
    assert Order(rows=22, micro_batch=4, gradient_accumulation=2, seed=0).total_steps(epochs, limit) == steps


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_rates_rise_then_fall(kind):
    rates = [rate_factor(step, total_steps=20, warmup=4, kind=kind) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[12] == pytest.approx({"constant": 1.0, "linear": 0.5, "cosine": 0.5}[kind])
    assert rates[-1] > 0


def test_restarts_fall_from_the_peak_again_and_again():
    def rates(kind, cycles, steps):
        return [rate_factor(step, total_steps=steps, warmup=4, kind=kind, cycles=cycles) for step in range(steps)]

    restarted, once = rates("cosine_with_restarts", 3, 4 + 3 * 8), rates("cosine", 3, 4 + 8)
    assert restarted == once[:4] + once[4:] * 3
    assert restarted[4] == restarted[12] == restarted[20] == 1.0
    assert rates("cosine_with_restarts", 1, 25) == rates("cosine", 1, 25)


def test_warm_up_leaves_a_step():
    assert [warmup_steps(1, 0.5), warmup_steps(10, 0.03), warmup_steps(10, 0.0), warmup_steps(2, 0.9)] == [0, 1, 0, 1]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_bias", [True, False])
def test_tiled_cross_entropy_equals_torch(softcap, with_bias, monkeypatch):
    monkeypatch.setattr(cross_entropy, "_TILE_NUMBERS", 40 * 16)
    monkeypatch.setattr(cross_entropy, "ADDED_NUMBERS", 7 * 8)
    torch.manual_seed(0)
    tensors = [torch.randn(45, 8), torch.randn(40, 8), torch.randn(40) if with_bias else None]
    tensors = [None if tensor is None else tensor.requires_grad_() for tensor in tensors]
    labels = torch.randint(40, (45,))

    def plain(hidden, weight, bias):
        logits = functional.linear(hidden, weight, bias)
        return functional.cross_entropy(softcap * torch.tanh(logits / softcap) if softcap else logits, labels, reduction="sum")

    hidden, weight, bias = tensors
    used = [tensor for tensor in tensors if tensor is not None]
    wanted = torch.autograd.grad(plain(hidden, weight, bias) * 0.25, used)
    loss = linear_cross_entropy(hidden, Head(weight, bias, softcap), labels, torch.float32)
    found = torch.autograd.grad(loss * 0.25, used)
    assert cross_entropy.tile_rows(40) == 16
    assert float(loss) == pytest.approx(float(plain(hidden, weight, bias)), rel=1e-6)
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).abs().max()) < 2e-6
    total, correct = score(hidden.detach(), Head(weight, bias, softcap), labels, torch.float32)
    assert float(total) == pytest.approx(float(loss), rel=1e-6)
    assert int(correct) == int((functional.linear(hidden, weight, bias).argmax(-1) == labels).sum())


@pytest.mark.parametrize("asked", [{"s_aux": torch.zeros(2)}, {"is_causal": False}, {"position_bias": torch.zeros(1)}])
def test_attention_refuses_what_it_does_not_do(asked):
    query = torch.zeros(1, 2, 3, 4)
    with pytest.raises(Unpackable):
        packed_attention(torch.nn.Module(), query, query, query, None, **asked)
