"""The presets of LoRA against their papers' equations: where they start, what they train, how the update is scaled, where it is added."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from jobs.export.dequantised import dequantised_weights
from jobs.imports import leave_out_bitsandbytes
from jobs.methods.lora.layers import lora_layers
from jobs.methods.registry import get_method
from jobs.spec import DataSpec, MethodSpec, ModelSpec, RunSpec
from jobs.training.checks import choose_forward
from tests.jobs.methods.lora_models import IDS, ROWS, adapt, base_weights, load, logits, stir, updates
from tests.tiny import make_tiny_model

PRESETS = ("lora", "rslora", "dora", "pissa", "olora", "lora_ga", "eva", "lora_plus", "adalora")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("lora") / "model")


def _rank(method):
    return {"rank": 4, "target_rank": 2} if method == "adalora" else {"rank": 4}


@pytest.mark.parametrize("method", PRESETS)
def test_the_start_is_the_base_and_the_adapter_alone_gets_gradients(folder, method):
    base = logits(load(folder))
    model, hooks = adapt(folder, method, **_rank(method))
    torch.testing.assert_close(logits(model), base, rtol=0, atol=2e-5 * float(base.abs().max()))
    loss = model(input_ids=IDS).logits.square().mean() + (hooks.penalty() or 0)
    loss.backward()
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert [name for name, weight in model.named_parameters() if weight.grad is not None] == trained


@pytest.mark.parametrize(
    ("method", "count"), [("lora", 1.0), ("pissa", 1.0), ("eva", 1.0), ("rslora", 1.0), ("dora", None), ("adalora", None)]
)
def test_as_many_weights_are_trained_as_the_paper_says(folder, method, count):
    """r (d_in + d_out) a layer; DoRA: and d_out magnitudes; AdaLoRA: and r singular values. EVA moves ranks between the layers."""
    model, _ = adapt(folder, method, **_rank(method))
    shapes = [weight.shape for name, weight in base_weights(folder).items() if name != "lm_head"]
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    more = {"dora": sum(outputs for outputs, _ in shapes), "adalora": 4 * len(shapes)}.get(method, 0)
    if method == "eva":
        assert sum(layer.r["default"] for _, layer in lora_layers(model)) == 4 * len(shapes)
    else:
        assert trained == 4 * sum(outputs + inputs for outputs, inputs in shapes) + more


def test_rslora_divides_by_the_square_root_of_the_rank(folder):
    model, _ = adapt(folder, "rslora", rank=9, alpha=6.0)
    stir(model)
    for name, layer in lora_layers(model):
        up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        torch.testing.assert_close(updates(model)[name], 6 / math.sqrt(9) * up @ down)


def test_dora_learns_the_length_of_each_outputs_weights_apart(folder):
    """W' = m (W + s B A) / |W + s B A|, with the norm over inputs; m starts as the norm of W."""
    model, _ = adapt(folder, "dora", rank=4)
    name, layer = next(lora_layers(model))
    weight = base_weights(folder)[name]
    magnitude = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitude.detach(), weight.norm(dim=1))
    stir(model)
    direction = weight + updates(model)[name]
    wanted = (magnitude / direction.norm(dim=1))[:, None] * direction
    x = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), x @ wanted.t(), rtol=1e-4, atol=1e-4)


def test_lora_plus_gives_b_sixteen_times_the_rate():
    method = get_method("lora_plus")
    settings = method.resolve({})
    rates = {name: method.rate_factor(settings, f"model.q_proj.{name}.default.weight") for name in ("lora_A", "lora_B")}
    assert rates == {"lora_A": 1.0, "lora_B": 16.0}


@pytest.mark.parametrize(
    ("method", "fused"),
    [("lora", True), ("rslora", True), ("pissa", True), ("eva", True), ("lora_plus", True), ("qlora", True), ("loftq", True),
     ("dora", False), ("adalora", False), ("lora_8bit", True)],
)  # fmt: skip
def test_one_product_is_taken_where_the_update_is_plain_and_nowhere_else(folder, method, fused):
    """And either way it gives what PEFT's own forward gives."""
    model = stir(adapt(folder, method, **_rank(method))[0])
    forward, reasons = choose_forward(model, ROWS, dtype=torch.float32, device="cpu")
    assert (forward.lora is not None and forward.lora.whole) == fused
    assert not [reason for reason in reasons if "fast ways" in reason]


def test_eight_bits_stand_for_what_bitsandbytes_says(folder):
    from bitsandbytes.functional import int8_vectorwise_dequant

    model, _ = adapt(folder, "lora_8bit", rank=4)
    dense = dequantised_weights(model)
    name, layer = next(lora_layers(model))
    held = layer.get_base_layer().weight
    torch.testing.assert_close(dense(f"{name}.weight"), int8_vectorwise_dequant(held.data, held.SCB))
    torch.testing.assert_close(dense(f"{name}.weight"), base_weights(folder)[name], rtol=0, atol=0.01)
    assert dense("model.norm.weight") is None


@pytest.mark.parametrize(
    ("method", "settings", "hidden"), [("rslora", {}, True), ("rslora", {"base_bits": "4"}, False), ("qlora", {}, False)]
)
def test_bitsandbytes_is_left_out_where_the_chosen_base_has_no_use_for_it(monkeypatch, method, settings, hidden):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes")
    spec = RunSpec(ModelSpec("model"), DataSpec("rows.jsonl"), method=MethodSpec(method, settings))
    assert leave_out_bitsandbytes(spec, get_method(method)) == hidden
    assert ("bitsandbytes" in sys.modules) == hidden
