import errno
import json
import os
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

from jobs.errors import GraftError
from jobs.export.adapter_file import CONFIG, PREFIX, WEIGHTS
from jobs.export.merge import merge
from jobs.export.shards import INDEX, read_checkpoint
from jobs.export.updates.product import SAME_ORDER
from tests.jobs.export.adapters import assert_bitwise, changed, load, make_adapter, merged_by_peft, stored
from tests.tiny import VOCABULARY, make_tiny_model, tiny_config

SHARD_BYTES = 40_000


def lora(**options):
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora_alpha": 7, "r": 6, "use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}},
        {"r": SAME_ORDER + 8},
    ],
    ids=["plain", "rslora", "patterns", "long sums"],
)
def test_streamed_merge_is_bitwise_pefts(tmp_path, dtype, options):
    base = make_tiny_model(tmp_path / "base", config=tiny_config(tie_word_embeddings=True), dtype=dtype, shard_bytes=SHARD_BYTES)
    adapter = make_adapter(base, tmp_path / "adapter", lora(**options))
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    found = stored(tmp_path / "out")
    assert_bitwise(found, merged_by_peft(base, adapter))
    before = stored(base)
    assert found.keys() == before.keys()
    assert len(changed(found, before)) == 2 * 7  # every linear layer of both blocks, neither embedding nor norms


@pytest.mark.parametrize("rank", [1, 16, 64, SAME_ORDER])
def test_large_weights_in_many_blocks_are_bitwise_pefts(tmp_path, rank):
    config = tiny_config(hidden_size=768, intermediate_size=2048, num_hidden_layers=1)
    base = make_tiny_model(tmp_path / "base", config=config, dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", lora(r=rank, lora_alpha=rank * 1.7))
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    assert_bitwise(stored(tmp_path / "out"), merged_by_peft(base, adapter))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_in_float32_the_merged_weight_is_the_sum_of_base_and_update(tmp_path, dtype):
    base = make_tiny_model(tmp_path / "base", dtype=dtype)
    adapter = make_adapter(base, tmp_path / "adapter", lora())
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
    adapter = make_adapter(base, tmp_path / "adapter", lora())
    config = json.loads((base / "config.json").read_text())
    kept = {name: value for name, value in config.items() if name != "dtype"}
    (base / "config.json").write_text(json.dumps({**kept, "torch_dtype": "bfloat16", "text_config": {"dtype": "bfloat16", "a": 1}}))
    merge(base, adapter, tmp_path / "out", shard_bytes=10**9, dtype="float32")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {**kept, "dtype": "float32", "torch_dtype": "float32", "text_config": {"dtype": "float32", "a": 1}}


@pytest.mark.parametrize(("dtype", "wide"), [("base", 1), ("float32", 2)])
def test_new_shards_are_small_and_indexed(tmp_path, dtype, wide):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", lora())
    told = []
    merge(base, adapter, tmp_path / "out", shard_bytes=SHARD_BYTES, dtype=dtype, progress=lambda *numbers: told.append(numbers))
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    tensors = read_checkpoint(tmp_path / "out")
    assert told == [(number, len(tensors)) for number in range(1, len(tensors) + 1)]
    assert index["metadata"]["total_size"] == sum(tensor.size for tensor in tensors)
    assert index["metadata"]["total_size"] == wide * sum(tensor.size for tensor in read_checkpoint(base))
    sizes: dict[str, list[int]] = {}
    for tensor in tensors:
        assert index["weight_map"][tensor.name] == tensor.file.name
        sizes.setdefault(tensor.file.name, []).append(tensor.size)
    assert len(sizes) > 3
    assert all(sum(shard) <= SHARD_BYTES or len(shard) == 1 for shard in sizes.values())
    expected = merged_by_peft(base, adapter, "auto" if dtype == "base" else torch.float32)
    assert_bitwise(stored(tmp_path / "out"), expected)
    assert_bitwise(load(tmp_path / "out").state_dict(), expected)


def test_a_base_with_transposed_weights_and_biases_is_streamed_too(tmp_path):
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    base = make_tiny_model(tmp_path / "base", config=config)
    adapter = make_adapter(base, tmp_path / "adapter", lora(fan_in_fan_out=True, target_modules=["c_attn", "c_fc"], bias="all"))
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9) == "streamed"
    found, before = stored(tmp_path / "out"), stored(base)
    assert_bitwise(found, merged_by_peft(base, adapter))
    biases = {name for name in before if name.endswith(".bias")}
    assert changed(found, before) == biases | {f"transformer.h.{n}.{layer}.weight" for n in (0, 1) for layer in ("attn.c_attn", "mlp.c_fc")}


def test_where_the_kernel_cannot_copy_the_bytes_go_through_this_process(tmp_path, monkeypatch):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", lora(target_modules=["q_proj"]))

    def refuse(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr("jobs.export.shards.os.copy_file_range", refuse)
    merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
    assert_bitwise(stored(tmp_path / "out"), merged_by_peft(base, adapter))


@pytest.mark.parametrize(
    ("options", "how"),
    [({}, "streamed"), ({"init_lora_weights": "pissa"}, "in memory")],
    ids=["streamed", "in memory"],
)
class TestRefusals:
    def test_a_stray_adapter_tensor_is_refused_and_nothing_is_left(self, tmp_path, options, how):
        base = make_tiny_model(tmp_path / "base")
        adapter = make_adapter(base, tmp_path / "adapter", lora(**options))
        assert merge(base, adapter, tmp_path / "good", shard_bytes=10**9) == how
        weights = load_file(adapter / WEIGHTS)
        weights[f"{PREFIX}model.layers.7.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 64)
        save_file(weights, adapter / WEIGHTS)
        with pytest.raises(ValueError, match=r"1 adapter tensors match no tensor of the base, .*layers\.7\.mlp"):
            merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("number", [float("inf"), float("nan"), 3e38])
    def test_a_merged_weight_that_is_not_finite_is_refused(self, tmp_path, options, how, number):
        base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
        adapter = make_adapter(base, tmp_path / "adapter", lora(**options))
        weights = load_file(adapter / WEIGHTS)
        name = f"{PREFIX}model.layers.1.mlp.up_proj.lora_"
        weights[f"{name}A.weight"][2] = 1
        weights[f"{name}B.weight"][3, 2] = number  # the last one overflows when it is scaled
        save_file(weights, adapter / WEIGHTS)
        with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight is not finite"):
            merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
        assert not (tmp_path / "out").exists()

    def test_an_adapter_of_another_shape_is_refused(self, tmp_path, options, how):
        base = make_tiny_model(tmp_path / "base")
        other = make_tiny_model(tmp_path / "other", config=tiny_config(intermediate_size=96))
        adapter = make_adapter(other, tmp_path / "adapter", lora(**options))
        with pytest.raises(ValueError, match="does not fit the base"):
            merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
        assert not (tmp_path / "out").exists()

    def test_too_little_room_is_said_before_anything_is_written(self, tmp_path, monkeypatch, options, how):
        base = make_tiny_model(tmp_path / "base")
        adapter = make_adapter(base, tmp_path / "adapter", lora(**options))
        size = sum(tensor.size for tensor in read_checkpoint(base))
        monkeypatch.setattr("jobs.export.merge.shutil.disk_usage", lambda path: SimpleNamespace(free=size - 1))
        with pytest.raises(GraftError) as refused:
            merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
        assert refused.value.code == "disk_space"
        assert f"{size:,}" in refused.value.message
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes",
    [{"init_lora_weights": "pissa_niter_4"}, {"init_lora_weights": "lora_ga"}, {"init_lora_weights": "corda"}, {"peft_type": "XLORA"}],
)
def test_what_peft_would_merge_wrongly_is_refused(tmp_path, changes):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", lora())
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, **changes}))
    with pytest.raises(ValueError, match=r"changed the base|X-LoRA"):
        merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
    assert not (tmp_path / "out").exists()


def test_repeated_layers_are_refused(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", lora(layer_replication=[[0, 2], [1, 2]]))
    with pytest.raises(ValueError, match="repeats layers"):
        merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
    assert not (tmp_path / "out").exists()


def test_an_option_that_is_not_known_here_is_left_to_peft(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", lora())
    config = json.loads((adapter / CONFIG).read_text())
    for value, how in ((None, "streamed"), (3, "in memory")):
        (adapter / CONFIG).write_text(json.dumps({**config, "an_option_of_tomorrow": value}))
        assert merge(base, adapter, tmp_path / how, shard_bytes=10**9) == how
        assert_bitwise(load(tmp_path / how).state_dict(), merged_by_peft(base, adapter))


def test_memory_holds_one_weight_not_the_model(tmp_path, monkeypatch):
    base = make_tiny_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", lora(target_modules=["q_proj"]))
    loaded = []
    original = type(read_checkpoint(base)[0]).reader
    monkeypatch.setattr("jobs.export.shards.StoredTensor.reader", lambda self: loaded.append(self.name) or original(self))
    merge(base, adapter, tmp_path / "out", shard_bytes=10**9)
    layers = [f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)]
    assert sorted(loaded) == sorted(
        [f"{layer}.weight" for layer in layers] + [f"{PREFIX}{layer}.lora_{half}.weight" for layer in layers for half in "AB"]
    )
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == json.loads((base / "config.json").read_text())
