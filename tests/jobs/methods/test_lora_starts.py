"""Starts of LoRA: each against its paper's equation, resumed from what a checkpoint kept, and saved as a plain LoRA over the base."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from jobs.errors import UserError
from jobs.export.merge import merge
from jobs.methods.lora.eva import principal_components, spread_ranks
from jobs.methods.lora.gradients import gradient_directions
from jobs.methods.lora.hooks import LoraHooks
from jobs.methods.lora.layers import dense_weight, lora_layers
from jobs.methods.lora.sampling import row_ids, sample_rows
from jobs.methods.lora.starts import move_into_adapter
from tests.jobs.methods.lora_models import ROWS, adapt, base_weights, load, logits, setup, stir, updates
from tests.tiny import make_tiny_model, tiny_config

MOVING = ("pissa", "olora", "lora_ga")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("starts") / "model")


def test_pissa_is_the_best_approximation_of_each_weight(folder):
    """s B A is the SVD cut at the rank; A and B share the singular values (arXiv:2404.02948, equations 2 and 3)."""
    model, _ = adapt(folder, "pissa", rank=4, alpha=8.0)
    for name, layer in lora_layers(model):
        weight = base_weights(folder)[name]
        sizes = torch.linalg.svdvals(weight)
        torch.testing.assert_close(torch.linalg.matrix_norm(weight - updates(model)[name]), sizes[4:].norm(), rtol=1e-5, atol=0)
        torch.testing.assert_close(dense_weight(layer.get_base_layer()), weight - updates(model)[name])
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        torch.testing.assert_close(down.norm(dim=1), (sizes[:4] / 2).sqrt(), rtol=1e-4, atol=0)
        torch.testing.assert_close(up.norm(dim=0), (sizes[:4] / 2).sqrt(), rtol=1e-4, atol=0)


def test_olora_is_the_beginning_of_the_qr_decomposition(folder):
    model, _ = adapt(folder, "olora", rank=4)
    for name, layer in lora_layers(model):
        orthogonal, upper = torch.linalg.qr(base_weights(folder)[name])
        torch.testing.assert_close(layer.lora_B["default"].weight.data, orthogonal[:, :4])
        torch.testing.assert_close(layer.lora_A["default"].weight.data, upper[:4])


def _true_gradients(folder):
    """The gradient of the loss that the start looks at by each weight, whole."""
    model = load(folder)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.requires_grad_()
    for row in sample_rows(setup(folder), "LoRA-GA"):
        ids = row_ids(model, row)
        trained = torch.from_numpy(row.trained[1:])
        wanted = model(input_ids=ids).logits[0, :-1][trained]
        torch.nn.functional.cross_entropy(wanted, ids[0, 1:][trained], reduction="sum").backward()
    return {name: module.weight.grad for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def test_lora_ga_starts_along_the_leading_directions_of_the_gradient(folder):
    """A = c V of the first r, B = c U of the next r, c = d_out^1/4 / gamma^1/2 (arXiv:2407.05000, algorithm 1)."""
    plain, _ = adapt(folder, "lora", rank=4)
    found, true = gradient_directions(plain, dict(lora_layers(plain)), setup(folder)), _true_gradients(folder)
    model, _ = adapt(folder, "lora_ga", rank=4)
    for name, layer in lora_layers(model):
        sizes = torch.linalg.svdvals(true[name])[:8]
        left, right = (side[:, :8] for side in found[name])
        along = (left.t() @ true[name] @ right).diagonal()
        assert along.norm() > 0.99 * sizes.norm()
        torch.testing.assert_close(along[:4], sizes[:4], rtol=1e-2, atol=0)
        size = true[name].shape[0] ** 0.25 / 4
        torch.testing.assert_close(layer.lora_A["default"].weight.data, size * right[:, :4].t())
        torch.testing.assert_close(layer.lora_B["default"].weight.data, size * left[:, 4:])


def test_eva_finds_the_principal_components_of_what_layers_read(folder):
    """Shares of variance and directions as the eigenvectors of the covariance have them (arXiv:2410.07170, section 3)."""
    model = load(folder)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"]
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    hooks = [model.get_submodule(name).register_forward_pre_hook(lambda _m, x, name=name: seen[name].append(x[0][0])) for name in names]
    with torch.no_grad():
        for row in sample_rows(setup(folder), "EVA"):
            model(input_ids=row_ids(model, row))
    for hook in hooks:
        hook.remove()
    found = principal_components(model, names, 8, setup(folder))
    for name in names:
        x = torch.cat(seen[name])
        covariance = (x - x.mean(0)).t() @ (x - x.mean(0))
        sizes = torch.linalg.eigvalsh(covariance).flip(0)
        shares, directions = found[name]
        torch.testing.assert_close(shares[:4], (sizes / sizes.sum())[:4], rtol=1e-2, atol=0)
        torch.testing.assert_close((directions @ covariance @ directions.t()).diagonal()[:4], sizes[:4], rtol=1e-2, atol=0)


def test_eva_gives_rank_where_it_explains_most_and_keeps_the_scale(folder):
    shares = {"a": torch.tensor([0.5, 0.4, 0.01]), "b": torch.tensor([0.3, 0.002, 0.001])}
    assert spread_ranks(shares, 1) == {"a": 2, "b": 0}
    assert spread_ranks(shares, 2) == {"a": 3, "b": 1}
    model, hooks = adapt(folder, "eva", rank=4, alpha=8.0)
    ranks = {name: layer.r["default"] for name, layer in lora_layers(model)}
    assert len(set(ranks.values())) > 1
    assert {layer.scaling["default"] for _, layer in lora_layers(model)} == {2.0}
    again, _ = adapt(folder, "eva", setup(folder, rows=(), kept=hooks.state()), rank=4, alpha=8.0)
    assert {name: layer.r["default"] for name, layer in lora_layers(again)} == ranks


def test_loftq_is_the_best_correction_of_what_four_bits_lose(folder):
    """With Q = NF4(W): s B A is the SVD of W - Q cut at the rank (arXiv:2310.08659, equation 8)."""
    from bitsandbytes.functional import dequantize_4bit

    model, _ = adapt(folder, "loftq", rank=8)
    for name, layer in lora_layers(model):
        packed = layer.get_base_layer().weight
        lost = base_weights(folder)[name] - dequantize_4bit(packed.data, packed.quant_state)
        left = torch.linalg.matrix_norm(lost - updates(model)[name])
        torch.testing.assert_close(left, torch.linalg.svdvals(lost)[8:].norm(), rtol=2e-2, atol=0)


def test_loftq_of_full_rank_is_the_base_that_was_not_rounded(folder):
    model, _ = adapt(folder, "loftq", rank=64)
    base, rounded = logits(load(folder)), logits(load(folder, bits=4))
    assert float((logits(model) - base).abs().max()) < 1e-3 * float((rounded - base).abs().max())


def test_loftq_is_not_merged_into_weights_that_lack_its_rounding(folder, tmp_path):
    _, hooks = adapt(folder, "loftq", rank=4)
    hooks.save(tmp_path / "adapter")
    with pytest.raises(ValueError, match="dequantised"):
        merge(folder, tmp_path / "adapter", tmp_path / "out", shard_bytes=10**9)
    assert not (tmp_path / "out").exists()
    hooks.save_for_original(tmp_path / "original")
    merge(folder, tmp_path / "original", tmp_path / "out", shard_bytes=10**9)
    torch.testing.assert_close(logits(load(tmp_path / "out")), logits(load(folder)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", MOVING)
def test_what_a_checkpoint_kept_gives_the_same_bits_without_looking_anew(folder, method):
    model, hooks = adapt(folder, method, rank=4)
    again, _ = adapt(folder, method, setup(folder, seed=99, rows=(), kept=hooks.state()), rank=4)
    other = again.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", MOVING)
def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(folder, method):
    model, _ = adapt(folder, method, rank=4)
    torch.manual_seed(12345)
    other = adapt(folder, method, rank=4)[0].state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", MOVING)
def test_the_base_is_what_it_was_however_far_the_adapter_has_gone(folder, method):
    base = logits(load(folder))
    model, hooks = adapt(folder, method, rank=4)
    tuned = logits(stir(model))
    with hooks.as_base():
        torch.testing.assert_close(logits(model), base, rtol=0, atol=2e-5 * float(base.abs().max()))
    assert torch.equal(logits(model), tuned)
    with model.disable_adapter():
        assert float((logits(model) - base).abs().max()) > 0.01


@pytest.mark.parametrize("method", MOVING)
def test_saved_it_is_a_plain_lora_of_twice_the_rank_over_the_base(folder, tmp_path, method):
    model, hooks = adapt(folder, method, rank=4, alpha=8.0)
    tuned = logits(stir(model))
    hooks.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)
    loaded = PeftModel.from_pretrained(load(folder), str(tmp_path))
    torch.testing.assert_close(logits(loaded), tuned, rtol=0, atol=2e-5 * float(tuned.abs().max()))
    assert "rank 8" in hooks.remark


def test_what_is_saved_is_what_peft_itself_makes_of_it(folder, tmp_path):
    names = [name for name in base_weights(folder) if name != "lm_head"]
    peft = get_peft_model(load(folder), LoraConfig(r=4, lora_alpha=8, target_modules=names, init_lora_weights="pissa"))
    peft.peft_config["default"].init_lora_weights = True
    peft.save_pretrained(tmp_path / "start")
    hooks = LoraHooks(peft, {"rank": 4, "start": "pissa"})
    stir(peft)
    hooks.save(tmp_path / "ours")
    peft.save_pretrained(tmp_path / "theirs", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    ours, theirs = (load_file(tmp_path / which / "adapter_model.safetensors") for which in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_trained_head_is_saved_with_a_start_taken_out(tmp_path):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config(num_labels=3))
    told = setup(tmp_path, task="sequence_classification")
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS")
    adapted = get_peft_model(model, config)
    move_into_adapter(adapted, "pissa", told)
    LoraHooks(adapted, {"rank": 4, "start": "pissa"}, told).save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert torch.equal(saved["base_model.model.score.weight"], adapted.get_base_model().score.modules_to_save["default"].weight)


def test_a_transposed_weight_is_moved_the_same_way():
    """GPT-2's `Conv1D`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=60))
    before = dense_weight(model.transformer.h[0].attn.c_attn).clone()
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=4, target_modules=["c_attn"], fan_in_fan_out=True))
    move_into_adapter(adapted, "pissa", setup(None))
    _, layer = next(lora_layers(adapted))
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(dense_weight(layer.get_base_layer()) + up @ down, before, rtol=0, atol=1e-6)
    assert (up @ down).shape == before.shape == (96, 32)


def test_a_start_that_a_layer_is_too_narrow_for_is_refused(folder):
    with pytest.raises(UserError, match=r"is 64, and model\.layers\.0\.self_attn\.k_proj is 32 x 64, which gives a start of 32 at most"):
        adapt(folder, "pissa", rank=64)
    with pytest.raises(UserError, match="of 16 at most"):
        adapt(folder, "lora_ga", rank=20)


def test_a_start_that_looks_at_rows_needs_one_with_a_trained_token(folder):
    assert not [row for row in ROWS if not row.trained.any()]
    with pytest.raises(UserError, match="no row has a trained token"):
        adapt(folder, "eva", setup(folder, rows=()), rank=4)
