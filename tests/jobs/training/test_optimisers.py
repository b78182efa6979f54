"""Every optimiser trains, resumes to the bit, and stores its state by the weight's name; flat AdamW gives the numbers of plain AdamW."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from jobs.errors import GraftError
from jobs.methods.registry import get_method
from jobs.spec import EngineSpec, TrainingSpec
from jobs.training import checkpoint, optimiser
from jobs.training.flat import FlatAdamW
from jobs.training.optimiser import Optimiser, grouped, make_optimiser, usable_kind
from tests.jobs.training.reference import losses, make_model, make_rows, make_trainer, short

SPEC = TrainingSpec(micro_batch=4, gradient_accumulation=1, weight_decay=0.01)
KINDS = ["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"]
PLAIN = EngineSpec(flat_optimiser=False)


def weights(extra: int) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"layer.A": (7, 32 + extra), "layer.B": (32 + extra, 7), "layer.bias": (16 + extra,), "norm": (64,)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def trained(flat: bool, *, extra: int, steps: int, limit: float) -> tuple[dict[str, nn.Parameter], list[float], dict[str, torch.Tensor]]:
    """Weights after some steps on random gradients, the norms of those, and the state; two decays and two rates, so four groups."""
    parameters = weights(extra)
    optimiser = make_optimiser("adamw", grouped(parameters, 0.1, lambda name: 16.0 if name.endswith("B") else 1.0), flat=flat)
    assert isinstance(optimiser, FlatAdamW) is flat
    generator = torch.Generator().manual_seed(2)
    norms = []
    for _ in range(steps):
        optimiser.forget_gradients()
        for parameter in parameters.values():
            (parameter * torch.randn(parameter.shape, generator=generator)).sum().backward()
        norms.append(optimiser.clip(limit))
        optimiser.step(1e-2)
    return parameters, norms, optimiser.tensors()


def ulps(one: torch.Tensor, other: torch.Tensor) -> int:
    """How many float32 numbers lie between two, at most; both of one sign."""
    return int((one.detach().view(torch.int32).long() - other.detach().view(torch.int32).long()).abs().max())


@pytest.mark.parametrize(("extra", "steps", "apart"), [(0, 20, 0), (1, 1, 1)])
def test_flat_adamw_gives_the_numbers_of_adamw_by_weight(extra, steps, apart):
    """To the bit where sizes are multiples of a vector register; else torch's loop over the rest rounds once more in a step."""
    flat, plain = (trained(flat, extra=extra, steps=steps, limit=0.0) for flat in (True, False))
    assert all(ulps(flat[0][name], plain[0][name]) <= apart for name in plain[0])
    assert flat[2].keys() == plain[2].keys() == {f"{name}/{key}" for name in plain[0] for key in ("step", "exp_avg", "exp_avg_sq")}
    assert all(ulps(flat[2][name], plain[2][name]) <= apart and flat[2][name].shape == plain[2][name].shape for name in plain[2])


def test_flat_gradients_are_clipped_as_others_are():
    flat, plain = (trained(flat, extra=1, steps=20, limit=23.0) for flat in (True, False))
    assert min(plain[1]) < 23.0 < max(plain[1]), "both sides of the limit"
    assert flat[1] == pytest.approx(plain[1], rel=1e-6)
    assert all(torch.allclose(flat[0][name], plain[0][name], rtol=1e-5, atol=1e-7) for name in plain[0])


def test_many_weights_on_a_cpu_are_updated_one_by_one(monkeypatch):
    """Their gradients then go after each step, and are not there while the next one's activations are."""
    parameters = weights(0)
    numbers = sum(weight.numel() for weight in parameters.values())
    for limit, kind in ((numbers, FlatAdamW), (numbers - 1, Optimiser)):
        monkeypatch.setattr(optimiser, "FLAT_NUMBERS_ON_CPU", limit)
        assert type(make_optimiser("adamw", grouped(weights(0), 0.1, lambda _: 1.0), flat=True)) is kind


@pytest.mark.parametrize("method", ["full", "lora"])
def test_flat_or_by_weight_the_curve_is_the_same(method, tmp_path):
    found = []
    for name, engine in (("flat", EngineSpec()), ("plain", PLAIN)):
        model = make_model("qwen2", method)
        trainer, events = make_trainer(model, make_rows(), tmp_path / name, short(SPEC, 8), engine=engine)
        trainer.run()
        found.append(losses(events))
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0][-1] < found[0][0]


def test_flat_weights_and_gradients_lie_in_one_piece_each(tmp_path):
    """Also after backward, update and restore: a weight that has left its place would no longer be trained."""
    trainer, _ = make_trainer(make_model("qwen2"), make_rows(), tmp_path / "a", short(SPEC, 3))
    trainer.run()
    again, _ = make_trainer(make_model("qwen2"), make_rows(), tmp_path / "b", short(SPEC, 3))
    again.restore(checkpoint.newest([tmp_path / "a"]))
    for each in (trainer, again):
        assert isinstance(each.optimiser, FlatAdamW)
        for kind in ("data", "grad"):
            pieces = {getattr(parameter, kind).untyped_storage().data_ptr() for parameter in each.parameters.values()}
            assert len(pieces) == 1, kind
    embedding, head = trainer.forward.model.get_input_embeddings(), trainer.forward.model.get_output_embeddings()
    assert embedding.weight is head.weight, "a tied head stays tied"


@pytest.mark.parametrize("kind", KINDS)
def test_each_resumes_to_the_bit(kind, tmp_path):
    """Stopped within the second epoch of 22 rows in steps of 4."""
    spec, rows = short(replace(SPEC, optimiser=kind), 11), make_rows()

    def fresh(name, **changes):
        # Settings of LoRA+, so that two rates must come back as well; rank 64 so that 8-bit state is 8-bit (from 4096 numbers on).
        model = make_model("llama", "lora", rank=64, dropout=0.1)
        return make_trainer(model, rows, tmp_path / name, spec, rate_of=lambda name: 4.0 if "lora_B" in name else 1.0, **changes)

    straight, events = fresh("straight")
    straight.run()
    first, first_events = fresh("first", stop=lambda: first.progress.step >= 8)
    with pytest.raises(GraftError, match="after step 8"):
        first.run()
    second, second_events = fresh("second")
    second.restore(checkpoint.newest([tmp_path / "first"]))
    second.run()
    assert losses(first_events) + losses(second_events) == losses(events)
    assert all(torch.equal(parameter, second.parameters[name]) for name, parameter in straight.parameters.items())
    assert losses(events)[-1] < losses(events)[0] - 0.05


@pytest.mark.parametrize(("first", "second"), [(EngineSpec(), PLAIN), (PLAIN, EngineSpec())])
def test_a_checkpoint_knows_nothing_of_flatness(first, second, tmp_path):
    spec = short(SPEC, 8)

    def curve(out, then):
        start, events = make_trainer(make_model("llama"), make_rows(), out, spec, engine=first, stop=lambda: start.progress.step >= 4)
        with pytest.raises(GraftError, match="after step 4"):
            start.run()
        end, more = make_trainer(make_model("llama"), make_rows(), out / "end", spec, engine=then)
        end.restore(checkpoint.newest([out]))
        end.run()
        return losses(events) + losses(more)

    assert curve(tmp_path / "same", first) == pytest.approx(curve(tmp_path / "other", second), abs=1e-6)


def test_eight_bits_are_eight_bits_on_disk(tmp_path):
    trainer, _ = make_trainer(make_model("llama"), make_rows(), tmp_path, short(replace(SPEC, optimiser="adamw_8bit"), 2))
    trainer.run()
    state = checkpoint.read_moments(checkpoint.newest([tmp_path]))
    name = "model.layers.0.mlp.up_proj.weight"
    assert {key: state[f"{name}/{key}"].dtype for key in ("state1", "state2", "absmax1", "step")} == {
        "state1": torch.uint8, "state2": torch.uint8, "absmax1": torch.float32, "step": torch.int64,
    }  # fmt: skip
    assert state["model.norm.weight/state1"].dtype == torch.float32, "small weights stay exact"
    assert not [key for key in state if "qmap" in key]


@pytest.mark.parametrize(("asked", "taken"), [("paged_adamw", "adamw"), ("paged_adamw_8bit", "adamw_8bit")])
def test_pages_are_of_gpus_and_that_is_said(asked, taken, tmp_path):
    trainer, events = make_trainer(make_model("llama"), make_rows(), tmp_path, short(replace(SPEC, optimiser=asked), 1))
    trainer.run()
    (warning,) = [event for event in events if event["kind"] == "warning"]
    assert warning["code"] == "optimiser_not_paged"
    assert f"{taken} stands in for {asked}" in warning["message"]
    assert [usable_kind(asked, "cpu"), usable_kind(asked, "cuda"), usable_kind("adafactor", "cpu")] == [taken, asked, "adafactor"]


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit", "adafactor"])
def test_the_learning_rate_means_much_the_same_to_all(kind, tmp_path):
    """LoRA's B starts at zero; an optimiser whose step is a share of the weight's size would not move it."""
    trainer, events = make_trainer(make_model("llama", "lora"), make_rows(), tmp_path, short(replace(SPEC, optimiser=kind), 12))
    trainer.run()
    assert losses(events)[0] - losses(events)[-1] > 0.1


def test_lora_plus_moves_b_by_its_ratio(tmp_path):
    """Adam's first step is the rate times the gradient's sign, and A's gradient is zero then: B moves by the ratio, A not at all."""
    moved = {}
    method = get_method("lora")
    for ratio in (1.0, 16.0):
        settings = method.resolve({"b_rate_ratio": ratio})
        trainer, _ = make_trainer(
            make_model("llama", "lora"),
            make_rows(),
            tmp_path / str(ratio),
            replace(short(SPEC, 1), weight_decay=0.0),
            rate_of=lambda name, settings=settings: method.rate_factor(settings, name),
        )
        before = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
        trainer.run()
        moved[ratio] = {name: (trainer.parameters[name].detach() - before[name]) for name in before}
    for name in moved[1.0]:
        plain, plus = moved[1.0][name], moved[16.0][name]
        assert float(plain.abs().max()) == pytest.approx(3e-3 if "lora_B" in name else 0.0, rel=1e-2)
        assert torch.allclose(plus, plain * 16, rtol=1e-5, atol=0)


def test_a_method_without_rates_has_one():
    assert get_method("full").rate_factor({}, "model.layers.0.mlp.up_proj.weight") == 1.0


@pytest.mark.parametrize(("kind", "flat"), [("adamw", True), ("adamw", False), ("adamw_8bit", False)])
def test_what_is_forgotten_moves_no_more(kind, flat):
    """Without a gradient a weight goes on with its momentum, but where that was reset; 4096 numbers, so that 8-bit state is 8-bit."""
    weight, generator = nn.Parameter(torch.zeros(64, 64)), torch.Generator().manual_seed(1)
    optimiser = make_optimiser(kind, grouped({"weight": weight}, 0.1, lambda _name: 1.0, lambda _name: False), flat=flat)
    for _ in range(3):
        optimiser.forget_gradients()
        (weight * torch.randn(64, 64, generator=generator).abs()).sum().backward()
        optimiser.step(1e-2)
    before = weight.detach().clone()
    forgotten = torch.tensor([5, 64, 4095])
    optimiser.reset("weight", forgotten)
    optimiser.forget_gradients()
    (weight * 0.0).sum().backward()
    optimiser.step(1e-2)
    still = weight.detach().eq(before).flatten().nonzero().flatten()
    assert still.tolist() == forgotten.tolist()
    assert float(before.max()) < 0
