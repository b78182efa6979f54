"""The elementwise pieces and the attention made of them, against the same formulas in float64 under autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from jobs.training import regions, segment_attention
from jobs.training.layout import GRID_WASTE, Segment, blocks_of
from jobs.training.regions import ACTIVATIONS

TOLERANCE = 1e-5
SCALE = 0.3


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _wide(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double().requires_grad_() for tensor in tensors]


def _close(found: Tensor, wanted: Tensor) -> bool:
    return bool((found.double() - wanted).abs().max() <= TOLERANCE * wanted.abs().max().clamp_min(1.0))


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm(offset):
    x, weight, upstream = _random(7, 12), _random(12, seed=1), _random(7, 12, seed=2)
    settings = {"epsilon": 1e-3, "offset": offset}
    wide, wide_weight = _wide(x, weight)
    answer = functional.rms_norm(wide, [12], wide_weight + offset, 1e-3)
    d_x, d_weight = torch.autograd.grad(answer, (wide, wide_weight), upstream.double())
    assert _close(regions.rms_norm(x, weight, **settings), answer)
    assert _close(regions.rms_norm_back(upstream, x, weight, **settings), d_x)
    assert _close(regions.rms_norm_weight_back(upstream, x, epsilon=1e-3), d_weight)


def test_rotate():
    query, key = _random(5, 4, 8), _random(5, 2, 8, seed=1)
    angles = torch.outer(torch.arange(5.0), 10_000 ** -(torch.arange(4) / 4))
    cosine, sine = (torch.cat((part, part), dim=1) for part in (angles.cos(), angles.sin()))
    wide = _wide(query, key)
    turns = torch.polar(torch.ones_like(angles).double(), angles.double())[:, None]
    answers = []
    for x in wide:
        turned = torch.complex(x[..., :4], x[..., 4:]) * turns
        answers.append(torch.cat((turned.real, turned.imag), dim=-1))
    upstream = _random(5, 4, 8, seed=2), _random(5, 2, 8, seed=3)
    wanted = torch.autograd.grad(answers, wide, [gradient.double() for gradient in upstream])
    for found, answer in zip(regions.rotate(query, key, cosine, sine), answers, strict=True):
        assert _close(found, answer)
    for found, gradient in zip(regions.rotate(*upstream, cosine, -sine), wanted, strict=True):
        assert _close(found, gradient)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gate(activation):
    function = {
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    }[activation]
    inner, up, upstream = _random(6, 9) * 3, _random(6, 9, seed=1), _random(6, 9, seed=2)
    wide = _wide(inner, up)
    answer = function(wide[0]) * wide[1]
    wanted = torch.autograd.grad(answer, wide, upstream.double())
    assert _close(regions.gate(inner, up, activation=activation), answer)
    assert _close(regions.gate_back(upstream, inner, up, activation=activation), torch.cat(wanted, dim=1))


def test_cross_entropy_tile():
    scores, labels = _random(6, 11) * 20, torch.tensor([0, 10, 3, 3, 7, 1])
    (wide,) = _wide(scores)
    loss = functional.cross_entropy(wide, labels, reduction="sum")
    (wanted,) = torch.autograd.grad(loss, wide)
    found, gradient = regions.cross_entropy_tile(scores, labels)
    assert _close(found, loss)
    assert _close(gradient, wanted)


# Tokens shared, and the rows' own: some of like length, which form a block, and some that stand alone.
PREFIXED = (6, (1, 3, 3, 4, 11, 12))
ALONE = (0, (1, 5, 5, 9))


def _segments() -> list[Segment]:
    segments: list[Segment] = []
    place = 0
    for prefix, lengths in (PREFIXED, ALONE):
        shared = (place, place + prefix) if prefix else (0, 0)
        if prefix:
            segments.append(Segment(place, place + prefix))
            place += prefix
        for length in lengths:
            segments.append(Segment(place, place + length, *shared))
            place += length
    return segments


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, segments: list[Segment], window: int | None) -> Tensor:
    """torch's SDPA, row by row, over a mask written out place by place."""
    groups = query.shape[1] // key.shape[1]
    answers = []
    for segment in segments:
        places = [*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, segment.stop)]
        k, v = (tensor[places].repeat_interleave(groups, dim=1).transpose(0, 1) for tensor in (key, value))
        own = range(segment.prefix, len(places))
        mask = torch.tensor([[j <= i and (window is None or i - j < window) for j in range(len(places))] for i in own])
        q = query[segment.start : segment.stop].transpose(0, 1)
        answers.append(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=SCALE).transpose(0, 1))
    return torch.cat(answers)


@pytest.mark.parametrize("window", [None, 1, 4, 9])
@pytest.mark.parametrize("places_at_once", [segment_attention.PLACES_AT_ONCE, 4, 1])
@pytest.mark.parametrize("kept_tokens", [segment_attention.KEPT_TOKENS, 8, 0])
def test_segment_attention_equals_sdpa(window, places_at_once, kept_tokens, monkeypatch):
    """With chunks of a row, and with shares that are computed again, for all of them or for the longer."""
    monkeypatch.setattr(segment_attention, "PLACES_AT_ONCE", places_at_once)
    monkeypatch.setattr(segment_attention, "KEPT_TOKENS", kept_tokens)
    segments = _segments()
    blocks = blocks_of(segments)
    assert 1 < len(blocks) < len(segments)
    tokens = segments[-1].stop
    tensors = [_random(tokens, 4, 8), _random(tokens, 2, 8, seed=1), _random(tokens, 2, 6, seed=2)]
    upstream = _random(tokens, 4, 6, seed=3)
    wide = _wide(*tensors)
    wanted = _plain_attention(*wide, segments, window)
    narrow = [tensor.requires_grad_() for tensor in tensors]
    found = segment_attention.segment_attention(*narrow, blocks, SCALE, window)
    assert _close(found, wanted)
    gradients = torch.autograd.grad(found, narrow, upstream)
    for one, other in zip(gradients, torch.autograd.grad(wanted, wide, upstream.double()), strict=True):
        assert _close(one, other)


@pytest.fixture
def _chunked(monkeypatch):
    """Rows in several chunks, with shares that are kept and shares that are not."""
    monkeypatch.setattr(segment_attention, "PLACES_AT_ONCE", 4)
    monkeypatch.setattr(segment_attention, "KEPT_TOKENS", 8)


def _attended() -> tuple[list[Tensor], Tensor]:
    """Inputs of attention, and its result."""
    segments = _segments()
    tokens = segments[-1].stop
    inputs = [_random(tokens, heads, 8, seed=seed).requires_grad_() for seed, heads in enumerate((4, 2, 2))]
    return inputs, segment_attention.segment_attention(*inputs, blocks_of(segments), SCALE, None)


def test_all_that_attention_keeps_can_be_taken_away():
    """Through the hooks of saved tensors, as gradient checkpointing and offloading do: of zeros all gradients are zero."""
    with torch.autograd.graph.saved_tensors_hooks(torch.zeros_like, lambda tensor: tensor):
        inputs, found = _attended()
    for gradient in torch.autograd.grad(found.square().sum(), inputs):
        assert not gradient.any()


@pytest.mark.usefixtures("_chunked")
def test_checkpointed_attention_is_computed_twice_and_to_the_bit(monkeypatch):
    inputs, plain = _attended()
    wanted = torch.autograd.grad(plain.square().sum(), inputs)
    calls, lay = [], regions.lay
    monkeypatch.setattr(regions, "lay", lambda *given, **named: calls.append(len(given)) or lay(*given, **named))
    inputs, found = checkpoint(_attended, use_reentrant=False)
    blocks = len(calls)
    gradients = torch.autograd.grad(found.square().sum(), inputs)
    assert len(calls) == 2 * blocks == 2 * len(blocks_of(_segments()))
    assert all(torch.equal(one, other) for one, other in zip(gradients, wanted, strict=True))


def test_blocks_waste_little():
    """No block has more than its share of idle places, and rows with different prefixes are never in one."""
    blocks = blocks_of(_segments())
    for block in blocks:
        tokens = block.stop - block.start
        assert int(block.real.sum()) == tokens
        assert block.real.numel() <= GRID_WASTE * tokens
    assert {block.prefix for block in blocks} == {0, 6}
    assert [block.stop for block in blocks[:-1]] == [block.start for block in blocks[1:]]
