"""A training that goes on from its checkpoint in smaller micro-batches: the same rows, the same steps, the same losses but for rounding."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jobs.errors import UserError
from jobs.spec import DataSpec, ModelSpec, RunSpec, TrainingSpec
from jobs.training import checkpoint
from jobs.training.fingerprint import BATCHES, fingerprint
from jobs.training.order import Order, TokenBudget
from tests.jobs.training.reference import losses, make_model, make_rows, make_trainer, short

ROWS = make_rows()
LENGTHS = [len(row.ids) for row in ROWS]


def spec_of(training: TrainingSpec) -> RunSpec:
    return RunSpec(ModelSpec("model"), DataSpec("rows.jsonl"), training=training)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"micro_batch": 8, "gradient_accumulation": 1}, {"micro_batch": 4, "gradient_accumulation": 2}),
        ({"micro_batch": 3, "gradient_accumulation": 2}, {"micro_batch": 1, "gradient_accumulation": 6}),
        (
            {"micro_batch": 8, "gradient_accumulation": 1, "micro_batch_tokens": 128},
            {"micro_batch": 8, "gradient_accumulation": 1, "micro_batch_tokens": 64},
        ),
    ],
)
def test_it_goes_on_with_the_same_steps(before, after, tmp_path):
    large = short(TrainingSpec(precision="float32", checkpoint_every_steps=3, **before), 9)
    small = replace(large, **after)
    straight, told = make_trainer(make_model("llama", "lora"), ROWS, tmp_path / "straight", large)
    straight.run()
    marks = [fingerprint(spec_of(training), ROWS, []) for training in (large, small)]
    first, began = make_trainer(make_model("llama", "lora"), ROWS, tmp_path / "1", large, fingerprint=marks[0])
    first.stop = lambda: len(losses(began)) >= 4
    with pytest.raises(Exception, match="after step 4"):
        first.run()
    second, went_on = make_trainer(make_model("llama", "lora"), ROWS, tmp_path / "2", small, fingerprint=marks[1])
    second.restore(checkpoint.newest([tmp_path / "1"]))
    assert second.progress.step == 4
    second.run()
    curve = losses(began) + losses(went_on)
    assert curve[:4] == losses(told)[:4]
    assert curve[4:] == pytest.approx(losses(told)[4:], rel=2e-5)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("tokens", [None, 40, 20])
def test_each_step_has_the_same_rows_in_the_same_order(size, tokens):
    budget = TokenBudget(tokens, LENGTHS) if tokens else None
    whole = Order(len(ROWS), 8, 1, 3).micro_batches(0, 9)
    parts = Order(len(ROWS), size, 8 // size, 3, budget).micro_batches(0, 9)
    for expected, found in zip(whole, parts, strict=True):
        assert [row for micro in found for row in micro] == expected[0]
        assert all(len(micro) <= size for micro in found) if not tokens else len(found) > 1


def test_a_checkpoint_from_before_goes_by_the_rows_of_its_steps(tmp_path: Path):
    training = TrainingSpec(micro_batch=8, gradient_accumulation=2)
    today = fingerprint(spec_of(training), ROWS, [])
    old = {**today, "training": {**today["training"], **{name: asdict(training)[name] for name in BATCHES}}}
    del old["effective_batch"]
    state = json.loads(json.dumps({"fingerprint": old}))
    checkpoint.require_same_run(tmp_path, state, fingerprint(spec_of(replace(training, micro_batch=4, gradient_accumulation=4)), ROWS, []))
    for other in ({"micro_batch": 4}, {"gradient_accumulation": 4}):
        with pytest.raises(UserError, match="not the same effective_batch"):
            checkpoint.require_same_run(tmp_path, state, fingerprint(spec_of(replace(training, **other)), ROWS, []))
