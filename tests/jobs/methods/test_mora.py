"""MoRA against its equations (Jiang et al. 2024, arXiv:2405.12130)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from jobs.methods.mora.entry import side
from jobs.methods.mora.tuner import MoraConfig, MoraLinear
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.models.loading import load_model
from jobs.run import apply_method, make_hooks
from jobs.spec import TrainingSpec
from tests.jobs.training.reference import CONFIGS, losses, make_model, make_rows, make_trainer, short
from tests.tiny import make_tiny_model

METHOD = get_method("mora")
# Divided by s without rest; with a rest; more inputs than outputs; more outputs than inputs.
SIZES = [(64, 64, 2), (64, 64, 3), (96, 40, 2), (40, 96, 2)]


def linear(inputs: int, outputs: int, rank: int, operator: str) -> MoraLinear:
    torch.manual_seed(1)
    layer = MoraLinear(nn.Linear(inputs, outputs))
    layer.requires_grad_(False)
    layer._active_adapter = "default"
    layer.update_layer("default", MoraConfig(r=rank, operator=operator))
    return layer


def stirred(model: Any) -> Any:
    """With matrices as after some steps."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "mora_matrix" in name:
                weight.normal_(std=0.1)
    return model


def plain_model(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="sdpa").eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(torch.arange(3, 40)[None]).logits


def rotation(size: int, position: int) -> torch.Tensor:
    """The block diagonal matrix R of rotary embeddings, entry by entry."""
    found = torch.zeros(size, size, dtype=torch.float64)
    for plane in range(size // 2):
        angle = position * 10000.0 ** (-2 * plane / size)
        found[2 * plane, 2 * plane] = found[2 * plane + 1, 2 * plane + 1] = math.cos(angle)
        found[2 * plane, 2 * plane + 1], found[2 * plane + 1, 2 * plane] = -math.sin(angle), math.sin(angle)
    return found


def update(matrix: torch.Tensor, x: torch.Tensor, outputs: int, operator: str) -> torch.Tensor:
    """decompress(M compress(x)) of one input, segment by segment."""
    size = len(matrix)
    segments = [x[start : start + size] for start in range(0, len(x), size)]
    segments = [torch.cat((segment, segment.new_zeros(size - len(segment)))) for segment in segments]
    if operator == "sharing":
        parts = [matrix @ sum(segments)]
    else:
        parts = [matrix @ (rotation(size, place) @ segment) for place, segment in enumerate(segments)]
    whole = torch.cat(parts)
    return torch.stack([whole[index % len(whole)] for index in range(outputs)])


@pytest.mark.parametrize(
    ("inputs", "outputs", "rank", "rotates", "found"),
    [(576, 576, 8, False, 96), (576, 576, 8, True, 96), (4096, 4096, 8, True, 256), (576, 192, 9, False, 83), (576, 192, 9, True, 82),
     (64, 16, 64, True, 16)],
)  # fmt: skip
def test_the_matrix_is_as_large_as_a_lora_of_the_rank(inputs, outputs, rank, rotates, found):
    assert side(inputs, outputs, rank, rotates=rotates) == found
    assert found**2 <= (inputs + outputs) * rank


def test_a_layer_too_small_to_rotate_is_refused():
    with pytest.raises(ValueError, match="a layer of 1 x 64 is too small to rotate"):
        side(64, 1, 8, rotates=True)


@pytest.mark.parametrize("operator", ["rotation", "sharing"])
@pytest.mark.parametrize(("inputs", "outputs", "rank"), SIZES)
def test_the_update_is_the_papers_formula(inputs, outputs, rank, operator):
    layer = stirred(linear(inputs, outputs, rank, operator))
    matrix, x = layer.mora_matrix["default"].detach(), torch.randn(3, 2, inputs)
    wanted = torch.stack([update(matrix.double(), row.double(), outputs, operator) for row in x.reshape(-1, inputs)]).reshape(3, 2, outputs)
    base = layer.base_layer
    assert torch.allclose(layer(x) - base(x), wanted.float(), rtol=1e-4, atol=1e-5)
    assert torch.allclose(functional.linear(x, layer.get_delta_weight("default")), wanted.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("operator", "rank"), [("rotation", 64), ("sharing", 16)])
def test_the_update_has_a_higher_rank_than_lora(operator, rank):
    """64 x 64, r = 2: s = 16, four rotated blocks of full rank, or one of 16 repeated; LoRA's would be 2."""
    layer = stirred(linear(64, 64, 2, operator))
    assert layer.mora_matrix["default"].shape == (16, 16)
    assert int(torch.linalg.matrix_rank(layer.get_delta_weight("default"))) == rank


@pytest.mark.parametrize("operator", ["rotation", "sharing"])
@pytest.mark.parametrize(("inputs", "outputs", "rank"), SIZES)
def test_all_of_the_matrix_and_nothing_else_gets_a_gradient(inputs, outputs, rank, operator):
    layer = linear(inputs, outputs, rank, operator)
    x = torch.randn(50, inputs)
    assert torch.equal(layer(x), layer.base_layer(x)), "the start is the base"
    (layer(x) * torch.randn(50, outputs)).sum().backward()
    assert [name for name, weight in layer.named_parameters() if weight.grad is not None] == ["mora_matrix.default"]
    assert bool(layer.mora_matrix["default"].grad.all())


@pytest.mark.parametrize(("name", "operator"), [("llama", "rotation"), ("llama", "sharing"), ("gpt2", "rotation")])
def test_merged_and_reloaded_it_is_the_same(name, operator, tmp_path):
    model = stirred(make_model(name, "mora", **METHOD.resolve({"operator": operator, "rank": 2})))
    wanted = logits(model)
    assert float((wanted - logits(plain_model(name))).abs().max()) > 0.1
    make_hooks(METHOD, model, {}, Setup(seed=0)).save(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(plain_model(name), tmp_path)), wanted)
    assert torch.allclose(logits(model.merge_and_unload()), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 4])
def test_it_trains_over_a_quantised_base(bits, tmp_path):
    base = load_model(make_tiny_model(tmp_path / "base"), precision="float32", trains_base=False, bits=bits)
    untouched = logits(base)
    model = apply_method(METHOD, base, METHOD.resolve({"rank": 4}), Setup(seed=0))
    assert torch.equal(logits(model), untouched)
    spec = short(TrainingSpec(micro_batch=4, gradient_accumulation=1), 10)
    run, events = make_trainer(model, make_rows(), tmp_path, spec, learning_rate=1e-2)
    run.run()
    assert losses(events)[-1] < losses(events)[0] - 0.3
