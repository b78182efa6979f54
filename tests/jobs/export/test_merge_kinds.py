"""What is merged tensor by tensor besides plain LoRA, against peft's own merge."""

import json

import numpy as np
import pytest
import torch
from peft import (
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
)
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

from jobs.export.adapter_file import CONFIG, PREFIX, WEIGHTS
from jobs.export.merge import merge
from tests.jobs.export.adapters import assert_bitwise, changed, load, make_adapter, merged_by_peft, stored
from tests.tiny import VOCABULARY, make_tiny_model, tiny_config

LINEAR = ["q_proj", "v_proj", "up_proj", "down_proj"]
# Bit for bit: the same float32 operations in the same order.
EXACT = {
    "modules to save": LoraConfig(r=4, target_modules=LINEAR, modules_to_save=["lm_head", "norm", "embed_tokens"]),
    "tokens beside lora": LoraConfig(r=4, target_modules=LINEAR, trainable_token_indices=[3, 5, 200]),
    "tokens of two": LoraConfig(r=4, target_modules=LINEAR, trainable_token_indices={"embed_tokens": [3, 5], "lm_head": [7]}),
    "tokens": TrainableTokensConfig(token_indices=[257, 0, 9]),
    "layer norms": LNTuningConfig(target_modules=["input_layernorm", "norm"]),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], modules_to_save=["lm_head"]),
    "loha": LoHaConfig(r=4, alpha=7, target_modules=LINEAR, rank_pattern={"v_proj": 2}, alpha_pattern={"layers.0.mlp.up_proj": 3}),
    "vera": VeraConfig(r=8, target_modules=["q_proj", "o_proj"]),
    "vera, long sums": VeraConfig(r=256, target_modules=["q_proj", "v_proj"]),
}


# To the rounding of float32: products of tiny matrices are summed in another order, norms likewise.
ROUNDED = {
    "lokr": LoKrConfig(r=4, alpha=7, target_modules=LINEAR, rank_pattern={"v_proj": 2}),
    "lokr of two pairs": LoKrConfig(r=2, target_modules=LINEAR, decompose_both=True, decompose_factor=16),
    "dora": LoraConfig(r=4, target_modules="all-linear", use_dora=True),
    "embedding": LoraConfig(r=4, lora_alpha=7, target_modules=["embed_tokens", "q_proj"]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config", EXACT.values(), ids=EXACT.keys())
def test_streamed_is_bitwise_pefts(tmp_path, config, dtype):
    base = make_tiny_model(tmp_path / "base", dtype=dtype)
    adapter = make_adapter(base, tmp_path / "adapter", config)
    assert merge(base, adapter, tmp_path / "out", shard_bytes=100_000) == "streamed"
    found, before = stored(tmp_path / "out"), stored(base)
    assert found.keys() == before.keys()
    assert changed(found, before)
    assert_bitwise(found, merged_by_peft(base, adapter))
    merge(base, adapter, tmp_path / "wide", shard_bytes=10**9, dtype="float32")
    assert_bitwise(stored(tmp_path / "wide"), merged_by_peft(base, adapter, torch.float32))


@pytest.mark.parametrize("shape", [tiny_config(), tiny_config(hidden_size=256, intermediate_size=1536)], ids=["small", "blocks"])
@pytest.mark.parametrize("config", ROUNDED.values(), ids=ROUNDED.keys())
def test_streamed_is_pefts_to_the_rounding_of_float32(tmp_path, config, shape):
    base = make_tiny_model(tmp_path / "base", config=shape)
    adapter = make_adapter(base, tmp_path / "adapter", config)
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    found, expected = stored(tmp_path / "out"), merged_by_peft(base, adapter)
    assert len(changed(found, stored(base))) > 2
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("config", ROUNDED.values(), ids=ROUNDED.keys())
def test_in_16_bits_that_is_at_most_the_next_number(tmp_path, config):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", config)
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    exact = merged_by_peft(base, adapter, torch.float32)
    for name, tensor in stored(tmp_path / "out").items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor.float(), exact[name], rtol=2**-8, atol=1e-7)  # half a unit in the last place


def test_transposed_weights(tmp_path):
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64, tie_word_embeddings=False)
    base = make_tiny_model(tmp_path / "base", config=config)
    targets = ["c_attn", "c_fc", "mlp.c_proj"]
    kinds = {
        "lora": LoraConfig(r=4, target_modules=targets, fan_in_fan_out=True, lora_bias=True),
        "ia3": IA3Config(target_modules=targets, feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True),
        "vera": VeraConfig(r=8, target_modules=["c_attn"], fan_in_fan_out=True),
        "dora": LoraConfig(r=4, target_modules=targets, fan_in_fan_out=True, use_dora=True),
    }
    for name, kind in kinds.items():
        adapter = make_adapter(base, tmp_path / name, kind)
        assert merge(base, adapter, tmp_path / f"{name}-out", shard_bytes=10**9) == "streamed"
        found, expected = stored(tmp_path / f"{name}-out"), merged_by_peft(base, adapter)
        assert changed(found, stored(base))
        if name == "dora":
            for tensor, value in found.items():
                torch.testing.assert_close(value, expected[tensor], rtol=1e-6, atol=0)
        else:
            assert_bitwise(found, expected)


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(2, 60)[None], use_cache=False).logits


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, target_modules=["embed_tokens"]),
        LoraConfig(r=4, target_modules=["lm_head", "q_proj"]),
        LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
        LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    ],
    ids=["embedding", "head", "saved embedding", "saved head"],
)
def test_a_tied_weight_that_was_trained_in_one_place_becomes_two(tmp_path, config):
    from peft import PeftModel

    base = make_tiny_model(tmp_path / "base", config=tiny_config(tie_word_embeddings=True, initializer_range=0.15))
    adapter = make_adapter(base, tmp_path / "adapter", config)
    trained = logits(PeftModel.from_pretrained(load(base), adapter).eval())
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    merged = load(tmp_path / "out").eval()
    assert not merged.config.tie_word_embeddings
    assert stored(tmp_path / "out").keys() - stored(base).keys() == {"lm_head.weight"}
    assert (trained - logits(load(base).eval())).abs().max() > 0.1
    torch.testing.assert_close(logits(merged), trained, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[3, 5]), TrainableTokensConfig(token_indices=[3, 5])],
    ids=["beside lora", "alone"],
)
def test_rows_of_a_tied_weight_are_trained_in_both_places_and_stay_tied(tmp_path, config):
    base = make_tiny_model(tmp_path / "base", config=tiny_config(tie_word_embeddings=True))
    adapter = make_adapter(base, tmp_path / "adapter", config)
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    found, before = stored(tmp_path / "out"), stored(base)
    assert found.keys() == before.keys()
    assert load(tmp_path / "out").config.tie_word_embeddings
    assert_bitwise(found, merged_by_peft(base, adapter))
    rows = (found["model.embed_tokens.weight"] != before["model.embed_tokens.weight"]).any(1)
    assert rows.nonzero().flatten().tolist() == [3, 5]


def test_what_has_no_formula_here_is_merged_by_peft(tmp_path):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    for name, config in {"hra": HRAConfig(r=4, target_modules=LINEAR), "olora": LoraConfig(r=4, init_lora_weights="olora")}.items():
        adapter = make_adapter(base, tmp_path / name, config)
        assert merge(base, adapter, tmp_path / f"{name}-out", shard_bytes=10**9) == "in memory"
        assert_bitwise(load(tmp_path / f"{name}-out").state_dict(), merged_by_peft(base, adapter))


def test_what_does_not_merge_is_said(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match="PROMPT_TUNING adapters do not merge"):
        merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
    assert not (tmp_path / "out").exists()


def test_vera_without_its_matrices_is_left_to_peft(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", VeraConfig(r=8, target_modules=["q_proj"], save_projection=False))
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "in memory"
    assert_bitwise(load(tmp_path / "out").state_dict(), merged_by_peft(base, adapter))


def test_an_adapter_in_16_bits_is_widened_as_peft_does(tmp_path):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", LoraConfig(r=4, target_modules=LINEAR))
    save_file({name: value.to(torch.bfloat16) for name, value in load_file(adapter / WEIGHTS).items()}, adapter / WEIGHTS)
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    assert_bitwise(stored(tmp_path / "out"), merged_by_peft(base, adapter))


def test_the_config_must_say_which_rows_were_trained(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", TrainableTokensConfig(token_indices=[3, 5]))
    weights = load_file(adapter / WEIGHTS)
    key = f"{PREFIX}model.embed_tokens.trainable_tokens_delta"
    assert np.array_equal(weights[key].shape, (2, 64))
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, "token_indices": [3, 5, 6]}))
    with pytest.raises(ValueError, match="does not fit the base"):
        merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
