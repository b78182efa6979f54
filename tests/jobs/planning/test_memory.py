"""Memory by part, held against what torch and the engine really hold."""

from dataclasses import replace

import pytest
import torch

from jobs.planning import estimate as planned
from jobs.planning.advice import advise
from jobs.planning.batches import BatchShape, RowLengths
from jobs.planning.memory import training_moments
from jobs.planning.passing import tile_rows
from jobs.planning.shape import read_shape
from jobs.planning.tensors import Step
from jobs.planning.way import choose_way
from jobs.planning.weights import gradient_bytes, optimiser_bytes, packed_weight_bytes, weight_bytes
from jobs.spec import DataSpec, EngineSpec, EvaluationSpec, MethodSpec, ModelSpec, RunSpec, TrainingSpec
from jobs.training.cross_entropy import tile_rows as real_tile_rows
from tests.jobs.planning.test_shape import CPU
from tests.tiny import make_tiny_model, tiny_config

BATCH = BatchShape(rows=4, tokens=400, computed=400, labels=200, squares=40_000, longest=100)
LENGTHS = RowLengths.of([100], rows=64)


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    config = tiny_config(hidden_size=128, intermediate_size=256, num_hidden_layers=3)
    return read_shape(make_tiny_model(tmp_path_factory.mktemp("memory") / "m", config=config))


def spec_of(method="lora", **training):
    return RunSpec(ModelSpec("m"), DataSpec("rows"), method=MethodSpec(method), training=TrainingSpec(precision="bfloat16", **training))


def peak(shape, spec):
    moments = training_moments(Step(shape, choose_way(spec, CPU, shape), BATCH))
    return max(sum(parts.values()) for parts in moments.values())


@pytest.mark.parametrize("vocabulary", [258, 49_152, 262_144, 3_000_000])
def test_the_tile_is_the_engines(vocabulary):
    assert tile_rows(vocabulary) == real_tile_rows(vocabulary)


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_the_optimisers_state_is_what_torch_keeps(kind, shape):
    weights = [torch.nn.Parameter(torch.rand(size)) for size in shape.tensors.values()]
    optimiser = {"adamw": torch.optim.AdamW, "adafactor": torch.optim.Adafactor}[kind](weights)
    for weight in weights:
        weight.grad = torch.rand_like(weight)
    optimiser.step()
    kept = sum(value.nbytes for state in optimiser.state.values() for name, value in state.items() if name != "step")
    assert optimiser_bytes(shape, choose_way(spec_of("full", optimiser=kind), CPU, shape)) == kept


def test_the_8_bit_state_is_what_bitsandbytes_keeps(shape):
    import bitsandbytes

    weights = [torch.nn.Parameter(torch.rand(size)) for size in shape.tensors.values()]
    optimiser = bitsandbytes.optim.AdamW8bit(weights)
    for weight in weights:
        weight.grad = torch.rand_like(weight)
    optimiser.step()
    kept = sum(
        state[key].nbytes for state in optimiser.state.values() for key in ("state1", "state2", "absmax1", "absmax2") if key in state
    )
    assert optimiser_bytes(shape, choose_way(spec_of("full", optimiser="adamw_8bit"), CPU, shape)) == kept


def test_pages_are_in_host_memory_on_a_gpu_and_do_not_exist_on_a_cpu(shape):
    gpu = {**CPU, "kind": "cuda"}
    paged, plain = spec_of("full", optimiser="paged_adamw"), spec_of("full")
    assert optimiser_bytes(shape, choose_way(paged, gpu, shape)) == 0
    assert optimiser_bytes(shape, choose_way(paged, CPU, shape)) == optimiser_bytes(shape, choose_way(plain, CPU, shape)) > 0


def test_weights_and_gradients_follow_the_method(shape):
    ways = {method: choose_way(spec_of(method), CPU, shape) for method in ("full", "lora", "qlora")}
    sizes = {method: weight_bytes(shape, way) for method, way in ways.items()}
    assert (sizes["full"], sizes["lora"]) == (4 * shape.total_parameters, 2 * shape.total_parameters)
    assert sizes["qlora"] < sizes["lora"]
    assert gradient_bytes(shape, ways["full"]) == 4 * shape.total_parameters
    assert gradient_bytes(shape, ways["qlora"]) == gradient_bytes(shape, ways["lora"]) < gradient_bytes(shape, ways["full"]) / 4


def test_packed_weights_are_two_copies_and_only_in_float32(shape):
    wide = choose_way(replace(spec_of(), training=TrainingSpec(precision="float32")), CPU, shape)
    assert packed_weight_bytes(wide) == 2 * 4 * sum(linear.numbers for linear in shape.linears)
    assert packed_weight_bytes(choose_way(spec_of(), CPU, shape)) == 0
    assert packed_weight_bytes(replace(wide, engine=EngineSpec(packed_weights=False))) == 0


def test_what_saves_memory_is_seen_to(shape):
    for method in ("full", "lora", "qlora"):
        assert peak(shape, spec_of(method, gradient_checkpointing=True)) < peak(shape, spec_of(method))
    assert peak(shape, spec_of("qlora")) < peak(shape, spec_of("lora")) < peak(shape, spec_of("full"))


def test_a_run_that_fits_gets_no_advice(shape):
    found = planned.estimate(spec_of(), CPU, shape, LENGTHS)
    assert found.fits
    assert (found.advice, found.speed, found.steps) == ((), None, 12)
    assert found.memory.peak == max(found.memory.phases.values()) + planned.UNMEASURED_RUNTIME["cpu"]
    assert found.to_json()["memory"]["peak"] == found.memory.peak


def test_a_run_that_does_not_fit_gets_advice_by_effect(shape, monkeypatch):
    monkeypatch.setitem(planned.UNMEASURED_RUNTIME, "cpu", 0)
    small = {**CPU, "memory_bytes": 10_000_000}
    # of training: generating answers in batches would need more in so small a model
    spec = replace(spec_of("full", micro_batch=16), evaluation=EvaluationSpec(generate=False, retention=False))
    found = planned.estimate(spec, small, shape, LENGTHS)
    assert found.memory.peak_phase == "training"
    assert not found.fits
    saved = [advice.saves_bytes for advice in found.advice]
    assert saved == sorted(saved, reverse=True)
    assert all(size > 0 for size in saved)
    words = " ".join(advice.change for advice in found.advice)
    for change in ("micro-batch to 8", "gradient checkpointing", "lora in place of full", "adamw_8bit"):
        assert change in words
    assert "packed_weights" not in words  # saves nothing here, so it is no advice


def test_what_a_method_does_not_bear_is_no_advice(shape):
    """Only changes that a way can be chosen for are offered; each of them is taken to save everything."""

    def peak_of(changed):
        choose_way(changed, CPU, shape)
        return 0

    words = {method: " ".join(each.change for each in advise(spec_of(method), 1, 1, peak_of)) for method in ("lora", "prefix_tuning")}
    assert {method: "gradient checkpointing" in changes for method, changes in words.items()} == {"lora": True, "prefix_tuning": False}
    assert "8-bit optimiser" in words["prefix_tuning"]
