"""Block-sparse against its equations (Harada, Yamasaki and Yoshida, 2025), and how blocks enter and leave."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from jobs.errors import GraftError
from jobs.events import EventWriter
from jobs.methods.block_sparse import selection
from jobs.methods.block_sparse.selection import Selection
from jobs.methods.block_sparse.tuner import BlockSparseConfig, BlockSparseLinear
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.models.loading import load_model
from jobs.run import apply_method, make_hooks
from jobs.spec import TrainingSpec
from jobs.training import checkpoint
from tests.jobs.training.reference import CONFIGS, losses, make_model, make_rows, make_trainer, short
from tests.tiny import make_tiny_model

METHOD = get_method("block_sparse")
# A quarter of all blocks, so that some scores lie close to the border of the selection.
SMALL = METHOD.resolve({"block_rows": 8, "block_columns": 8, "blocks": 16})
SPEC = TrainingSpec(micro_batch=4, gradient_accumulation=1, weight_decay=0.1)


def linear(outputs: int, inputs: int, *, n: int, m: int, k: int, alpha: float = 1.0, base: nn.Module | None = None) -> BlockSparseLinear:
    torch.manual_seed(1)
    layer = BlockSparseLinear(base or nn.Linear(inputs, outputs))
    layer.requires_grad_(False)
    layer._active_adapter = "default"
    layer.update_layer("default", BlockSparseConfig(n=n, m=m, k=k, alpha=alpha))
    return layer


def stirred(layer: BlockSparseLinear) -> BlockSparseLinear:
    """With values as after some steps."""
    with torch.no_grad():
        layer.block_sparse_values["default"].normal_()
    return layer


def small_model(name: str = "llama") -> tuple[Any, Selection]:
    model = make_model(name, "block_sparse", **SMALL)
    hooks = make_hooks(METHOD, model, SMALL, Setup(seed=0))
    assert isinstance(hooks, Selection)
    return model, hooks


def plain_model(name: str = "llama") -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="sdpa").eval()


def layers(model: Any) -> dict[str, BlockSparseLinear]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, BlockSparseLinear)}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(torch.arange(3, 40)[None]).logits


def by_hand(layer: BlockSparseLinear, alpha: float) -> torch.Tensor:
    """alpha * Sparse(p, v * W_v), number by number as the paper has it."""
    scores, values = layer.block_sparse_scores["default"].detach(), layer.block_sparse_values["default"].detach()
    _, m = scores.shape
    _, height, width = values.shape
    delta = torch.zeros(layer.out_features, layer.in_features)
    for slot, position in enumerate(layer.block_sparse_positions["default"].tolist()):
        top, left = position // m * height, position % m * width
        place = delta[top : top + height, left : left + width]
        place += alpha * max(0.0, float(scores.flatten()[position])) * values[slot][: place.shape[0], : place.shape[1]]
    return delta


def test_shapes_and_count_are_the_papers():
    """q and v of SmolLM2-135M at the defaults: 2 matrices a layer of 576 and 192 outputs."""
    found = 0
    for outputs in (576, 192):
        layer = linear(outputs, 576, n=24, m=32, k=15)
        assert layer.block_sparse_scores["default"].shape == (24, 32)
        assert layer.block_sparse_values["default"].shape == (15, outputs // 24, 576 // 32)
        trained = sum(weight.numel() for weight in layer.parameters() if weight.requires_grad)
        assert trained == 24 * 32 + 15 * (outputs // 24) * (576 // 32)
        found += trained
    assert found * 30 == 305_280
    assert {name: METHOD.resolve({})[name] for name in ("block_rows", "block_columns", "blocks", "alpha")} == {
        "block_rows": 24, "block_columns": 32, "blocks": 15, "alpha": 1.0,
    }  # fmt: skip


def test_scores_start_normal_values_at_zero_and_the_best_are_selected():
    layer = linear(576, 576, n=24, m=32, k=15)
    scores, positions = layer.block_sparse_scores["default"].detach().flatten(), layer.block_sparse_positions["default"]
    assert float(scores.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(scores.std()) == pytest.approx(1.0, abs=0.1)
    assert not layer.block_sparse_values["default"].any()
    assert positions.dtype == torch.int32
    assert float(scores[positions.long()].min()) > float(scores[[place for place in range(768) if place not in positions.tolist()]].max())


@pytest.mark.parametrize(("outputs", "inputs", "n", "m"), [(48, 64, 8, 16), (104, 70, 24, 32), (10, 70, 24, 32)])
def test_the_update_is_the_papers_formula(outputs, inputs, n, m):
    """Also where n and m do not divide the sizes: blocks are of the next whole size, the last one cut."""
    layer = stirred(linear(outputs, inputs, n=n, m=m, k=9, alpha=1.7))
    delta = by_hand(layer, 1.7)
    assert torch.allclose(layer.get_delta_weight("default"), delta, rtol=1e-6, atol=0)
    x, base = torch.randn(2, 5, inputs), layer.base_layer
    assert torch.allclose(layer(x), functional.linear(x, base.weight + delta, base.bias), rtol=1e-5, atol=1e-5)
    assert 0 < int((delta != 0).sum()) <= 9 * math.ceil(outputs / n) * math.ceil(inputs / m)


def test_where_blocks_are_fewer_than_k_all_are_trained():
    layer = linear(6, 70, n=3, m=2, k=15)
    assert layer.block_sparse_positions["default"].tolist() == [0, 1, 2, 3, 4, 5]
    assert layer.block_sparse_values["default"].shape == (6, 2, 35)


def test_only_selected_positive_scores_and_values_get_a_gradient():
    layer = stirred(linear(48, 64, n=8, m=16, k=5, alpha=2.0))
    scores, values = layer.block_sparse_scores["default"], layer.block_sparse_values["default"]
    positions = layer.block_sparse_positions["default"].tolist()
    with torch.no_grad():
        scores.view(-1)[positions[3]] = -0.5
    x, wanted = torch.randn(7, 64), torch.randn(7, 48)
    (layer(x) * wanted).sum().backward()
    assert scores.grad is not None
    outer = wanted.T @ x  # what the gradient of a dense weight would be
    for slot, position in enumerate(positions):
        top, left = position // 16 * 6, position % 16 * 4
        block = outer[top : top + 6, left : left + 4]
        score = max(0.0, float(scores.detach().flatten()[position]))
        assert torch.allclose(values.grad[slot], 2.0 * score * block, rtol=1e-4, atol=1e-4)
        slope = 2.0 * float((values.detach()[slot] * block).sum()) if score else 0.0
        assert float(scores.grad.flatten()[position]) == pytest.approx(slope, rel=1e-4, abs=1e-4)
    others = [place for place in range(8 * 16) if place not in positions]
    assert not scores.grad.flatten()[others].any()
    assert [name for name, weight in layer.named_parameters() if weight.grad is not None] == [
        "block_sparse_scores.default", "block_sparse_values.default",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_start_is_the_base(name):
    model, _ = small_model(name)
    assert torch.equal(logits(model), logits(plain_model(name)))
    assert {type(layer.get_base_layer()) for layer in layers(model).values()} == {Conv1D if name == "gpt2" else nn.Linear}


class Resets:
    """Takes note of what a hook makes the optimiser forget."""

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = {}

    def __call__(self, name: str, index: torch.Tensor) -> None:
        assert name not in self.found
        self.found[name] = index.tolist()


def test_a_block_enters_when_a_selected_score_sinks_below_an_unselected_one():
    model, hooks = small_model()
    name, layer = next(iter(layers(model).items()))
    scores, positions = layer.block_sparse_scores["default"].data.view(-1), layer.block_sparse_positions["default"]
    values, before = stirred(layer).block_sparse_values["default"].detach(), positions.tolist()
    order = scores.argsort(descending=True)
    first_out, weakest = int(order[16]), int(order[15])
    scores[before[2]] += 5.0  # a score that overtakes others moves no block
    resets = Resets()
    hooks.after_update(1, resets)
    assert (positions.tolist(), resets.found) == (before, {})
    scores[weakest] = scores[first_out] - 1e-3
    kept = values.clone()
    hooks.after_update(2, resets)
    slot = before.index(weakest)
    assert positions.tolist() == [*before[:slot], first_out, *before[slot + 1 :]], "the other slots keep their blocks"
    assert not values[slot].any()
    assert torch.equal(values[torch.arange(16) != slot], kept[torch.arange(16) != slot])
    size = values[0].numel()
    assert resets.found == {
        f"{name}.block_sparse_values.default": list(range(slot * size, (slot + 1) * size)),
        f"{name}.block_sparse_scores.default": [weakest],
    }
    (first, *rest) = hooks.observe()["modules"]
    assert first["replaced"] == 0.0625
    assert not any(module["replaced"] for module in rest)


def trainer(tmp_path, steps, **changes):
    model, hooks = small_model()
    return make_trainer(model, make_rows(), tmp_path, short(SPEC, steps), hooks=hooks, learning_rate=3e-2, **changes)


def positions_of(model: Any) -> list[torch.Tensor]:
    return [layer.block_sparse_positions["default"].clone() for layer in layers(model).values()]


def test_training_swaps_blocks_and_unselected_scores_rest(tmp_path):
    """Weight decay would shrink every score; momentum would move those that have left."""
    model, hooks = small_model()
    start = {name: (layer.block_sparse_scores["default"].detach().clone(), positions) for (name, layer), positions in
             zip(layers(model).items(), positions_of(model), strict=True)}  # fmt: skip
    spec = short(replace(SPEC, weight_decay=0.5), 16)
    run, events = make_trainer(model, make_rows(), tmp_path, spec, hooks=hooks, learning_rate=3e-2)
    seen = {name: set(positions.tolist()) for name, (_, positions) in start.items()}
    update = hooks.after_update

    def watched(step, reset):
        update(step, reset)
        for name, layer in layers(model).items():
            seen[name] |= set(layer.block_sparse_positions["default"].tolist())

    hooks.after_update = watched
    run.run()
    assert losses(events)[-1] < losses(events)[0] - 0.3
    swapped = 0
    for name, layer in layers(model).items():
        scores, positions = layer.block_sparse_scores["default"].detach().flatten(), layer.block_sparse_positions["default"]
        assert set(positions.tolist()) == set(scores.topk(16).indices.tolist())
        never = [place for place in range(64) if place not in seen[name]]
        assert never
        assert torch.equal(scores[never], start[name][0].flatten()[never])
        swapped += int((positions != start[name][1]).sum())
    assert swapped > 3
    (last,) = [event for event in events if event["kind"] == "method" and event["step"] == 16]
    assert sum(module["replaced"] * 16 for module in last["modules"]) == pytest.approx(swapped, rel=0.02)


def test_a_resumed_run_with_swaps_is_the_same_to_the_bit(tmp_path):
    def fresh(name, **changes):
        return trainer(tmp_path / name, 14, **changes)

    straight, events = fresh("straight")
    at_start = positions_of(straight.forward.model)
    straight.run()
    first, first_events = fresh("first", stop=lambda: first.progress.step >= 7)
    with pytest.raises(GraftError, match="after step 7"):
        first.run()
    at_stop, at_end = positions_of(first.forward.model), positions_of(straight.forward.model)
    assert any(not torch.equal(one, other) for one, other in zip(at_start, at_stop, strict=True)), "blocks have moved before"
    assert any(not torch.equal(one, other) for one, other in zip(at_stop, at_end, strict=True)), "and do after"
    second, second_events = fresh("second")
    second.restore(checkpoint.newest([tmp_path / "first"]))
    second.run()
    assert losses(first_events) + losses(second_events) == losses(events)
    assert all(torch.equal(weight, second.parameters[name]) for name, weight in straight.parameters.items())
    assert all(torch.equal(one, other) for one, other in zip(at_end, positions_of(second.forward.model), strict=True))
    ends = [[event for event in each if event["kind"] == "method"][-1] for each in (events, second_events)]
    assert ends[0] == ends[1], "what was replaced since the start is known after a resume"


def test_what_is_saved_is_what_was_trained(tmp_path):
    """With the blocks as they are, also where scores would select others."""
    run, _ = trainer(tmp_path, 6)
    run.run()
    model = run.forward.model
    layer = next(iter(layers(model).values()))
    layer.block_sparse_scores["default"].data.view(-1)[int(layer.block_sparse_positions["default"][0])] = 1e-3
    run.hooks.save(tmp_path / "adapter")
    for frugal in (False, True):
        again = PeftModel.from_pretrained(plain_model(), tmp_path / "adapter", low_cpu_mem_usage=frugal)
        assert torch.equal(logits(again), logits(model))
        assert all(torch.equal(one, other) for one, other in zip(positions_of(again), positions_of(model), strict=True))
    assert float((logits(model) - logits(plain_model())).abs().max()) > 0.1


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_merged_is_unmerged(name):
    model, _ = small_model(name)
    for layer in layers(model).values():
        stirred(layer)
    wanted, base = logits(model), logits(plain_model(name))
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    model.merge_adapter()
    assert torch.allclose(logits(model), wanted, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    assert torch.allclose(logits(model), wanted, rtol=1e-4, atol=1e-4)
    plain = model.merge_and_unload()
    assert torch.allclose(logits(plain), wanted, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, BaseTunerLayer) for module in plain.modules())
    assert float((wanted - base).abs().max()) > 1


def test_merging_what_is_not_finite_is_refused():
    layer = stirred(linear(48, 64, n=8, m=16, k=5))
    before = layer.base_layer.weight.detach().clone()
    layer.block_sparse_values["default"].data[1, 2, 3] = math.inf
    with pytest.raises(ValueError, match="not finite"):
        layer.merge(safe_merge=True)
    assert torch.equal(layer.base_layer.weight, before)
    assert not layer.merged


@pytest.mark.parametrize("bits", [8, 4])
def test_it_trains_over_a_quantised_base(bits, tmp_path):
    base = load_model(make_tiny_model(tmp_path / "base"), precision="float32", trains_base=False, bits=bits)
    stored = {name: weight.detach().clone() for name, weight in base.named_parameters()}
    untouched = logits(base)
    model = apply_method(METHOD, base, SMALL, Setup(seed=0))
    assert torch.equal(logits(model), untouched)
    run, events = make_trainer(
        model, make_rows(), tmp_path, short(SPEC, 10), hooks=make_hooks(METHOD, model, SMALL, Setup(seed=0)), learning_rate=1e-2
    )
    run.run()
    assert losses(events)[-1] < losses(events)[0] - 0.3
    now = dict(model.named_parameters())
    for name, weight in stored.items():
        kept = now.get(f"base_model.model.{name}", now.get(f"base_model.model.{name.removesuffix('.weight')}.base_layer.weight"))
        assert torch.equal(kept, weight), name


def test_an_event_holds_the_grid_in_little_room(tmp_path):
    """The shape of SmolLM2-135M: 30 layers of 7 modules, at the defaults; layers themselves are smaller."""
    model = nn.Module()
    names = [f"{block}.{leaf}" for block, leaves in (("self_attn", "qkvo"), ("mlp", ("gate", "up", "down"))) for leaf in leaves]
    for number in range(30):
        for name in names:
            path = f"base_model.model.model.layers.{number}.{name}_proj"
            parent = model
            for part in path.split(".")[:-1]:
                parent.add_module(part, getattr(parent, part, nn.Module()))
                parent = getattr(parent, part)
            layer = linear(48, 64, n=24, m=32, k=15)
            layer.block_sparse_scores["default"].data += number / 100
            setattr(parent, path.rpartition(".")[2], layer)
    seen = Selection(model, {}, Setup(seed=0)).observe()
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.emit("method", step=10, **seen)
    writer.close()
    assert (tmp_path / "events.jsonl").stat().st_size < 60_000
    assert (len(seen["modules"]), seen["name"]) == (210, "block_scores")
    module = seen["modules"][8]
    assert (module["layer"], module["module"], module["n"], module["m"], module["k"], module["replaced"]) == (
        1,
        "self_attn.k_proj",
        24,
        32,
        15,
        0,
    )
    layer = model.get_submodule("base_model.model.model.layers.1.self_attn.k_proj")
    scores = layer.block_sparse_scores["default"].detach().flatten()
    assert sorted(module["positions"]) == layer.block_sparse_positions["default"].tolist()
    assert module["scores"] == [float(f"{float(scores[position]):.3g}") for position in module["positions"]]
    assert module["scores"] == sorted(module["scores"], reverse=True)
    assert module["mean"] == pytest.approx(sum(module["scores"]) / 15, abs=0.01)


def test_of_very_many_blocks_an_event_shows_the_best(monkeypatch):
    monkeypatch.setattr(selection, "SHOWN_BLOCKS", 70)
    _, hooks = small_model()
    whole = Selection(hooks.model, {}, Setup(seed=0)).observe()["modules"]
    assert len(whole) == 14
    for module in whole:
        assert (module["k"], len(module["positions"]), len(module["scores"])) == (16, 5, 5)
        assert min(module["scores"]) > module["mean"]
