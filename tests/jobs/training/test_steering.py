"""What steers a run besides its steps: token budgets, early stopping, the best weights, float16, batches made ahead."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from jobs.errors import GraftError, UserError
from jobs.spec import EngineSpec, TrainingSpec
from jobs.training import checkpoint
from jobs.training.loss import dataset_loss
from jobs.training.order import Order, TokenBudget
from jobs.training.prefetch import AHEAD, prefetched
from tests.jobs.training.reference import losses, make_model, make_rows, make_trainer, short
from tests.threads import single_threaded

SPEC = TrainingSpec(micro_batch=4, gradient_accumulation=2)
STEERED = replace(SPEC, evaluate_every_steps=2, final_weights="best", early_stopping_evaluations=3, schedule="constant")
# Random continuations of 22 rows: learnt by heart within a few steps, which no other row gains by.
RATE = 2e-2


def of(kind, events):
    return [event for event in events if event["kind"] == kind]


def messages(events):
    return [event["message"] for event in of("log", events)]


# -- token budgets -----------------------------------------------------------------------------------------------------


def test_a_budget_cuts_rows_in_order_and_leaves_a_long_one_alone():
    lengths = [5, 5, 6, 20, 4, 4, 2, 9]
    assert TokenBudget(16, lengths).cut(range(8)) == [[0, 1, 2], [3], [4, 5, 6], [7]]
    assert TokenBudget(16, lengths, padded=True).cut(range(8)) == [[0, 1], [2], [3], [4, 5, 6], [7]]
    assert TokenBudget(16, lengths).cut([3]) == [[3]]


def test_with_a_budget_each_step_has_the_same_rows():
    lengths = [len(row.ids) for row in make_rows()]
    by_rows = Order(22, 4, 2, seed=5)
    by_tokens = replace(by_rows, budget=TokenBudget(48, lengths))
    steps = list(by_tokens.micro_batches(0, 7))
    flat = [[[row for micro in step for row in micro] for step in each] for each in (steps, by_rows.micro_batches(0, 7))]
    assert flat[0] == flat[1]
    assert all(sum(lengths[row] for row in micro) <= 48 for step in steps for micro in step)
    assert max(len(step) for step in steps) > 2
    assert list(by_tokens.micro_batches(4, 7)) == steps[4:]


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_with_a_budget_the_losses_are_those_of_rows(batching, tmp_path):
    found = []
    for tokens in (None, 40):
        spec = short(replace(SPEC, micro_batch_tokens=tokens, batching=batching), 6)
        trainer, events = make_trainer(make_model("llama"), make_rows(), tmp_path / str(tokens), spec)
        trainer.run()
        found.append(losses(events))
    assert found[0] == pytest.approx(found[1], abs=1e-6)


# -- early stopping and the best weights -------------------------------------------------------------------------------


def steered(out, spec=STEERED, **changes):
    rows = make_rows(40)
    values = {"validation": rows[22:], "learning_rate": RATE, **changes}
    return make_trainer(make_model("llama"), rows[:22], out, short(spec, 40), **values)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that stops early and goes on with its best weights, never interrupted."""
    with single_threaded():
        trainer, events = steered(tmp_path_factory.mktemp("straight"))
        trainer.run()
    return trainer, events


def test_it_stops_once_the_validation_loss_no_longer_falls(straight):
    trainer, events = straight
    measured = [(event["step"], event["loss"]) for event in of("eval", events)]
    best = min(measured, key=lambda pair: pair[1])
    assert trainer.progress.step == measured[-1][0] == best[0] + 3 * 2 < trainer.total_steps
    assert (trainer.progress.best_step, trainer.progress.best_loss) == best
    assert f"Stopped after step {trainer.progress.step}: the validation loss has not fallen for 3 evaluations." in messages(events)
    assert len(losses(events)) == trainer.progress.step


def test_the_best_weights_are_kept_and_that_is_said(straight):
    trainer, events = straight
    best = trainer.progress.best_step
    assert trainer.kept_step == best
    assert f"The weights of step {best} are kept" in messages(events)[-1]
    saved = checkpoint.of_step([trainer.out], best)
    assert checkpoint.read_state(saved)["best"]
    weights = checkpoint.read_weights(saved)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in trainer.parameters.items())
    assert dataset_loss(trainer.forward, trainer.validation).loss == trainer.progress.best_loss
    last = checkpoint.read_weights(checkpoint.newest([trainer.out]))
    assert not all(torch.equal(last[name], weights[name]) for name in weights), "the last step's are another checkpoint"


def test_a_checkpoint_is_written_at_each_new_lowest_loss(straight):
    trainer, events = straight
    evaluations = of("eval", events)
    lowest = [event["step"] for place, event in enumerate(evaluations) if event["loss"] == min(e["loss"] for e in evaluations[: place + 1])]
    assert [event["step"] for event in of("checkpoint", events) if event["best"]] == lowest
    assert {event["step"] for event in of("checkpoint", events)} == {*lowest, trainer.progress.step}


@pytest.mark.parametrize("when", ["before the best", "between the best and the end", "at the end"])
def test_stopped_and_resumed_it_comes_to_the_same(when, straight, tmp_path):
    """The best checkpoint may lie in the folder of an earlier attempt."""
    reference, events = straight
    best, end = reference.progress.best_step, reference.progress.step
    if when == "at the end":
        first = reference
        first_events = events
    else:
        stop_after = best - 1 if when == "before the best" else best + 3
        first, first_events = steered(tmp_path / "first", stop=lambda: first.progress.step >= stop_after)
        with pytest.raises(GraftError, match=f"after step {stop_after}"):
            first.run()
    second, second_events = steered(tmp_path / "second")
    second.restore(checkpoint.newest([first.out]), [first.out])
    second.run()
    assert losses(first_events) + losses(second_events) == losses(events)
    assert (second.progress.step, second.kept_step, second.progress.best_loss) == (end, best, reference.progress.best_loss)
    assert all(torch.equal(parameter, second.parameters[name]) for name, parameter in reference.parameters.items())
    assert messages(second_events) == messages(events)


def test_a_lost_best_checkpoint_is_said_and_the_last_weights_stay(straight, tmp_path):
    reference, _ = straight
    second, events = steered(tmp_path)
    second.restore(checkpoint.newest([reference.out]))
    second.run()
    (warning,) = of("warning", events)
    assert warning["code"] == "best_weights_lost"
    assert f"of step {reference.progress.best_step}" in warning["message"]
    assert second.kept_step == second.progress.step


@pytest.mark.parametrize("changes", [{"early_stopping_evaluations": 2}, {"final_weights": "best"}])
def test_without_validation_rows_it_is_refused(changes, tmp_path):
    with pytest.raises(UserError) as refused:
        make_trainer(make_model("llama"), make_rows(), tmp_path, replace(SPEC, **changes))
    assert (refused.value.code, refused.value.where) == ("validation_needed", {"field": f"training.{next(iter(changes))}"})
    assert list(tmp_path.iterdir()) == []


# -- gradient checkpointing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora"])
def test_recomputed_activations_give_the_same_gradients(method, tmp_path):
    """To the bit, for packed rows and with dropout: each layer runs a second time, during backward, as it ran before."""
    found, calls = [], []
    for recompute in (False, True):
        spec = replace(SPEC, gradient_checkpointing=recompute)
        trainer, _ = make_trainer(make_model("llama", method, dropout=0.1), make_rows(), tmp_path, short(spec, 1))
        ran = []
        attention = next(module for name, module in trainer.forward.model.named_modules() if name.endswith("layers.1.self_attn"))
        attention.register_forward_hook(lambda *_given, ran=ran: ran.append(1))
        gradients = {}
        clip = trainer.optimiser.clip

        def keep(limit, trainer=trainer, gradients=gradients, clip=clip):
            gradients.update({name: parameter.grad.clone() for name, parameter in trainer.parameters.items()})
            return clip(limit)

        trainer.optimiser.clip = keep
        trainer.run()
        assert trainer.forward.packs
        found.append(gradients)
        calls.append(len(ran))
    assert calls == [2, 4], "two micro-batches; each runs the layer twice where activations are recomputed"
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert max(float(gradient.abs().max()) for gradient in found[0].values()) > 0


# -- float16 -----------------------------------------------------------------------------------------------------------


def in_float16(out, steps, **changes):
    trainer, _ = make_trainer(make_model("llama"), make_rows(), out, short(SPEC, steps), **changes)
    forward = replace(trainer.forward, dtype=torch.float16)
    return make_trainer(forward.model, trainer.rows, out, trainer.spec, forward=forward, **changes)


def test_float16_follows_float32(tmp_path):
    plain, plain_events = make_trainer(make_model("llama"), make_rows(), tmp_path / "plain", short(SPEC, 8))
    half, half_events = in_float16(tmp_path / "half", 8)
    for trainer in (plain, half):
        trainer.run()
    assert half.scaler.is_enabled()
    assert losses(half_events) == pytest.approx(losses(plain_events), abs=0.02)
    assert losses(half_events) != losses(plain_events)
    norms = [[event["gradient_norm"] for event in of("step", events)] for events in (half_events, plain_events)]
    assert norms[0] == pytest.approx(norms[1], rel=0.05), "told as they are, not as they were scaled"


def test_a_gradient_beyond_float16_skips_a_step_halves_the_scale_and_is_told(tmp_path):
    trainer, events = in_float16(tmp_path, 6)
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**40})
    before = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
    unchanged = []
    trainer.emit = lambda kind, **data: (
        events.append({"kind": kind, **data}),
        kind == "step" and unchanged.append(all(torch.equal(before[name], parameter) for name, parameter in trainer.parameters.items())),
    )
    trainer.run()
    assert unchanged == [True] * 6, "six halvings of 2**40 are not enough"
    assert trainer.scaler.get_scale() == 2.0**34
    assert [message.split(":")[0] for message in messages(events)] == [f"Step {step} was skipped" for step in range(1, 7)]
    assert trainer.progress.nonfinite == 0


def test_the_scale_is_part_of_the_checkpoint(tmp_path):
    first, _ = in_float16(tmp_path / "a", 4, stop=lambda: first.progress.step >= 2)
    first.scaler.load_state_dict({**first.scaler.state_dict(), "scale": 512.0})
    with pytest.raises(GraftError, match="after step 2"):
        first.run()
    second, _ = in_float16(tmp_path / "b", 4)
    second.restore(checkpoint.newest([tmp_path / "a"]))
    assert second.scaler.state_dict() == first.scaler.state_dict()
    assert second.scaler.get_scale() == 512.0


# -- batches made ahead ------------------------------------------------------------------------------------------------


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_items_come_in_order_and_few_ahead():
    made = []

    def make():
        for number in range(20):
            made.append(number)
            yield number

    seen = []
    for item in prefetched(make()):
        seen.append(item)
        assert len(made) <= item + 1 + AHEAD
    assert seen == list(range(20))
    assert threads() == []


def test_what_fails_in_the_thread_fails_here():
    def make():
        yield 1
        raise KeyError("row")

    items = prefetched(make())
    assert next(items) == 1
    with pytest.raises(KeyError, match="row"):
        next(items)
    assert threads() == []


def test_the_thread_ends_when_nobody_reads_on():
    items = prefetched(iter(range(10**9)))
    assert next(items) == 0
    assert len(threads()) == 1
    items.close()
    assert threads() == []


@pytest.mark.parametrize("method", ["full", "lora"])
def test_batches_made_ahead_change_nothing(method, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.training.loop.pays", lambda device: True)
    found = []
    for ahead in (True, False):
        model = make_model("llama", method, dropout=0.1)
        trainer, events = make_trainer(model, make_rows(), tmp_path / str(ahead), short(SPEC, 6), engine=EngineSpec(prefetch=ahead))
        trainer.run()
        found.append(losses(events))
    assert found[0] == found[1]
    assert threads() == []


def test_the_thread_ends_with_a_run_that_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.training.loop.pays", lambda device: True)
    trainer, _ = make_trainer(make_model("llama"), make_rows(), tmp_path, short(SPEC, 6), stop=lambda: True)
    with pytest.raises(GraftError, match="after step 1"):
        trainer.run()
    assert threads() == []
