"""Bottleneck adapters and Compacter against their equations (arXiv:1902.00751, 2110.04366, 2106.04647)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn import functional

from jobs.errors import UserError
from jobs.methods.bottlenecks import Block, BlockLayer, Form, KroneckerLinear
from jobs.methods.places import find_places
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.models.loading import load_model
from jobs.run import apply_method, make_hooks
from jobs.spec import TrainingSpec
from tests.jobs.methods.block_models import TASKS, answer, applied, logits, plain_model, stirred, trained
from tests.jobs.training.reference import losses, make_rows, make_trainer, short
from tests.tiny import make_tiny_model

METHODS = ("bottleneck_adapter", "parallel_adapter", "compacter")
# Of each architecture, in its first layer: the ends of attention and feed-forward module, and who reads the latter's input.
PLACES = {
    "llama": ("model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj", "model.layers.0.mlp.gate_proj"),
    "phi3": ("model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj", "model.layers.0.mlp.gate_up_proj"),
    "gpt2": ("transformer.h.0.attn.c_proj", "transformer.h.0.mlp.c_proj", "transformer.h.0.mlp.c_fc"),
    "gpt-neox": (
        "gpt_neox.layers.0.attention.dense", "gpt_neox.layers.0.mlp.dense_4h_to_h", "gpt_neox.layers.0.mlp.dense_h_to_4h",
    ),
    "bert": (
        "bert.encoder.layer.0.attention.output.dense", "bert.encoder.layer.0.output.dense", "bert.encoder.layer.0.intermediate.dense",
    ),
    "roberta": (
        "roberta.encoder.layer.0.attention.output.dense", "roberta.encoder.layer.0.output.dense",
        "roberta.encoder.layer.0.intermediate.dense",
    ),
    "t5": (
        "encoder.block.0.layer.0.SelfAttention.o", "encoder.block.0.layer.1.DenseReluDense.wo",
        "encoder.block.0.layer.1.DenseReluDense.wi",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_the_ends_of_the_modules_are_found_in_the_model(name):
    found = find_places(frame_of(plain_model(name)), method="X")
    attention, feed_forward, reader = PLACES[name]
    assert (found.attention[0], found.feed_forward[0], found.inputs[feed_forward]) == (attention, feed_forward, reader)
    # two layers of one attention and one feed-forward module; T5's decoder has two of them and a cross-attention each
    assert (len(found.attention), len(found.feed_forward), len(found.inputs)) == ((6, 4, 4) if name == "t5" else (2, 2, 2))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_such_modules_is_refused(method):
    with pytest.raises(UserError) as refused:
        applied("mixtral", method)
    assert refused.value.code == "method_cannot"
    assert "model.layers.0 has no plain feed-forward module" in refused.value.message


@pytest.mark.parametrize("non_linearity", ["relu", "gelu", "silu", "tanh"])
def test_a_block_is_the_papers_formula(non_linearity):
    torch.manual_seed(1)
    block, x = stirred(Block(12, Form(5, non_linearity, scaling=4.0))), torch.randn(3, 2, 12)
    bent = {"relu": functional.relu, "gelu": functional.gelu, "silu": functional.silu, "tanh": torch.tanh}[non_linearity]
    down, up = block.down, block.up
    wanted = 4.0 * (bent(x @ down.weight.T + down.bias) @ up.weight.T + up.bias)
    assert down.weight.shape == (5, 12)
    assert up.weight.shape == (12, 5)
    assert torch.allclose(block(x), wanted, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs", "n", "rank"), [(12, 8, 4, 1), (8, 12, 4, 2), (6, 9, 3, 1)])
def test_a_hypercomplex_layer_is_a_sum_of_kronecker_products(inputs, outputs, n, rank):
    torch.manual_seed(1)
    layer, factors, x = KroneckerLinear(inputs, outputs, Form(n, kronecker=n, rank=rank)), torch.randn(n, n, n), torch.randn(3, 2, inputs)
    stirred(layer)
    weight = sum(torch.kron(factors[i], layer.left[i] @ layer.right[i]) for i in range(n))
    assert weight.shape == (outputs, inputs)
    assert torch.allclose(layer(x, factors), x @ weight.T + layer.bias, rtol=1e-4, atol=1e-4)
    assert sum(each.numel() for each in layer.parameters()) == rank * (inputs + outputs) + outputs


def test_the_start_of_a_hypercomplex_layer_has_glorots_variance():
    torch.manual_seed(1)
    layer, n = KroneckerLinear(512, 256, Form(256, kronecker=4, rank=2)), 4
    factors = torch.randn(n, n, n) * n**-0.5
    weight = sum(torch.kron(factors[i], layer.left[i] @ layer.right[i]) for i in range(n))
    assert float(weight.detach().var()) == pytest.approx(2 / (512 + 256), rel=0.5)


@pytest.mark.parametrize(
    ("method", "settings", "numbers"),
    [
        # blocks of 2 * size * width + size + width; 4 behind attention and feed-forward, 2 behind the latter
        ("bottleneck_adapter", {}, 4 * (2 * 4 * 64 + 4 + 64)),
        ("bottleneck_adapter", {"placement": "pfeiffer", "size": 10}, 2 * (2 * 10 * 64 + 10 + 64)),
        ("bottleneck_adapter", {"placement": "pfeiffer", "reduction": 2}, 2 * (2 * 32 * 64 + 32 + 64)),
        ("parallel_adapter", {}, 2 * (2 * 16 * 64 + 16 + 64)),
        # Karimi Mahabadi et al. 4.2: 4 L (k + d) + n^3, and the biases; k is rounded up from 64 / 32 to a multiple of 4
        ("compacter", {}, 4 * 2 * (4 + 64) + 4**3 + 4 * (4 + 64)),
        ("compacter", {"placement": "pfeiffer", "size": 16, "kronecker": 8, "rank": 2}, 2 * 2 * 2 * (16 + 64) + 8**3 + 2 * (16 + 64)),
    ],
)
def test_as_many_numbers_are_trained_as_the_papers_say(method, settings, numbers):
    assert sum(weight.numel() for weight in trained(applied("llama", method, **settings)).values()) == numbers


@pytest.mark.parametrize(
    ("settings", "setting", "reason"),
    [
        ({"kronecker": 5}, "kronecker", "is 5, which does not divide this model's width 64"),
        ({"size": 10}, "size", "is 10, no multiple of the 4 Kronecker products"),
    ],
)
def test_compacter_refuses_what_does_not_divide(settings, setting, reason):
    with pytest.raises(UserError) as refused:
        applied("llama", "compacter", **settings)
    assert (refused.value.code, refused.value.where["field"]) == ("method_setting", f"method.settings.{setting}")
    assert reason in refused.value.message


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5"])
def test_it_begins_as_the_base_and_only_its_blocks_are_trained(name, method):
    model = applied(name, method)
    assert torch.equal(logits(model), logits(plain_model(name)))
    assert all("bottleneck_" in each or "classifier" in each for each in trained(model))
    (answer(stirred(model)) ** 2).sum().backward()
    received = {each for each, weight in model.named_parameters() if weight.grad is not None and bool(weight.grad.any())}
    assert received == trained(model).keys()
    with model.disable_adapter():
        if name != "bert":  # the head is trained along
            assert torch.equal(logits(model), logits(plain_model(name)))


def watched(model: Any, places: dict[str, str]) -> dict[str, dict[str, torch.Tensor]]:
    """By place, once the model has run: x that the module's first layer reads, y that its last one gives, and what is found with blocks."""
    seen: dict[str, dict[str, torch.Tensor]] = {place: {} for place in places}
    base = model.get_base_model()
    for place, reader in places.items():
        layer, kept = base.get_submodule(place), seen[place]
        base.get_submodule(reader).register_forward_pre_hook(lambda _, given, kept=kept: kept.update(x=given[0]))
        layer.base_layer.register_forward_hook(lambda _, __, given, kept=kept: kept.update(y=given))
        layer.register_forward_hook(lambda _, __, given, kept=kept: kept.update(found=given))
    return seen


@pytest.mark.parametrize("method", ["bottleneck_adapter", "parallel_adapter"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5"])
def test_each_block_reads_what_it_should(name, method):
    """Behind a module: y + f(y). Beside it: y + f(x)."""
    model = stirred(applied(name, method))
    seen = watched(model, find_places(frame_of(plain_model(name)), method="X").inputs)
    logits(model)
    assert len(seen) == (4 if name == "t5" else 2)
    for place, kept in seen.items():
        block = model.get_base_model().get_submodule(place).bottleneck_block["default"]
        update = block(kept["x"] if method == "parallel_adapter" else kept["y"])
        assert torch.allclose(kept["found"], kept["y"] + update, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_reloaded_it_is_the_same_and_it_is_never_merged(name, method, tmp_path):
    model = stirred(applied(name, method))
    wanted = logits(model)
    assert float((wanted - logits(plain_model(name))).abs().max()) > 0.1
    make_hooks(get_method(method), model, {}, Setup(seed=0)).save(tmp_path)
    for adapter, lean in (("default", False), ("other", True)):
        again = PeftModel.from_pretrained(plain_model(name), tmp_path, adapter_name=adapter, low_cpu_mem_usage=lean)
        assert torch.equal(logits(again), wanted)
        assert not trained(again)
    with pytest.raises(ValueError, match="cannot be added into the weights"):
        model.merge_and_unload()
    with pytest.raises(ValueError, match="cannot be added into the weights"):
        model.merge_adapter()
    if TASKS.get(name) != "sequence_classification":
        assert torch.equal(logits(model.unload()), logits(plain_model(name)))


def test_the_shared_factors_are_saved_once(tmp_path):
    make_hooks(get_method("compacter"), applied("llama", "compacter"), {}, Setup(seed=0)).save(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert [name for name in tensors if "factors" in name] == ["base_model.bottleneck_factors"]
    assert sum(tensor.numel() for tensor in tensors.values()) == 4 * 2 * (4 + 64) + 4**3 + 4 * (4 + 64)


def test_a_parallel_block_fails_where_the_modules_input_was_not_seen():
    """As where some fast way passes over the module's first layer: never a run that quietly trains nothing."""
    model = applied("llama", "parallel_adapter")
    layer = next(module for module in model.modules() if isinstance(module, BlockLayer))
    with pytest.raises(RuntimeError, match="input was not seen"):
        layer(torch.zeros(1, 96))


def test_a_run_draws_from_its_own_seed():
    states = [applied("llama", "compacter", Setup(seed=seed)).state_dict() for seed in (4, 4, 5)]
    same, other = ([torch.equal(states[0][name], state[name]) for name in states[0] if "bottleneck_" in name] for state in states[1:])
    assert all(same)
    assert not all(other)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("method", METHODS)
def test_it_trains_over_a_quantised_base(method, bits, tmp_path):
    base = load_model(make_tiny_model(tmp_path / "base"), precision="float32", trains_base=False, bits=bits)
    untouched, entry = logits(base), get_method(method)
    model = apply_method(entry, base, entry.resolve({"reduction": 2}), Setup(seed=0))
    assert torch.equal(logits(model), untouched)
    run, events = make_trainer(
        model, make_rows(), tmp_path, short(TrainingSpec(micro_batch=4, gradient_accumulation=1), 10), learning_rate=2e-2
    )
    run.run()
    assert losses(events)[-1] < losses(events)[0] - 0.3


def test_rows_are_packed_and_give_what_each_gives_alone(tmp_path):
    """The checks of the engine hold for parallel blocks, which listen to another layer, with weights that are no longer zero."""
    model = stirred(applied("llama", "parallel_adapter"))
    run, events = make_trainer(model, make_rows(), tmp_path, short(TrainingSpec(micro_batch=4, gradient_accumulation=1), 2))
    assert run.forward.packs
    assert run.forward.elementwise is not None
    run.run()
    assert len(losses(events)) == 2
