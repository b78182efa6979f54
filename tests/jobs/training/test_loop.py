"""Resume to the bit, stop on request, stop when the numbers go wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from jobs.errors import GraftError, UserError
from jobs.spec import TrainingSpec
from jobs.training import checkpoint, loop
from tests.jobs.training.reference import losses, make_model, make_rows, make_trainer, short, templated_rows

# 22 rows in steps of 8 or 4: the border of the first epoch is after step 3 (accumulation 2) or 6 (accumulation 1).
SPEC = TrainingSpec(micro_batch=4, gradient_accumulation=2, weight_decay=0.01)


@pytest.mark.parametrize(("accumulation", "stop_after"), [(1, 4), (1, 6), (2, 2), (2, 3), (2, 5)])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_resumed_run_is_the_same_to_the_bit(accumulation, stop_after, method, tmp_path):
    spec = short(replace(SPEC, gradient_accumulation=accumulation), 9)
    rows = make_rows()

    def fresh(name, **changes):
        return make_trainer(make_model("llama", method, dropout=0.1), rows, tmp_path / name, spec, **changes)

    straight, events = fresh("straight")
    straight.run()
    first, first_events = fresh("first", stop=lambda: first.progress.step >= stop_after)
    with pytest.raises(GraftError) as stopped:
        first.run()
    assert stopped.value.code == "preempted"
    second, second_events = fresh("second")
    second.restore(checkpoint.newest([tmp_path / "first"]))
    assert second.progress.step == stop_after
    second.run()
    assert losses(first_events) + losses(second_events) == losses(events)
    for name, parameter in straight.parameters.items():
        assert torch.equal(parameter, second.parameters[name])
    assert second.progress.tokens == straight.progress.tokens


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("budget", [None, 64])
@pytest.mark.parametrize("stop_after", [2, 4])
def test_a_run_with_all_fast_ways_resumes_to_the_bit(method, budget, stop_after, tmp_path):
    """Rows that share templates, in micro-batches by number or by tokens, stopped in the first epoch or in the second."""
    spec, rows = short(replace(SPEC, micro_batch_tokens=budget), 6), templated_rows()

    def fresh(name, **changes):
        return make_trainer(make_model("llama", method), rows, tmp_path / name, spec, **changes)

    straight, events = fresh("straight")
    forward = straight.forward
    assert forward.packs and forward.grids and forward.shares_prefix and forward.own_head and forward.elementwise  # noqa: PT018
    assert (forward.lora is not None) == (method == "lora")
    straight.run()
    again, again_events = fresh("again")
    again.run()
    assert losses(again_events) == losses(events), "the same spec, data and seed give the same curve"
    first, first_events = fresh("first", stop=lambda: first.progress.step >= stop_after)
    with pytest.raises(GraftError, match="step"):
        first.run()
    second, second_events = fresh("second")
    second.restore(checkpoint.newest([tmp_path / "first"]))
    second.run()
    assert losses(first_events) + losses(second_events) == losses(events)
    assert len(set(losses(events))) == 6
    for name, parameter in straight.parameters.items():
        assert torch.equal(parameter, second.parameters[name])


def test_dropout_is_on_while_training(tmp_path):
    rows, spec = make_rows(), short(SPEC, 3)
    found = []
    for dropout in (0.0, 0.5):
        trainer, events = make_trainer(make_model("llama", "lora", dropout=dropout), rows, tmp_path / str(dropout), spec)
        trainer.run()
        found.append(losses(events))
    assert found[0][0] == found[1][0], "B is zero at first, so dropout on the adapter changes nothing yet"
    assert found[0][1:] != found[1][1:]


def test_three_steps_without_finite_numbers_stop_the_run(tmp_path):
    """The gradient of one row is made infinite from step 4 on; nothing is updated from there, and the checkpoint before it stays."""
    model = make_model("llama")
    spec = short(replace(SPEC, checkpoint_every_steps=2), 9)
    trainer, events = make_trainer(model, make_rows(), tmp_path, spec)
    before: dict[str, torch.Tensor] = {}

    def poison(module, gradients, _outputs):
        if trainer.progress.step >= 3:
            before.setdefault("weight", module.weight.detach().clone())
            return tuple(None if gradient is None else gradient * math.inf for gradient in gradients)
        return gradients

    model.model.norm.register_full_backward_hook(poison)
    with pytest.raises(GraftError) as stopped:
        trainer.run()
    assert (stopped.value.code, int(stopped.value.exit_code)) == ("nonfinite", 79)
    steps = [event for event in events if event["kind"] == "step"]
    assert [math.isfinite(event["gradient_norm"]) for event in steps] == [True] * 3 + [False] * 3
    assert torch.equal(before["weight"], model.model.norm.weight)
    assert checkpoint.newest([tmp_path]).name == "step-00000002"


def test_a_single_bad_step_is_passed_over(tmp_path):
    model = make_model("llama")
    trainer, events = make_trainer(model, make_rows(), tmp_path, short(SPEC, 6))

    def poison(_module, gradients, _outputs):
        bad = trainer.progress.step == 2
        return tuple(gradient * math.nan if bad and gradient is not None else gradient for gradient in gradients)

    model.model.norm.register_full_backward_hook(poison)
    trainer.run()
    norms = [event["gradient_norm"] for event in events if event["kind"] == "step"]
    assert [math.isfinite(norm) for norm in norms] == [True, True, False, True, True, True]
    assert all(bool(torch.isfinite(parameter).all()) for parameter in trainer.parameters.values())


def test_validation_marks_the_best_checkpoint(tmp_path):
    rows = make_rows(40)
    spec = short(replace(SPEC, evaluate_every_steps=2, checkpoint_every_steps=2), 6)
    trainer, events = make_trainer(make_model("llama"), rows[:22], tmp_path, spec, validation=rows[22:])
    trainer.run()
    evaluations = [event for event in events if event["kind"] == "eval"]
    assert [event["step"] for event in evaluations] == [2, 4, 6]
    assert all(event["perplexity"] == pytest.approx(math.exp(event["loss"])) for event in evaluations)
    lowest = [event["loss"] == min(e["loss"] for e in evaluations[: place + 1]) for place, event in enumerate(evaluations)]
    assert [event["best"] for event in events if event["kind"] == "checkpoint"] == lowest


def test_events_hold_what_the_contract_names(tmp_path):
    trainer, events = make_trainer(make_model("llama"), make_rows(), tmp_path, short(SPEC, 4))
    trainer.run()
    steps = [event for event in events if event["kind"] == "step"]
    names = "step epoch loss learning_rate gradient_norm tokens tokens_per_second elapsed_seconds eta_seconds memory"
    assert all(set(event) == {"kind", *names.split()} for event in steps)
    assert [event["step"] for event in steps] == [1, 2, 3, 4]
    assert steps[2]["epoch"] == pytest.approx(1.0)
    assert steps[-1]["eta_seconds"] == 0
    assert steps[2]["tokens"] == sum(len(row.ids) for row in make_rows())
    assert steps[0]["memory"]["resident_bytes"] > 10**8
    json.dumps(events)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    trainer, _ = make_trainer(make_model("llama"), make_rows(), tmp_path, short(SPEC, 2))
    trainer.run()
    other, _ = make_trainer(make_model("llama"), make_rows(), tmp_path / "other", short(SPEC, 2), fingerprint={"seed": 4})
    with pytest.raises(UserError, match="not the same seed"):
        other.restore(checkpoint.newest([tmp_path]))
    assert other.progress.step == 0


def test_what_was_freed_goes_back_before_the_first_step(tmp_path, monkeypatch):
    trainer, events = make_trainer(make_model("llama", "lora"), make_rows(), tmp_path, short(TrainingSpec(), 2))
    monkeypatch.setattr(loop, "give_back_freed", lambda: events.append({"kind": "given back"}))
    trainer.run()
    assert [event["kind"] for event in events if event["kind"] in ("given back", "step")] == ["given back", "step", "step"]
