"""Arithmetic, time, and what past runs teach."""

from dataclasses import replace

import pytest

from jobs.planning.batches import BatchShape
from jobs.planning.calibration import Calibration, Rates
from jobs.planning.shape import read_shape
from jobs.planning.speed import PastRun, predict, refine, step_seconds, work_of
from jobs.planning.tensors import Step
from jobs.planning.way import choose_way
from jobs.spec import DataSpec, MethodSpec, ModelSpec, RunSpec, TrainingSpec
from tests.jobs.planning.test_shape import CPU
from tests.tiny import VOCABULARY, make_tiny_model

BATCH = BatchShape(rows=4, tokens=200, computed=200, labels=50, squares=10_000, longest=50)
RATES = Rates(forward=1e9, backward=1e9, gradient=1e9, packed=2e9, head=1e9, attention=1e9)
DEVICE = Calibration("", {"float32": RATES, "bfloat16": RATES}, bandwidth=1e10, call_seconds=0.0, runtime_bytes=0, probe_seconds=0)


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    return read_shape(make_tiny_model(tmp_path_factory.mktemp("speed") / "m"))


def step(shape, method, **training):
    spec = RunSpec(ModelSpec("m"), DataSpec("rows"), method=MethodSpec(method), training=TrainingSpec(precision="float32", **training))
    return Step(shape, choose_way(spec, CPU, shape), BATCH)


def test_work_is_counted_by_hand(shape):
    layers, head = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128), VOCABULARY * 64
    work = work_of(step(shape, "full"))
    assert (work.forward, work.backward, work.gradient) == (400 * layers,) * 3
    assert work.head == 6 * 50 * head
    assert work.attention == 6 * 2 * 64 * 10_000 * 2
    lora = work_of(step(shape, "lora"))
    assert lora.gradient < 0.5 * lora.forward
    assert lora.head == 4 * 50 * head


def test_checkpointing_computes_the_layers_once_more(shape):
    plain, again = work_of(step(shape, "lora")), work_of(step(shape, "lora", gradient_checkpointing=True))
    assert again.forward == 2 * plain.forward
    assert (again.backward, again.head) == (plain.backward, plain.head)


def test_time_follows_the_rates(shape):
    slow = step(shape, "full")
    fast = replace(DEVICE, rates={"float32": Rates(*[1e15] * 6), "bfloat16": RATES}, bandwidth=1e15)
    assert step_seconds(slow, DEVICE) > work_of(slow).total / 1e9
    assert step_seconds(slow, fast) < 1e-3 * step_seconds(slow, DEVICE)
    accumulated = step(shape, "full", gradient_accumulation=4)
    assert predict(accumulated, DEVICE) >= predict(step(shape, "full", gradient_accumulation=1), DEVICE)


def test_past_runs_correct_the_prediction_and_set_the_range(shape):
    way = step(shape, "lora").way
    runs = [PastRun(CPU["name"], "lora", "float32", 100, measured) for measured in (80, 90, 110)]
    found = refine(200, way, runs)
    assert (found.tokens_per_second, found.low, found.high) == (180, 160, pytest.approx(220))
    assert "3 measured runs" in found.basis


def test_runs_of_another_device_method_or_precision_teach_nothing(shape):
    way = step(shape, "lora").way
    others = [
        PastRun("a GPU", "lora", "float32", 1, 9),
        PastRun(CPU["name"], "full", "float32", 1, 9),
        PastRun(CPU["name"], "lora", "bfloat16", 1, 9),
    ]
    found = refine(200, way, others)
    assert (found.tokens_per_second, found.low, found.high) == (200, 120, 250)
    assert "no run" in found.basis


def test_one_past_run_moves_the_middle_and_leaves_the_range_wide(shape):
    found = refine(100, step(shape, "lora").way, [PastRun(CPU["name"], "lora", "float32", 100, 50)])
    assert (found.tokens_per_second, found.low, found.high) == (50, 30, 62.5)
