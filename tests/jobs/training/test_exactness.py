"""Our loop gives the losses of the plainest one, whatever the architecture, the method, the way of batching and the fast ways in use."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import pytest
import torch

from jobs.spec import EngineSpec, TrainingSpec
from jobs.training.checks import choose_forward
from jobs.training.elementwise import Elementwise
from jobs.training.forward import Forward
from tests.jobs.training.reference import (
    CONFIGS,
    gradients,
    losses,
    make_model,
    make_rows,
    make_trainer,
    reference_losses,
    short,
    stir,
    templated_rows,
)

LONG, SHORT = 20, 3
UNPACKED = {"lfm2, convolutions"}
OWN_LOGITS = {"granite, scaled logits"}
# Of the architectures whose LoRA layers are of a kind that is left to PEFT: GPT-2's are transposed.
UNFUSED = {"gpt2"}
NO_REGIONS = {"gpt2", "lfm2, convolutions"}
SWITCHES = [field.name for field in fields(EngineSpec)]
LORA_SWITCHES = {"one_gemm_lora", "packed_weights"}
ALL_OFF = EngineSpec(**dict.fromkeys(SWITCHES, False))


def _spec(accumulation: int, steps: int, batching: str = "auto", micro_batch: int = 4) -> TrainingSpec:
    return short(TrainingSpec(micro_batch=micro_batch, gradient_accumulation=accumulation, batching=batching), steps)


# All 22 rows in every step, so that three steps are seen to learn.
BRIEF = _spec(2, SHORT, micro_batch=11)


@cache
def _expected(architecture: str, method: str, spec: TrainingSpec) -> list[float]:
    found = reference_losses(make_model(architecture, method), templated_rows(), spec)
    assert found[0] - found[-1] > 0.01, "the reference learns nothing, so equality says little"
    return found


def _found(architecture, method, spec, out, engine=None):
    trainer, events = make_trainer(make_model(architecture, method), templated_rows(), out, spec, engine=engine or EngineSpec())
    trainer.run()
    return trainer.forward, losses(events)


def _apart(found: list[float], expected: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_twenty_steps_equal_the_reference(method, accumulation, batching, tmp_path):
    spec = _spec(accumulation, LONG, batching)
    forward, found = _found("llama", method, spec, tmp_path)
    packs = batching == "packed"
    assert (forward.packs, forward.grids, forward.shares_prefix, forward.own_head) == (packs, packs, packs, True)
    assert (forward.lora is not None) == (method == "lora")
    assert (forward.elementwise is not None) == packs
    assert _apart(found, _expected("llama", method, _spec(accumulation, LONG))) < 1e-5


@pytest.mark.parametrize(
    ("method", "switch"),
    [(method, switch) for method in ("full", "lora") for switch in (*SWITCHES, "all") if method == "lora" or switch not in LORA_SWITCHES],
)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_each_switch_off_equals_the_reference(method, accumulation, switch, tmp_path):
    engine = ALL_OFF if switch == "all" else replace(EngineSpec(), **{switch: False})
    spec = _spec(accumulation, LONG)
    forward, found = _found("llama", method, spec, tmp_path, engine)
    assert forward.packs
    assert forward.grids is engine.segment_attention
    assert forward.shares_prefix is engine.shared_prefix
    assert forward.own_head is engine.label_head
    assert (forward.lora is not None) == (engine.one_gemm_lora and method == "lora")
    assert (forward.elementwise is not None) == engine.compile
    assert _apart(found, _expected("llama", method, _spec(accumulation, LONG))) < 1e-5


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_architectures_equal_the_reference(architecture, method, tmp_path):
    forward, found = _found(architecture, method, BRIEF, tmp_path)
    packs = architecture not in UNPACKED
    assert (forward.packs, forward.grids, forward.shares_prefix) == (packs, packs, packs)
    assert forward.own_head is (architecture not in OWN_LOGITS)
    assert (forward.lora is not None) == (method == "lora" and architecture not in UNFUSED)
    assert (forward.elementwise is not None) == (architecture not in NO_REGIONS)
    assert _apart(found, _expected(architecture, method, BRIEF)) < 1e-5


@pytest.mark.parametrize("architecture", CONFIGS)
def test_lora_gradients_are_those_of_peft(architecture):
    """Of every matrix A and B, with all fast ways on, against padding, all logits and PEFT's own forward under autograd."""
    model, rows = stir(make_model(architecture, "lora")), templated_rows(8)
    plain = gradients(Forward(model, torch.float32, "cpu", packs=False, own_head=False), rows)
    forward, _ = choose_forward(model, rows, dtype=torch.float32, device="cpu")
    batch = forward.batch(rows)
    assert (batch.input_ids.numel() < batch.tokens) == forward.packs, "the templates are to be computed once"
    found = gradients(forward, rows)
    assert plain.keys() == found.keys()
    assert sum(".lora_" in name for name in found) == len(found) > 0
    for name, wanted in plain.items():
        assert float(wanted.norm()) > 0
        assert float((found[name] - wanted).norm() / wanted.norm()) < 1e-4, name


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("own_head", [True, False])
def test_each_way_gives_the_same_gradients(packs, own_head):
    model, rows = make_model("qwen2"), make_rows(6)
    choose_forward(model, rows, dtype=torch.float32, device="cpu")
    plain = gradients(Forward(model, torch.float32, "cpu", packs=False, own_head=False), rows)
    other = gradients(Forward(model, torch.float32, "cpu", packs=packs, own_head=own_head), rows)
    for name, wanted in plain.items():
        assert float((other[name] - wanted).norm() / wanted.norm()) < 1e-5, name


def test_what_is_not_exact_is_said():
    rows = make_rows(4)
    forward, reasons = choose_forward(make_model("lfm2, convolutions"), rows, dtype=torch.float32, device="cpu")
    assert not forward.packs
    assert "see each other" in reasons[0]
    forward, reasons = choose_forward(make_model("granite, scaled logits"), rows, dtype=torch.float32, device="cpu")
    assert forward.packs
    assert not forward.own_head
    assert "changes its logits" in reasons[0]


@pytest.mark.parametrize("failure", [RuntimeError("of shapes"), None])
def test_fast_ways_that_do_not_fit_are_left_out(failure, monkeypatch, tmp_path):
    """A norm that fails in its fast form, and one that is wrong in it: training goes the plain way, and it is said why."""

    def wrong(self, module):
        if not type(module).__name__.endswith("RMSNorm"):
            return None

        def ours(_module, x):
            if failure:
                raise failure
            return x * 2

        return ours

    monkeypatch.setattr(Elementwise, "_norm", wrong)
    model = make_model("llama", "lora")
    forward, reasons = choose_forward(model, templated_rows(8), dtype=torch.float32, device="cpu")
    assert (forward.packs, forward.grids, forward.shares_prefix, forward.lora, forward.elementwise) == (True, False, False, None, None)
    assert len(reasons) == 1
    assert ("RuntimeError: of shapes" if failure else "differ from rows alone") in reasons[0]
    trainer, events = make_trainer(model, templated_rows(), tmp_path, BRIEF, forward=forward)
    trainer.run()
    assert _apart(losses(events), _expected("llama", "lora", BRIEF)) < 1e-5


def test_gradient_checkpointing_changes_nothing(tmp_path):
    """Its recomputation happens during backward, where the rows' borders and the fast ways must still be known."""
    rows, found = templated_rows(8), []
    for checkpointing in (False, True):
        spec = replace(_spec(1, 4), gradient_checkpointing=checkpointing)
        trainer, events = make_trainer(make_model("llama", "lora"), rows, tmp_path / str(checkpointing), spec)
        assert trainer.forward.lora is not None
        trainer.run()
        found.append(losses(events))
    assert found[0] == found[1]
