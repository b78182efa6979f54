"""The methods by PEFT's tuners other than LoRA, and BitFit, upon a small Llama: where they start, what they train, what a merge gives."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    Qwen2Config,
    RobertaConfig,
    T5Config,
)

from jobs.errors import UserError
from jobs.methods.boft.kernel import BlockDiagonal
from jobs.methods.hooks import Hooks
from jobs.methods.ia3 import down_layers, key_value_layers
from jobs.methods.registry import get_method
from jobs.methods.selection import divisor
from jobs.methods.setup import Setup
from jobs.methods.targets import frame_of
from jobs.methods.tuning import merged
from jobs.run import apply_method
from jobs.training.optimiser import grouped
from tests.tiny import tiny_config

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}
CONFIGS = {
    "llama": tiny_config(initializer_range=0.15),
    "qwen2": Qwen2Config(**WIDE, num_key_value_heads=2, initializer_range=0.15),
    "gpt2": GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=64, vocab_size=60, initializer_range=0.15),
    "bert": BertConfig(**WIDE, initializer_range=0.15),
    "roberta": RobertaConfig(**WIDE, initializer_range=0.15),
    "t5": T5Config(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, vocab_size=60, decoder_start_token_id=0),
}
# The layers of the small Llama that are adapted: (inputs, outputs) of q, k, v, o, gate, up, down.
SHAPES = 2 * [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]


def of_each_layer(formula):
    return sum(formula(inputs, outputs) for inputs, outputs in SHAPES)


def lokr_numbers(inputs, outputs):
    """W1 [a, c] whole, W2 [b, d] whole where rank 2 would not be half as wide, else two factors; a and c next below the square root."""
    halves = {32: (4, 8), 64: (8, 8), 128: (8, 16)}
    (c, d), (a, b) = halves[inputs], halves[outputs]
    return a * c + (2 * (b + d) if max(b, d) / 2 > 2 else b * d)


# Settings, and the numbers that the paper trains with them.
METHODS = {
    "loha": ({"rank": 4}, of_each_layer(lambda i, o: 2 * 4 * (i + o))),
    "lokr": ({"rank": 2}, of_each_layer(lokr_numbers)),
    "vera": ({"rank": 16}, of_each_layer(lambda i, o: 16 + o)),
    "fourierft": ({"frequencies": 50}, of_each_layer(lambda i, o: 50)),
    "oft": ({"block_size": 8}, of_each_layer(lambda i, o: i // 8 * (8 * 7 // 2))),
    "boft": ({"block_size": 4, "factors": 3}, of_each_layer(lambda i, o: 3 * (i // 4) * 4 * 4 + o)),
    "hra": ({"rank": 4}, of_each_layer(lambda i, o: 4 * i)),
    "miss": ({"rank": 8}, of_each_layer(lambda i, o: 8 * o)),
    "randlora": ({"rank": 8}, of_each_layer(lambda i, o: math.ceil(min(i, o) / 8) * (8 + min(i, o)))),
    "c3a": ({"block_size": 16}, of_each_layer(lambda i, o: i * o // 16)),
    "shira": ({"rank": 4}, of_each_layer(lambda i, o: 4 * (i + o))),
    "ia3": ({}, 2 * (32 + 32 + 128)),
    "ln_tuning": ({}, 5 * 64),
}
DRAWN = {"loha", "lokr", "vera", "fourierft", "hra", "randlora", "shira"}
IDS = torch.tensor([[5, 9, 2, 40, 17, 31, 8, 3]])


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def base(name, *, labels=0):
    """A small random model, or one of an encoder with a head for so many labels."""
    torch.manual_seed(0)
    config = type(CONFIGS[name]).from_dict(CONFIGS[name].to_dict() | ({"num_labels": labels} if labels else {}))
    kinds = {"t5": AutoModelForSeq2SeqLM, "bert": AutoModelForSequenceClassification, "roberta": AutoModelForSequenceClassification}
    return kinds.get(name, AutoModelForCausalLM).from_config(config).eval()


def tuned(method, architecture="llama", *, seed=0, setup=None, **settings):
    """The small model with the adapter of a method, its start as a run's."""
    entry = get_method(method)
    return apply_method(entry, base(architecture), entry.resolve(settings), setup or Setup(seed=seed)).eval()


def logits(model, ids=IDS):
    inputs = {"decoder_input_ids": ids} if model.config.model_type == "t5" else {}
    with torch.no_grad():
        return model(input_ids=ids, **inputs).logits


def stir(model):
    """Changes every trained weight, as some steps would."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in trained(model).values():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return model


def trained(model):
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def drawn(model):
    """All that a start may draw: parameters, buffers, and the places that PEFT keeps outside both."""
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, module in model.named_modules():
        for kind in ("indices", "shira_indices"):
            if hasattr(module, kind):
                found[f"{name}.{kind}"] = getattr(module, kind)["default"]
    return found


@pytest.mark.parametrize(("method", "settings", "count"), [(name, *each) for name, each in METHODS.items()], ids=METHODS)
def test_a_tuner_on_llama(method, settings, count, tmp_path):
    model = tuned(method, **settings)
    torch.testing.assert_close(logits(model), logits(base("llama")), rtol=0, atol=1e-5, msg="the start is the base")
    weights = trained(model)
    assert sum(weight.numel() for weight in weights.values()) == count
    assert all(weight.dtype == torch.float32 for weight in weights.values())

    model(input_ids=IDS, labels=IDS).loss.backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == weights.keys()

    before = logits(stir(model))
    assert (before - logits(base("llama"))).abs().max() > 1e-3
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base("llama"))), "off, the base is as it was"
    Hooks(model).save(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base("llama"), tmp_path).eval()), before), "the file gives the bits back"
    torch.testing.assert_close(logits(merged(model)), before, rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_start_is_a_function_of_the_seed(method):
    settings, _ = METHODS[method]
    first = drawn(tuned(method, **settings))
    torch.manual_seed(99)
    again, other = drawn(tuned(method, **settings)), drawn(tuned(method, seed=1, **settings))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items()) == (method in DRAWN)


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("oft", {"block_size": 24}, "24, which does not divide this model's layer sizes 64, 128"),
        ("boft", {"factors": 8}, "128 would have to divide this model's widths [64]"),
        ("c3a", {"block_size": 64}, "64, which does not divide this model's layer sizes 32"),
        ("miss", {"variant": "blocks", "rank": 64}, "64, which does not divide this model's layer sizes 32"),
        ("miss", {"variant": "mini", "mini_rank": 3}, "3, which does not divide this model's layer sizes 32, 64, 128"),
        ("miss", {"rank": 65}, "65, more than the 64 inputs of the narrowest layer"),
        ("hra", {"rank": 3}, "it must be even"),
        ("shira", {"rank": 22}, "at most 21"),
        ("fourierft", {"frequencies": 2049}, "the smallest layer has only 2048 weights"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_training(method, settings, words):
    with pytest.raises(UserError) as refused:
        tuned(method, **settings)
    assert (refused.value.code, words in refused.value.message) == ("method_setting", True)
    assert refused.value.where["field"] in {f"method.settings.{name}" for name in settings}


@pytest.mark.parametrize(
    ("sizes", "at_most", "found"), [([576, 192, 1536], 128, 96), ([768, 3072], 128, 128), ([64, 128], 32, 32), ([7], 4, 1)]
)
def test_a_size_is_chosen_that_divides_all_layers(sizes, at_most, found):
    assert divisor(sizes, 0, at_most=at_most, method="c3a", setting="block_size") == found


@pytest.mark.parametrize("variant", ["balance", "blocks", "mini"])
def test_each_kind_of_miss_starts_at_the_base_and_merges(variant):
    model = tuned("miss", variant=variant, rank=0)
    torch.testing.assert_close(logits(model), logits(base("llama")), rtol=0, atol=1e-5)
    before = logits(stir(model))
    torch.testing.assert_close(logits(merged(model)), before, rtol=0, atol=2e-5)


def test_blocks_along_a_diagonal_have_the_gradient_of_autograd():
    blocks = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    (made,) = BlockDiagonal().forward(blocks)
    weight = torch.randn_like(made)
    (expected,) = torch.autograd.grad((made * weight).sum(), blocks)
    assert made.shape == (2, 12, 12)
    assert torch.equal(BlockDiagonal().backward(weight, blocks)[0], expected)


def test_butterfly_factors_reach_the_whole_width():
    """Of 64 inputs in blocks of 4: one factor mixes 4 with each other, three mix 16."""
    reached = {}
    for factors in (1, 3):
        model = stir(tuned("boft", block_size=4, factors=factors))
        rotation, _ = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").get_delta_weight("default")
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(64), rtol=0, atol=1e-5)
        reached[factors] = int((rotation.detach().abs() > 1e-9).sum(0).max())
    assert reached == {1: 4, 3: 16}


def test_factors_near_one_are_not_decayed_towards_zero():
    assert {group.weight_decay for group in grouped(trained(tuned("ia3")), 0.1, lambda _: 1.0)} == {0.0}


def test_norms_of_a_16_bit_base_are_trained_in_float32():
    entry = get_method("ln_tuning")
    model = apply_method(entry, base("llama").bfloat16(), entry.resolve({}), Setup(seed=0))
    assert {weight.dtype for weight in trained(model).values()} == {torch.float32}
    assert {weight.dtype for name, weight in model.named_parameters() if not weight.requires_grad} == {torch.bfloat16}


LAYERS = {
    "llama": (["self_attn.k_proj", "self_attn.v_proj"], ["mlp.down_proj"]),
    "gpt2": (["attn.c_attn"], ["mlp.c_proj"]),
    "bert": (["attention.self.key", "attention.self.value"], ["output.dense"]),
    "roberta": (["attention.self.key", "attention.self.value"], ["output.dense"]),
}


@pytest.mark.parametrize("architecture", LAYERS)
def test_ia3_finds_keys_values_and_the_way_down(architecture):
    model = base(architecture)
    stem = {"llama": "model.layers", "gpt2": "transformer.h"}.get(architecture, f"{architecture}.encoder.layer")
    for select, ends in zip((key_value_layers, down_layers), LAYERS[architecture], strict=True):
        assert [layer.name for layer in select(frame_of(model))] == sorted(f"{stem}.{layer}.{end}" for layer in range(2) for end in ends)


def test_ia3_finds_them_in_encoder_and_decoder():
    blocks = [f"encoder.block.{layer}.layer.0.SelfAttention" for layer in range(2)]
    blocks += [f"decoder.block.{layer}.layer.{place}" for layer in range(2) for place in ("0.SelfAttention", "1.EncDecAttention")]
    frame = frame_of(base("t5"))
    assert [layer.name for layer in key_value_layers(frame)] == sorted(f"{block}.{name}" for block in blocks for name in "kv")
    feed_forward = [f"{half}.block.{layer}.layer.{place}" for half, place in (("encoder", 1), ("decoder", 2)) for layer in range(2)]
    assert [layer.name for layer in down_layers(frame)] == sorted(f"{block}.DenseReluDense.wo" for block in feed_forward)


@pytest.mark.parametrize(("architecture", "count"), [("llama", 5), ("gpt2", 5), ("bert", 5), ("roberta", 5), ("t5", 12)])
def test_norms_are_found_whatever_they_are_called(architecture, count):
    model = base(architecture)
    names = [norm.name for norm in frame_of(model).norms]
    norms = {name.removesuffix(".weight") for name, weight in model.named_parameters() if "norm" in name.lower() or ".ln_" in name}
    assert set(names) == {name.removesuffix(".bias") for name in norms}
    assert len(names) == count


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "roberta", "qwen2", "t5"])
@pytest.mark.parametrize("method", ["ia3", "ln_tuning"])
def test_selections_on_other_architectures_start_at_the_base_and_merge(method, architecture):
    task = "sequence_classification" if architecture in {"bert", "roberta"} else "seq2seq_lm" if architecture == "t5" else "causal_lm"
    model = tuned(method, architecture, setup=Setup(seed=0, task=task))
    torch.testing.assert_close(logits(model), logits(base(architecture)), rtol=0, atol=1e-5)
    before = logits(stir(model))
    assert (before - logits(base(architecture))).abs().max() > 1e-3
    torch.testing.assert_close(logits(merged(model)), before, rtol=0, atol=5e-5)


@pytest.mark.parametrize("method", ["loha", "oft", "vera", "ln_tuning"])
def test_a_head_of_several_layers_is_merged_as_it_was_trained(method):
    """RoBERTa's head has no weight of its own, by which PEFT would move it."""
    model = stir(tuned(method, "roberta", setup=Setup(seed=0, task="sequence_classification")))
    before, head = logits(model), [weight for name, weight in trained(model).items() if "modules_to_save" in name]
    assert len(head) == 4
    plain = merged(model)
    torch.testing.assert_close(logits(plain), before, rtol=0, atol=5e-5)
    assert type(plain.classifier).__name__ == "RobertaClassificationHead"


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "qwen2"])
def test_bitfit_trains_every_bias_but_the_heads(architecture, tmp_path):
    plain = base(architecture)
    biases = {
        name.removesuffix(".bias"): bias for name, bias in plain.named_parameters() if name.endswith(".bias") and "classifier" not in name
    }
    assert {name.removesuffix(".delta") for name in get_method("bitfit").plan_adapter({}, frame_of(plain)).weights} == biases.keys()
    task = "sequence_classification" if architecture == "bert" else "causal_lm"
    model = tuned("bitfit", architecture, setup=Setup(seed=0, task=task))
    changes = {name: weight for name, weight in trained(model).items() if "bitfit" in name}
    assert sum(change.numel() for change in changes.values()) == sum(bias.numel() for bias in biases.values())
    model(input_ids=IDS, labels=torch.tensor([1]) if architecture == "bert" else IDS).loss.backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == trained(model).keys()
    before = logits(stir(model))
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(plain)), "off, the biases and the head are the base's"
    Hooks(model).save(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base(architecture), tmp_path).eval()), before)
    with torch.no_grad():
        sums = {name: bias + changes[f"base_model.model.{name}.bitfit_delta.default"] for name, bias in biases.items()}
    result = merged(model)
    assert all(torch.equal(result.get_parameter(f"{name}.bias"), total) for name, total in sums.items())
    torch.testing.assert_close(logits(result), before, rtol=0, atol=2e-5)


def test_bitfit_merges_into_the_layer_and_out_again():
    model = stir(tuned("bitfit", "qwen2"))
    before = logits(model)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), before, rtol=0, atol=2e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model), before, rtol=0, atol=2e-5)


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_bitfit_says_what_an_architecture_lacks(architecture):
    with pytest.raises(UserError) as refused:
        tuned("bitfit", architecture)
    assert refused.value.code == "method_cannot"
    assert f"its architecture ({architecture}) has no biases" in refused.value.message


def test_what_peft_does_not_support_is_refused_in_its_words():
    with pytest.raises(UserError) as refused:
        tuned("c3a", "gpt2", targets="attention", block_size=0)
    assert refused.value.code == "method_cannot"
    assert "Conv1D" in refused.value.message
