"""Base and LoRA update in one product: what it gains, what it gives, and what is left to PEFT."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from jobs.models.loading import load_model
from jobs.spec import EngineSpec, TrainingSpec
from jobs.training.checks import choose_forward
from jobs.training.forward import Forward, base_model
from jobs.training.fused_lora import DenseGroup, PackedGroup, QuantisedGroup
from tests.jobs.training.reference import CONFIGS, gradients, losses, make_model, make_trainer, short, stir, templated_rows

SEPARATE = replace(EngineSpec(), one_gemm_lora=False)


def _curve(dtype: torch.dtype, engine: EngineSpec) -> list[float]:
    """By how much the loss has fallen after each of eight small updates, over a base whose weights are bfloat16 numbers."""
    model, rows = make_model("llama", "lora"), templated_rows()
    for weight in model.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(torch.bfloat16).to(dtype)
    forward, _ = choose_forward(model, rows[:8], dtype=dtype, device="cpu", engine=engine)
    assert (forward.lora is not None) == engine.one_gemm_lora
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0)
    found = []
    for _ in range(9):
        optimiser.zero_grad()
        forward.refresh()
        batch = forward.batch(rows)
        with forward.running(batch):
            loss = forward.loss_sum(batch) / len(batch.labels)
            loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    return [found[0] - loss for loss in found[1:]]


def test_in_bfloat16_the_loss_falls_as_in_float32():
    """Added to an output that is rounded already, the first updates are lost in part; in one product they are not."""
    exact = _curve(torch.float32, EngineSpec())
    assert exact == sorted(exact)

    def away(curve):
        return sum(abs(one - other) for one, other in zip(curve, exact, strict=True))

    one_product, separate = away(_curve(torch.bfloat16, EngineSpec())), away(_curve(torch.bfloat16, SEPARATE))
    assert one_product < separate / 3
    assert one_product < 0.05 * sum(exact)


def _names(model, groups) -> list[set[str]]:
    names = {id(module): name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    return [{names[id(layer)] for layer in group.layers} for group in groups]


@pytest.mark.parametrize(
    ("architecture", "together"),
    [
        ("llama", [{"q_proj", "k_proj", "v_proj"}, {"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}]),
        ("phi3", [{"qkv_proj"}, {"o_proj"}, {"gate_up_proj"}, {"down_proj"}]),
        ("gpt-neox", [{"query_key_value"}, {"dense"}, {"dense_h_to_4h"}, {"dense_4h_to_h"}]),
    ],
)
def test_layers_that_read_one_input_are_one_group(architecture, together):
    model = make_model(architecture, "lora")
    forward, _ = choose_forward(model, templated_rows(4), dtype=torch.float32, device="cpu")
    assert forward.lora.whole
    assert _names(model, forward.lora.groups) == together * 2


@pytest.mark.parametrize(("packed", "kind"), [(True, PackedGroup), (False, DenseGroup)])
def test_both_kinds_of_group_give_the_gradients_of_peft(packed, kind):
    model, rows = stir(make_model("qwen2", "lora")), templated_rows(6)
    plain = gradients(Forward(model, torch.float32, "cpu", packs=False, own_head=False), rows)
    engine = replace(EngineSpec(), packed_weights=packed)
    forward, reasons = choose_forward(model, rows, dtype=torch.float32, device="cpu", engine=engine)
    assert reasons == []
    assert {type(group) for group in forward.lora.groups} == {kind}
    assert any(group.bias is not None for group in forward.lora.groups)
    _same(gradients(forward, rows), plain)


def test_dense_weights_are_held_once():
    model = make_model("llama", "lora")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    engine = replace(EngineSpec(), packed_weights=False)
    forward, _ = choose_forward(model, templated_rows(4), dtype=torch.float32, device="cpu", engine=engine)
    for group in forward.lora.groups:
        storage = group.joined.untyped_storage().data_ptr()
        assert {base.weight.untyped_storage().data_ptr() for base in group.bases} == {storage}
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def _peft_model(architecture="llama", **settings):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture], attn_implementation="sdpa")
    return get_peft_model(
        model, LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings})
    )


def _second_adapter():
    model = _peft_model()
    model.add_adapter("other", LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    model.base_model.set_adapter(["default", "other"])
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: _peft_model(lora_dropout=0.1),
        lambda: _peft_model(use_dora=True),
        lambda: _peft_model(lora_bias=True),
        _second_adapter,
    ],
    ids=["dropout", "DoRA", "biases of B", "two adapters"],
)
def test_what_is_more_than_lora_is_left_to_peft(make):
    model, rows = stir(make()), templated_rows(6)
    model.eval()  # dropout draws other numbers for other shapes
    plain = gradients(Forward(model, torch.float32, "cpu", packs=False, own_head=False), rows)
    forward, reasons = choose_forward(model, rows, dtype=torch.float32, device="cpu")
    assert (forward.lora, reasons) == (None, [])
    _same(gradients(forward, rows), plain)


def test_only_the_layers_with_trained_biases_are_left_to_peft():
    model, rows = stir(_peft_model("qwen2", bias="lora_only")), templated_rows(6)
    plain = gradients(Forward(model, torch.float32, "cpu", packs=False, own_head=False), rows)
    forward, _ = choose_forward(model, rows, dtype=torch.float32, device="cpu")
    assert _names(model, forward.lora.groups) == [{"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}] * 2
    assert not forward.lora.whole
    found = gradients(forward, rows)
    assert sum(name.endswith(".bias") for name in found) == 6
    _same(found, plain)


def test_a_disabled_adapter_leaves_the_base():
    model, rows = stir(make_model("llama", "lora")), templated_rows(4)
    forward, _ = choose_forward(model, rows, dtype=torch.float32, device="cpu")
    forward.refresh()
    base = Forward(make_model("llama"), torch.float32, "cpu", packs=False, own_head=False)
    with model.disable_adapter():
        disabled = forward.score(rows)[0]
    assert disabled == pytest.approx(base.score(rows)[0], rel=1e-6)
    assert abs(forward.score(rows)[0] - disabled) > 1e-2


def test_what_was_learnt_counts_only_once_refreshed():
    """The product holds copies of A and B: `refresh` is what the loop calls after each update, and it is enough."""
    model, rows = stir(make_model("llama", "lora")), templated_rows(4)
    forward, _ = choose_forward(model, rows, dtype=torch.float32, device="cpu")
    forward.refresh()
    before = forward.score(rows)[0]
    stir(model, seed=6)
    assert forward.score(rows)[0] == before
    forward.refresh()
    plain = Forward(model, torch.float32, "cpu", packs=False, own_head=False)
    assert forward.score(rows)[0] == pytest.approx(plain.score(rows)[0], rel=1e-6)
    assert abs(forward.score(rows)[0] - before) > 1e-2


@pytest.fixture
def quantised(tmp_path):
    """Makes a small Llama with LoRA over a base in 4 bits, always the same one."""
    make_model("llama").save_pretrained(tmp_path / "model")

    def make(precision: str):
        base = load_model(tmp_path / "model", precision=precision, trains_base=False, bits=4)
        torch.manual_seed(0)
        return stir(get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")))

    return make


def test_qlora_gives_the_gradients_of_bitsandbytes_and_peft(quantised):
    model, rows = quantised("float32"), templated_rows(6)
    plain = gradients(Forward(model, torch.float32, "cpu", packs=False, own_head=False), rows)
    forward, reasons = choose_forward(model, rows, dtype=torch.float32, device="cpu")
    assert reasons == []
    assert forward.lora.whole
    assert {type(group) for group in forward.lora.groups} == {QuantisedGroup}
    _same(gradients(forward, rows), plain)


@pytest.mark.parametrize("engine", [EngineSpec(), SEPARATE], ids=["one product", "PEFT's own"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_evaluation_amid_qlora_changes_nothing(precision, engine, quantised, tmp_path):
    """bitsandbytes packs its weights anew when it is evaluated on a CPU, and then has no gradient with respect to its input."""
    dtype = getattr(torch, precision)
    found = []
    for every in (1, 100):
        model, rows = quantised(precision), templated_rows()
        forward, _ = choose_forward(model, rows[:8], dtype=dtype, device="cpu", engine=engine)
        assert (forward.lora is not None) == engine.one_gemm_lora
        spec = replace(short(TrainingSpec(micro_batch=4, gradient_accumulation=1), 3), evaluate_every_steps=every)
        trainer, events = make_trainer(model, rows, tmp_path / str(every), spec, forward=forward, validation=rows[:6])
        before = gradients(forward, rows[:4])
        if every == 1:
            trainer.validate("base")
            model.train()
        after = gradients(forward, rows[:4])
        assert all(torch.equal(after[name], wanted) for name, wanted in before.items())
        model.zero_grad()
        trainer.run()
        assert sum(event["kind"] == "eval" for event in events) == (4 if every == 1 else 1)
        found.append(losses(events))
    assert found[0] == found[1]


def _same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Every trained weight has a gradient, and they agree to rounding."""
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) < 1e-5, name


def test_the_base_is_the_unmodified_model():
    """No class, parameter or name has changed, and outside of `running` a layer is PEFT's."""
    model = make_model("llama", "lora")
    kinds, names = [type(module) for module in model.modules()], list(model.state_dict())
    forward, _ = choose_forward(model, templated_rows(4), dtype=torch.float32, device="cpu")
    assert [type(module) for module in model.modules()] == kinds
    assert list(model.state_dict()) == names
    assert base_model(model).config._attn_implementation == "sdpa"
    assert not forward.lora.switch.on
