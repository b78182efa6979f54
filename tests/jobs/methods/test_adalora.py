"""AdaLoRA: the penalty, the budget, a resume in the middle of it, and an adapter without what was dropped."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from jobs.errors import GraftError, UserError
from jobs.methods.hooks import Hooks
from jobs.spec import TrainingSpec
from tests.jobs.methods.lora_models import ROWS, adapt, load, logits, setup
from tests.jobs.training.reference import make_trainer
from tests.tiny import make_tiny_model

STEPS = 12
SETTINGS = {"rank": 6, "target_rank": 3, "interval": 2, "warmup": 0.1, "settled": 0.25, "alpha": 12.0}
SPEC = TrainingSpec(max_steps=STEPS, epochs=1000, micro_batch=4, gradient_accumulation=1, schedule="constant", checkpoint_every_steps=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("adalora") / "model")


def _trained(folder, out, *, resume=None, stop_at=None, **settings):
    """(trainer, hooks) after the training."""
    model, hooks = adapt(folder, "adalora", setup(folder, total_steps=STEPS), **{**SETTINGS, **settings})
    trainer, _ = make_trainer(model, ROWS, out, SPEC, hooks=hooks, learning_rate=1e-2)
    if resume:
        trainer.restore(resume)
    if stop_at:
        trainer.stop = lambda: trainer.progress.step >= stop_at
    trainer.run()
    return trainer, hooks


def test_the_penalty_is_the_distance_from_orthonormal(folder):
    """gamma mean(|P'P - I|, |QQ' - I|), as PEFT adds it where the model computes its own loss."""
    model, hooks = adapt(folder, "adalora", orthogonality=0.3)
    ids = torch.arange(3, 9)[None]
    inner = model.base_model.model(input_ids=ids, labels=ids).loss
    theirs = model(input_ids=ids, labels=ids).loss - inner
    torch.testing.assert_close(hooks.penalty(), theirs, rtol=1e-4, atol=1e-5)
    hooks.penalty().backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == ("lora_A" in name or "lora_B" in name)
    assert adapt(folder, "adalora", orthogonality=0.0)[1].penalty() is None


def test_without_it_the_penalty_moves_the_factors_away_from_orthonormal_less(folder, tmp_path):
    """The trainer adds it: with a heavy one P and Q end nearer to orthonormal."""
    distances = [_trained(folder, tmp_path / str(weight), orthogonality=weight)[1].penalty().item() / weight for weight in (1e-6, 10.0)]
    assert distances[1] < 0.9 * distances[0]


def test_ranks_fall_to_the_target_and_then_stay(folder, tmp_path):
    trainer, hooks = _trained(folder, tmp_path)
    ranks = hooks.observe()["ranks"]
    assert len(ranks) == 14
    assert sum(ranks.values()) == 3 * 14
    assert len(set(ranks.values())) > 1
    assert hooks.is_settled
    assert {sum(left) for left in hooks.pattern.values()} == set(ranks.values())
    assert trainer.progress.step == STEPS


@pytest.mark.parametrize("stop_at", [5, 10])
def test_a_resumed_run_drops_the_same_and_ends_with_the_same_bits(folder, tmp_path, stop_at):
    """Stopped in the middle of the budget's fall, and after the last choice."""
    straight, _ = _trained(folder, tmp_path / "straight")
    with pytest.raises(GraftError, match=f"after step {stop_at}"):
        _trained(folder, tmp_path / "stopped", stop_at=stop_at)
    checkpoint = tmp_path / "stopped" / "checkpoints" / f"step-{stop_at:08d}"
    again, _ = _trained(folder, tmp_path / "again", resume=checkpoint)
    for file in ("weights", "optimiser", "method"):
        one, other = (
            load_file(tmp_path / which / "checkpoints" / f"step-{STEPS:08d}" / f"{file}.safetensors") for which in ("straight", "again")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), file
    assert again.progress.step == straight.progress.step


def test_without_its_state_a_resumed_run_would_drop_others(folder, tmp_path):
    """The test above can fail: what the allocator goes by is not in the weights."""
    model, hooks = adapt(folder, "adalora", setup(folder, total_steps=STEPS), **SETTINGS)
    assert not hooks.allocator.exp_avg_ipt
    _, trained = _trained(folder, tmp_path)
    state = trained.state()
    assert any(key.startswith("left/") for key in state)
    hooks.restore(state)
    assert hooks.pattern == trained.pattern
    assert Hooks(model).state() == {}


@pytest.mark.parametrize("stop_at", [5, STEPS])
def test_the_saved_adapter_is_the_trained_one_with_plain_peft(folder, tmp_path, stop_at):
    """Before the last choice all singular values are saved, after it those that are left."""
    model, hooks = adapt(folder, "adalora", setup(folder, total_steps=STEPS), **SETTINGS)
    trainer, _ = make_trainer(model, ROWS, tmp_path, SPEC, hooks=hooks, learning_rate=1e-2)
    trainer.total_steps = stop_at
    trainer.run()
    hooks.save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    ranks = [tensor.shape[0] for name, tensor in saved.items() if name.endswith("lora_E")]
    assert sum(ranks) == (3 * 14 if stop_at == STEPS else 6 * 14)
    assert (config["rank_pattern"] is None) == (stop_at != STEPS)
    loaded = PeftModel.from_pretrained(load(folder), str(tmp_path / "adapter"))
    tuned = logits(model)
    torch.testing.assert_close(logits(loaded), tuned, rtol=0, atol=2e-5 * float(tuned.abs().max()))


def test_a_target_that_is_no_reduction_is_refused(folder):
    with pytest.raises(UserError, match="target_rank' is 8, and must be below the rank at the start, 8"):
        adapt(folder, "adalora", rank=8, target_rank=8)


def test_a_run_of_one_step_trains_without_a_choice(folder):
    model, hooks = adapt(folder, "adalora", setup(folder, total_steps=1), **SETTINGS)
    model(input_ids=torch.arange(3, 9)[None]).logits.sum().backward()
    hooks.after_update(1, lambda name, index: None)
    assert hooks.pattern is None
    assert not hooks.is_settled
