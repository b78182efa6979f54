"""Attention by a GPU's kernels: the choice from facts, all that surrounds FlashAttention, and flex_attention in torch's plain form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import flex_attention, varlen

from jobs.training import attention, kernels
from jobs.training.checks import choose_forward
from jobs.training.flex import BLOCK, FlexLayout, block_pairs
from jobs.training.forward import Forward, head_of
from jobs.training.kernels import Call, Device, Kernel, Kernels, PackedRows, failure, why_not_flex, why_not_varlen
from jobs.training.layout import Segment
from jobs.training.row_attention import Score
from jobs.training.varlen import SharedKeys, VarlenLayout
from tests.jobs.training.reference import VOCABULARY, make_model, templated_rows

H100, A10, T4, P40 = (Device("cuda", capability, triton=True) for capability in ((9, 0), (8, 6), (7, 5), (6, 1)))
NO_TRITON, AMD, CPU = Device("cuda", (9, 0), triton=False), Device("cuda", None, triton=True), Device("cpu", None, triton=False)
PLAIN = Score(scale=0.3, dropout=0.0, window=None, softcap=None)
CALL = Call(PLAIN, torch.bfloat16, heads=4, key_heads=2, width=64, value_width=64)
# Two groups with a prefix each, and rows alone; blocks of the mask are crossed, and one lies wholly within a row.
SEGMENTS = (
    Segment(0, 140),
    Segment(140, 150, 0, 140),
    Segment(150, 460, 0, 140),
    Segment(460, 470),
    Segment(470, 471, 460, 470),
    Segment(471, 480, 460, 470),
    Segment(480, 500),
    Segment(500, 901),
)
WITHOUT_PREFIX = (Segment(0, 5), Segment(5, 300), Segment(300, 301))


def _scored(**changes: object) -> Call:
    return replace(CALL, score=replace(PLAIN, **changes))


@pytest.mark.parametrize(
    ("device", "call", "varlen_says", "flex_says"),
    [
        (H100, CALL, "", ""),
        (H100, replace(CALL, dtype=torch.float16), "", ""),
        (H100, _scored(window=16), "", ""),
        (H100, replace(CALL, dtype=torch.float32), "float32", ""),
        (H100, _scored(softcap=50.0), "soft-cap", ""),
        (H100, _scored(dropout=0.1), "dropout", "dropout"),
        (H100, replace(CALL, value_width=32), "as wide as keys (here 32 and 64)", ""),
        (H100, replace(CALL, width=20, value_width=20), "multiple of 8", ""),
        (H100, replace(CALL, width=264, value_width=264), "at most 256", ""),
        (H100, replace(CALL, width=8, value_width=8), "", "16 numbers or more (here 8)"),
        (H100, replace(CALL, width=224, value_width=224), "", ""),
        (A10, replace(CALL, width=224, value_width=224), "no gradients for heads of 224", ""),
        (A10, replace(CALL, width=256, value_width=256), "", ""),
        (T4, replace(CALL, dtype=torch.float16), "8.0 or more", ""),
        (T4, CALL, "8.0 or more", "from compute capability 8.0 on"),
        (P40, replace(CALL, dtype=torch.float16), "8.0 or more", "7.0 or more"),
        (NO_TRITON, CALL, "", "needs triton"),
        (AMD, CALL, "NVIDIA", "NVIDIA"),
        (CPU, CALL, "NVIDIA", "NVIDIA"),
    ],
)
def test_what_a_kernel_allows_follows_from_facts(device, call, varlen_says, flex_says):
    for says, found in ((varlen_says, why_not_varlen(device, call)), (flex_says, why_not_flex(device, call))):
        assert (says in found) if says else (found == "")


def test_a_kernel_that_fails_its_trial_is_not_used_and_that_is_said():
    """A CPU under the name of an H100: torch has no such FlashAttention and no gradients of flex_attention there, and says so."""
    chooser = Kernels(H100)
    assert chooser.of(CALL, torch.device("cpu")) is Kernel.ROWS
    assert [reason.split(":")[0] for reason in chooser.reasons] == [
        "FlashAttention is not used on this device",
        "flex_attention is not used on this device",
        "Attention is computed row by row",
    ]
    assert "does not support backward on CPU" in chooser.reasons[1]
    assert chooser.of(replace(CALL), torch.device("cpu")) is Kernel.ROWS
    assert len(chooser.reasons) == 3


def test_without_a_gpu_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(kernels, "failure", lambda *_: pytest.fail("tried"))
    chooser = Kernels(Device.of("cpu"))
    assert chooser.of(CALL, torch.device("cpu")) is Kernel.ROWS
    assert len(chooser.reasons) == 1


def _flash(shift: int = 0):
    """`varlen_attn` as torch documents it, row by row in float32: a causal mask and window that end with the last key."""

    def attend(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):  # noqa: PLR0917
        lengths = [bounds.diff().tolist() for bounds in (cu_seq_q, cu_seq_k)]
        assert (cu_seq_q.dtype, cu_seq_k.dtype, max_q, max_k) == (torch.int32, torch.int32, max(lengths[0]), max(lengths[1]))
        assert enable_gqa == (query.shape[1] != key.shape[1])
        left, right = window_size
        rows = []
        for q, k, v in zip(query.split(lengths[0]), key.split(lengths[1]), value.split(lengths[1]), strict=True):
            last = torch.arange(len(q))[:, None] + len(k) - len(q) + shift
            place = torch.arange(len(k))[None]
            seen = (place <= last + right) & (place >= last - (left if left >= 0 else len(k)))
            heads = (tensor.float().transpose(0, 1) for tensor in (q, k, v))
            row = functional.scaled_dot_product_attention(*heads, attn_mask=seen, scale=scale, enable_gqa=enable_gqa)
            rows.append(row.transpose(0, 1).to(query.dtype))
        return torch.cat(rows)

    return attend


def _tensors(segments, heads: int = 4, key_heads: int = 2, width: int = 16) -> list[Tensor]:
    """Query, key, value and the gradient from above."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, count, segments[-1].stop, width, generator=generator) for count in (heads, key_heads, key_heads, heads)]


def _both(segments, kernel: Kernel, score: Score, key_heads: int = 2) -> list[tuple[Tensor, Tensor]]:
    """Output and gradients of query, key and value: by a kernel in float32, and row by row in float64."""
    results = []
    for way, dtype in ((kernel, torch.float32), (Kernel.ROWS, torch.float64)):
        *inputs, upstream = (tensor.to(dtype) for tensor in _tensors(segments, key_heads=key_heads))
        inputs = [tensor.requires_grad_() for tensor in inputs]
        output = PackedRows(segments).attend(way, *inputs, score)
        results.append([output, *torch.autograd.grad(output, inputs, upstream.transpose(1, 2))])
    return list(zip(*results, strict=True))


def _apart(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).detach().abs().max() / wanted.detach().abs().max().clamp_min(1.0))


@pytest.mark.parametrize("segments", [SEGMENTS, WITHOUT_PREFIX])
@pytest.mark.parametrize("window", [None, 1, 9, 200])
def test_what_flash_attention_is_given_makes_rows_alone(segments, window, monkeypatch):
    """Bounds, longest rows, keys laid out and their gradients gathered: all but the kernel itself, in whose place stands its definition."""
    monkeypatch.setattr(varlen, "varlen_attn", _flash())
    for found, wanted in _both(segments, Kernel.VARLEN, replace(PLAIN, window=window)):
        assert _apart(found, wanted) < 1e-5


class _BrokenBackward(torch.autograd.Function):
    """Right forward; its gradients are no numbers."""

    @staticmethod
    def forward(_ctx, tensor):
        return tensor.clone()

    @staticmethod
    def backward(_ctx, gradient):
        return gradient * float("nan")


def test_the_trial_tells_a_right_kernel_from_a_wrong_one(monkeypatch):
    for call in (CALL, _scored(window=4096), replace(CALL, dtype=torch.float16, key_heads=4)):
        monkeypatch.setattr(varlen, "varlen_attn", _flash())
        assert failure(Kernel.VARLEN, call, torch.device("cpu")) == ""
        monkeypatch.setattr(varlen, "varlen_attn", _flash(shift=-1))
        assert failure(Kernel.VARLEN, call, torch.device("cpu")).startswith("differs from rows alone")
    monkeypatch.setattr(varlen, "varlen_attn", lambda *given, **named: _BrokenBackward.apply(_flash()(*given, **named)))
    assert failure(Kernel.VARLEN, CALL, torch.device("cpu")) == "differs from rows alone (by nan of their size)"


def test_bounds_and_keys_of_rows_that_share():
    segments = (Segment(0, 2), Segment(2, 5, 0, 2), Segment(5, 6, 0, 2), Segment(6, 8))
    layout, cpu = VarlenLayout.of(segments, torch.device("cpu")), torch.device("cpu")
    assert (layout.queries.tolist(), layout.keys.tolist()) == ([0, 2, 5, 6, 8], [0, 2, 7, 10, 12])
    assert (layout.longest_queries, layout.longest_keys) == (3, 5)
    shared = SharedKeys.of(segments, cpu)
    assert shared.sources.tolist() == [0, 1, 0, 1, 2, 3, 4, 0, 1, 5, 6, 7]
    assert shared.own.tolist() == [0, 1, 4, 5, 6, 9, 10, 11]
    assert [(start, places.tolist()) for start, places in shared.copies] == [(0, [[2, 3], [7, 8]])]
    assert VarlenLayout.of(WITHOUT_PREFIX, cpu).shared is None


def test_a_prefix_gets_the_sum_of_its_rows_in_float32(monkeypatch):
    """300 bfloat16 gradients of one, added one by one, would stay at 256."""
    rows = 300
    segments = (Segment(0, 1), *(Segment(place, place + 1, 0, 1) for place in range(1, rows + 1)))
    monkeypatch.setattr(varlen, "varlen_attn", lambda _query, key, *_, **__: key)
    key = torch.zeros(1, 1, rows + 1, 8, dtype=torch.bfloat16, requires_grad=True)
    PackedRows(segments).attend(Kernel.VARLEN, key, key, key, PLAIN).sum().backward()
    assert key.grad[0, 0, :, 0].tolist() == [float(torch.tensor(rows + 1.0).bfloat16()), *[1.0] * rows]


def _seen(segments, window: int | None) -> np.ndarray:
    """Bool [tokens, tokens] written out token by token."""
    seen = np.zeros((segments[-1].stop,) * 2, dtype=np.bool_)
    for row in segments:
        places = [*range(row.prefix_start, row.prefix_stop), *range(row.start, row.stop)]
        for number in range(row.prefix, len(places)):
            seen[places[number], places[max(0, number + 1 - window) if window else 0 : number + 1]] = True
    return seen


@pytest.mark.parametrize("segments", [SEGMENTS, WITHOUT_PREFIX])
@pytest.mark.parametrize("window", [None, 1, 9, 129, 260])
def test_blocks_follow_from_the_bounds_of_rows(segments, window):
    """The rule for pairs is that of the rows; no pair seen lies outside the blocks, and those said to be full are."""
    layout, seen = FlexLayout(segments, torch.device("cpu")), _seen(segments, window)
    mask = layout.mask(window)
    assert layout.mask(window) is mask
    places = torch.arange(len(seen))
    rule = mask.mask_mod(torch.tensor(0), torch.tensor(0), places[:, None], places[None])
    assert np.array_equal(rule.numpy(), seen)
    blocks = -(-len(seen) // BLOCK)
    padded = np.zeros((blocks * BLOCK,) * 2, dtype=np.bool_)
    padded[: len(seen), : len(seen)] = seen
    tiles = padded.reshape(blocks, BLOCK, blocks, BLOCK)
    some, full = block_pairs(segments, window)
    assert not (tiles.any(axis=(1, 3)) & ~some).any()
    of_one_row = [any(row.start <= block * BLOCK and (block + 1) * BLOCK <= row.stop for row in segments) for block in range(blocks)]
    assert np.array_equal(full, tiles.all(axis=(1, 3)) & np.array(of_one_row)[:, None])
    assert np.array_equal(mask.to_dense()[0, 0].numpy().astype(bool), some)
    if segments is SEGMENTS and window in {None, 260}:
        assert full.any()
        assert not some.all()


@pytest.fixture
def flex_gradients(monkeypatch):
    """torch refuses gradients of flex_attention on a CPU, where the compiled form has none; its plain form has them."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)


@pytest.mark.usefixtures("flex_gradients")
@pytest.mark.parametrize(
    ("segments", "window", "softcap", "key_heads"),
    [(SEGMENTS, None, None, 2), (SEGMENTS, 9, 2.0, 1), (SEGMENTS, 260, None, 4), (WITHOUT_PREFIX, None, 2.0, 2)],
)
def test_flex_attention_equals_rows_alone(segments, window, softcap, key_heads):
    for found, wanted in _both(segments, Kernel.FLEX, replace(PLAIN, window=window, softcap=softcap), key_heads):
        assert _apart(found, wanted) < 1e-5


class _Flex(Kernels):
    """flex_attention whatever the call."""

    def of(self, call: Call, device: torch.device) -> Kernel:
        return Kernel.FLEX


@pytest.mark.usefixtures("flex_gradients")
@pytest.mark.parametrize("architecture", ["llama", "gemma2, window and soft-caps"])
def test_a_model_on_flex_attention_equals_itself_row_by_row_and_rows_do_not_see_each_other(architecture):
    attention.register()
    model, rows = make_model(architecture), templated_rows(8)
    by_row = Forward(model, torch.float32, "cpu", packs=True, own_head=True, shares_prefix=True)
    by_flex = replace(by_row, kernels=_Flex(CPU))
    wanted, found = _logits_and_gradient(by_row, rows), _logits_and_gradient(by_flex, rows)
    assert max(_apart(one, other) for one, other in zip(found, wanted, strict=True)) < 1e-5
    poisoned = [replace(rows[0], ids=np.where(rows[0].trained, (rows[0].ids + 7) % VOCABULARY, rows[0].ids)), *rows[1:]]
    first = int(rows[0].trained.sum())
    moved = _logits_and_gradient(by_flex, poisoned)[0]
    assert not torch.equal(moved[:first], found[0][:first])
    assert torch.equal(moved[first:], found[0][first:])


def _logits_and_gradient(forward: Forward, rows) -> list[Tensor]:
    """Logits [labels, vocabulary], and the gradient of the loss in all weights, as one."""
    batch = forward.batch(rows)
    assert batch.input_ids.numel() < batch.tokens
    forward.model.zero_grad()
    with forward.running(batch):
        logits = head_of(forward.model).logits(forward.hidden(batch), torch.float32).detach()
        forward.loss_sum(batch).backward()
    return [logits, torch.cat([weight.grad.flatten() for weight in forward.model.parameters()])]


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: these kernels run on no other")


HALF = [CALL, replace(CALL, dtype=torch.float16, key_heads=4), replace(CALL, width=128, value_width=128), _scored(window=16)]
FLEX_ALONE = [_scored(softcap=0.5), replace(CALL, dtype=torch.float32)]


@NEEDS_CUDA
@pytest.mark.parametrize(
    ("kernel", "call"),
    [*((Kernel.VARLEN, call) for call in HALF), *((Kernel.FLEX, call) for call in (*HALF, *FLEX_ALONE))],
)
def test_kernels_are_right_on_this_gpu(kernel, call):
    """Of compute capability 8.0 or more, with triton."""
    assert {Kernel.VARLEN: why_not_varlen, Kernel.FLEX: why_not_flex}[kernel](Device.of("cuda"), call) == ""
    assert failure(kernel, call, torch.device("cuda")) == ""


@NEEDS_CUDA
@pytest.mark.parametrize(("architecture", "kernel"), [("llama", Kernel.VARLEN), ("gemma2, window and soft-caps", Kernel.FLEX)])
def test_a_model_takes_its_kernel_on_this_gpu(architecture, kernel):
    model = make_model(architecture).to("cuda")
    forward, reasons = choose_forward(model, templated_rows(8), dtype=torch.bfloat16, device="cuda")
    assert (reasons, set(forward.kernels.taken.values())) == ([], {kernel})
