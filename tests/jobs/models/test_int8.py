"""A base of 8 bits on a CPU: what bitsandbytes computes while it trains, and the same while it is measured."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.nn.modules import Linear8bitLt
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from jobs.models import int8
from jobs.models.int8 import DenseLinear8bit, write_dense
from jobs.models.loading import load_model
from jobs.models.quantisation import mixes_rows
from jobs.training.checks import choose_forward
from jobs.training.fused_lora import QuantisedGroup
from tests.jobs.methods.lora_models import adapt
from tests.jobs.training.reference import gradients, make_rows, stir
from tests.tiny import make_tiny_model, tiny_config

# An input so large that LLM.int8 would compute its column apart, for all rows of the product.
OUTLIER = 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"), config=tiny_config(initializer_range=0.15), dtype=torch.bfloat16)


def _layer() -> Linear8bitLt:
    """bitsandbytes' own, as transformers makes it."""
    torch.manual_seed(0)
    layer = Linear8bitLt(48, 40, bias=False, has_fp16_weights=False, threshold=6.0)
    layer.weight.data.copy_(torch.randn(40, 48))
    return layer.to("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_product_of_bitsandbytes_while_it_trains(dtype, monkeypatch):
    """To the bit, forward and backward, where no bias is rounded otherwise; weights are widened in parts."""
    monkeypatch.setattr(int8, "_NUMBERS_AT_ONCE", 7 * 48)
    layer = _layer().train()
    x = torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    upstream = torch.randn(2, 9, 40, generator=torch.Generator().manual_seed(2)).to(dtype)
    wanted = layer(x)
    (wanted_gradient,) = torch.autograd.grad(wanted, x, upstream)
    int8.compute_densely(layer, dtype)
    for training in (True, False):
        found = layer.train(training)(x)
        assert torch.equal(found, wanted)
        assert torch.equal(torch.autograd.grad(found, x, upstream)[0], wanted_gradient)


def test_a_bias_is_added_and_gets_its_gradient():
    layer = _layer()
    layer.bias = torch.nn.Parameter(torch.linspace(-1, 1, 40))
    int8.compute_densely(layer, torch.float32)
    x, upstream = torch.randn(3, 48), torch.randn(3, 40)
    found = layer(x)
    assert torch.allclose(found, x @ layer.dense().t() + layer.bias, atol=1e-5)
    assert torch.allclose(torch.autograd.grad(found, layer.bias, upstream)[0], upstream.sum(0), atol=1e-5)


def test_nothing_but_its_input_hangs_on_the_backward_pass():
    """No dense weight is kept, and gradient checkpointing takes it as any other layer."""
    layer = _layer()
    int8.compute_densely(layer, torch.float32)
    kept = []
    x = torch.randn(3, 48, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor):
        plain = layer(x)
    assert kept == []
    (wanted,) = torch.autograd.grad(plain.sum(), x)
    assert torch.equal(torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).sum(), x)[0], wanted)


def test_in_evaluation_no_row_hangs_on_another(folder):
    """Which it does by bitsandbytes' own evaluation: an outlier in one row takes its column from the rounding of all."""
    layer = load_model(folder, precision="bfloat16", trains_base=False, bits=8).model.layers[0].mlp.up_proj
    assert type(layer) is DenseLinear8bit
    assert not layer.training
    rows = torch.randn(2, layer.in_features, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    poisoned = rows.clone()
    poisoned[0, 3] = OUTLIER
    assert torch.equal(layer(rows)[1], layer(poisoned)[1])
    layer.__class__ = Linear8bitLt
    layer.state.is_training = False
    assert not torch.equal(layer(rows)[1], layer(poisoned)[1])


def test_lora_over_it_is_packed_and_one_product_with_the_gradients_of_peft(folder):
    model, rows = stir(adapt(folder, "lora_8bit", rank=4)[0]), make_rows(6)
    plain, _ = choose_forward(model, rows, dtype=torch.float32, device="cpu", batching="padded")
    plain = gradients(plain, rows)
    forward, reasons = choose_forward(model, rows, dtype=torch.float32, device="cpu")
    assert (forward.packs, forward.lora.whole, reasons) == (True, True, [])
    assert {type(group) for group in forward.lora.groups} == {QuantisedGroup}
    for name, gradient in gradients(forward, rows).items():
        assert float((gradient - plain[name]).norm()) < 1e-4 * float(plain[name].norm())


def test_where_inputs_are_rounded_too_rows_are_padded_for_the_true_reason(folder):
    """As on a GPU. Without asking a probe that could not pass."""
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map={"": "cpu"})
    assert mixes_rows(model)
    forward, (reason, *others) = choose_forward(model, make_rows(6), dtype=torch.float32, device="cpu")
    assert not forward.packs
    assert "LLM.int8" in reason
    assert "architecture" not in " ".join((reason, *others))
    assert not mixes_rows(load_model(folder, precision="float32", trains_base=False, bits=8))


def test_what_is_written_is_what_bitsandbytes_dequantises():
    from bitsandbytes.functional import int8_vectorwise_dequant

    layer = _layer()
    target = torch.empty(40, 48)
    write_dense(layer, target)
    torch.testing.assert_close(target, int8_vectorwise_dequant(layer.weight.data, layer.weight.SCB), rtol=1e-6, atol=0)
