import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config

from jobs.export.adapter import CONFIG, WEIGHTS
from jobs.export.merge import PREFIX, CannotStreamError, merge, merge_lora
from jobs.export.shards import INDEX, read_checkpoint
from tests.tiny import VOCABULARY, make_tiny_model, tiny_config

SHARD_BYTES = 40_000


def load(folder, dtype="auto"):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)


def make_adapter(base, folder, **options):
    """A LoRA adapter with random B (as after a training), saved by peft."""
    torch.manual_seed(1)
    model = get_peft_model(load(base), LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def merged_by_peft(base, adapter, dtype="auto"):
    return PeftModel.from_pretrained(load(base, dtype), adapter).merge_and_unload().state_dict()


def stored(folder):
    return {tensor.name: tensor.load() for tensor in read_checkpoint(folder)}


def assert_bitwise(found, expected):
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}}],
    ids=["plain", "rslora", "patterns"],
)
def test_streamed_merge_is_bitwise_pefts(tmp_path, dtype, options):
    base = make_tiny_model(tmp_path / "base", config=tiny_config(tie_word_embeddings=True), dtype=dtype, shard_bytes=SHARD_BYTES)
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    found = stored(tmp_path / "out")
    assert_bitwise(found, merged_by_peft(base, adapter))
    before = stored(base)
    assert found.keys() == before.keys()
    changed = {name for name in found if not torch.equal(found[name], before[name])}
    assert len(changed) == 2 * 7  # every linear layer of both blocks, neither embedding nor norms


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_in_float32_the_merged_weight_is_the_sum_of_base_and_update(tmp_path, dtype):
    base = make_tiny_model(tmp_path / "base", dtype=dtype)
    adapter = make_adapter(base, tmp_path / "adapter")
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9, dtype="float32") == "streamed"
    found, before, update = stored(tmp_path / "out"), stored(base), load_file(adapter / WEIGHTS)
    assert found.keys() == before.keys()
    for name, tensor in found.items():
        key = PREFIX + name.removesuffix(".weight")
        down, up = (update.get(f"{key}.lora_{half}.weight") for half in "AB")
        expected = before[name].float() if down is None else before[name].float() + (up @ down) * (8 / 4)
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected), name
    assert_bitwise(found, merged_by_peft(base, adapter, torch.float32))
    assert_bitwise(load(tmp_path / "out").state_dict(), found)  # whoever loads it without a word gets float32


def test_float32_is_said_in_every_part_of_the_config(tmp_path):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter")
    config = json.loads((base / "config.json").read_text())
    kept = {name: value for name, value in config.items() if name != "dtype"}
    (base / "config.json").write_text(json.dumps({**kept, "torch_dtype": "bfloat16", "text_config": {"dtype": "bfloat16", "a": 1}}))
    merge(base, adapter, tmp_path / "out", shard_bytes=10**9, dtype="float32")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {**kept, "dtype": "float32", "torch_dtype": "float32", "text_config": {"dtype": "float32", "a": 1}}


def test_dequantised_weights_keep_their_bits_in_float32(tmp_path):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    name = "model.layers.0.mlp.up_proj.weight"
    coarse = (stored(base)[name].float() * 3).round() / 3  # thirds: no bfloat16 holds them
    merge(base, adapter, tmp_path / "out", shard_bytes=10**9, dtype="float32", dequantised={name: coarse}.get)
    assert torch.equal(stored(tmp_path / "out")[name], coarse)


@pytest.mark.parametrize(("dtype", "wide"), [("base", 1), ("float32", 2)])
def test_new_shards_are_small_and_indexed(tmp_path, dtype, wide):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter")
    merge(base, adapter, tmp_path / "out", shard_bytes=SHARD_BYTES, dtype=dtype)
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    tensors = read_checkpoint(tmp_path / "out")
    assert index["metadata"]["total_size"] == sum(tensor.size for tensor in tensors)
    assert index["metadata"]["total_size"] == wide * sum(tensor.size for tensor in read_checkpoint(base))
    sizes: dict[str, list[int]] = {}
    for tensor in tensors:
        assert index["weight_map"][tensor.name] == tensor.file.name
        sizes.setdefault(tensor.file.name, []).append(tensor.size)
    assert len(sizes) > 3
    assert all(sum(shard) <= SHARD_BYTES or len(shard) == 1 for shard in sizes.values())
    for name in sizes:
        load_file(tmp_path / "out" / name)  # the library accepts our headers
    expected = merged_by_peft(base, adapter, "auto" if dtype == "base" else torch.float32)
    assert_bitwise(load(tmp_path / "out").state_dict(), expected)


def test_a_base_with_transposed_weights_is_streamed_too(tmp_path):
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    base = make_tiny_model(tmp_path / "base", config=config)
    adapter = make_adapter(base, tmp_path / "adapter", fan_in_fan_out=True, target_modules=["c_attn", "c_fc"])
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    assert_bitwise(load(tmp_path / "out").state_dict(), merged_by_peft(base, adapter))


@pytest.mark.parametrize("options", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"target_modules": ["embed_tokens", "q_proj"]}])
def test_more_than_plain_lora_is_merged_by_peft_in_memory(tmp_path, options):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    with pytest.raises(CannotStreamError):
        merge_lora(base, adapter, tmp_path / "none", shard_bytes=10**9)
    assert not (tmp_path / "none").exists()
    for dtype, loaded_as in (("base", "auto"), ("float32", torch.float32)):
        assert merge(base, adapter, tmp_path / f"out-{dtype}", shard_bytes=10**9, dtype=dtype) == "in memory"
        assert_bitwise(load(tmp_path / f"out-{dtype}").state_dict(), merged_by_peft(base, adapter, loaded_as))


def test_a_stray_adapter_tensor_is_refused_and_nothing_is_left(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    weights = load_file(adapter / WEIGHTS)
    weights[f"{PREFIX}model.layers.7.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 64)
    save_file(weights, adapter / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 adapter tensors match no tensor of the base, .*layers\.7\.mlp"):
        merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["lm_head"]}], ids=["streamed", "in memory"])
def test_a_merged_weight_that_is_not_finite_is_refused(tmp_path, options):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    weights = load_file(adapter / WEIGHTS)
    weights[f"{PREFIX}model.layers.1.mlp.up_proj.lora_B.weight"][3, 2] = float("inf")
    save_file(weights, adapter / WEIGHTS)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight is not finite"):
        merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
    assert not (tmp_path / "out").exists()


def test_memory_holds_one_weight_not_the_model(tmp_path, monkeypatch):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    loaded = []
    original = type(read_checkpoint(base)[0]).load
    monkeypatch.setattr("jobs.export.shards.StoredTensor.load", lambda self: loaded.append(self.name) or original(self))
    merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
    assert sorted(loaded) == [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)]
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == json.loads((base / "config.json").read_text())
    assert (adapter / CONFIG).exists()
