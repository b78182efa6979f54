"""What the headers say of a model is what torch, PEFT and bitsandbytes make of it."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, GPTNeoXConfig, LlamaConfig, MixtralConfig, Phi3Config, Qwen2Config

from jobs.device import Device
from jobs.methods.lora.apply import apply
from jobs.methods.setup import Setup
from jobs.planning.shape import read_shape
from jobs.planning.way import choose_way
from jobs.planning.weights import nf4_bytes, trained_parameters
from jobs.spec import DataSpec, MethodSpec, ModelSpec, RunSpec
from tests.tiny import VOCABULARY, make_tiny_model

CPU = Device(kind="cpu", name="a CPU", memory_bytes=2**34, threads=2, bfloat16=True, count=1)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
CONFIGS = {
    "llama, tied": LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
    "llama, untied": LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=False),
    "qwen2, biases": Qwen2Config(**SIZES, num_key_value_heads=2),
    "gemma2, four norms": Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=16),
    "phi3, joined layers": Phi3Config(**SIZES, num_key_value_heads=2),
    "gpt_neox": GPTNeoXConfig(**SIZES),
    "gpt2, Conv1D": GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1),
    "mixtral, experts": MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4),
}


def lora_spec(folder, **settings):
    return RunSpec(ModelSpec(str(folder)), DataSpec("rows.jsonl"), method=MethodSpec("lora", settings))


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_and_adapters_are_those_of_the_loaded_model(name, tmp_path):
    folder = make_tiny_model(tmp_path / "m", config=CONFIGS[name])
    model = AutoModelForCausalLM.from_pretrained(folder)
    shape = read_shape(folder)
    assert shape.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (shape.layers, shape.hidden, shape.vocabulary) == (2, 64, VOCABULARY)
    settings = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear"}
    planned = trained_parameters(shape, choose_way(lora_spec(folder, rank=4), CPU, shape))
    assert planned == apply(model, settings, Setup(seed=0)).get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("name", ["llama, untied", "gpt2, Conv1D", "gpt_neox"])
def test_an_adapter_on_attention_alone_is_counted_as_it_is_made(name, tmp_path):
    folder = make_tiny_model(tmp_path / "m", config=CONFIGS[name])
    settings = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "attention"}
    shape = read_shape(folder)
    planned = trained_parameters(shape, choose_way(lora_spec(folder, rank=4, targets="attention"), CPU, shape))
    adapted = apply(AutoModelForCausalLM.from_pretrained(folder), settings, Setup(seed=0))
    assert planned == sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad) > 0


def test_parts_are_told_apart(tmp_path):
    shape = read_shape(make_tiny_model(tmp_path / "m", config=CONFIGS["llama, untied"]))
    attention, mlp = 2 * (2 * 64 * 64 + 2 * 32 * 64), 2 * 3 * 64 * 96
    table = VOCABULARY * 64
    assert shape.parameters == {"embeddings": table, "attention": attention, "mlp": mlp, "norms": 5 * 64, "head": table, "other": 0}
    assert (shape.tied, shape.gated, shape.norms_per_layer, shape.key_heads, shape.head_width) == (False, True, 2, 2, 16)


def test_a_model_without_gates_and_with_four_norms_is_seen(tmp_path):
    assert not read_shape(make_tiny_model(tmp_path / "a", config=CONFIGS["gpt2, Conv1D"])).gated
    assert read_shape(make_tiny_model(tmp_path / "b", config=CONFIGS["gemma2, four norms"])).norms_per_layer == 4
    assert read_shape(make_tiny_model(tmp_path / "c", config=CONFIGS["phi3, joined layers"])).gated


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (130, 1000)])
def test_four_bits_take_what_bitsandbytes_lays_down(size):
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(torch.rand(size), quant_type="nf4", compress_statistics=True)
    tensors = [packed, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    assert nf4_bytes(size[0] * size[1]) == sum(tensor.nbytes for tensor in tensors)
