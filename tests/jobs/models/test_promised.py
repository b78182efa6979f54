"""What a config entails against what the files hold: published models pass with room, bombs do not."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.models.promised import excess

# The sizes in the published configs, and the parameters of the published files.
PUBLISHED: dict[str, tuple[dict[str, Any], float]] = {
    "Llama 3.1 8B": (
        {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32, "vocab_size": 128256,
         "max_position_embeddings": 131072}, 8.03e9,
    ),
    "Qwen2.5 0.5B": (
        {"hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864, "num_attention_heads": 14, "vocab_size": 151936,
         "max_position_embeddings": 32768}, 4.94e8,
    ),
    "Qwen2.5 7B 1M": (
        {"hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944, "num_attention_heads": 28, "vocab_size": 152064,
         "max_position_embeddings": 1_010_000}, 7.6e9,
    ),
    "Qwen3 30B A3B": (
        {"hidden_size": 2048, "num_hidden_layers": 48, "intermediate_size": 6144, "num_attention_heads": 32, "head_dim": 128,
         "vocab_size": 151936, "max_position_embeddings": 40960, "num_experts": 128, "moe_intermediate_size": 768}, 30.5e9,
    ),
    "DeepSeek V3": (
        {"hidden_size": 7168, "num_hidden_layers": 61, "intermediate_size": 18432, "num_attention_heads": 128, "vocab_size": 129280,
         "max_position_embeddings": 163840, "n_routed_experts": 256, "moe_intermediate_size": 2048}, 671e9,
    ),
    "Llama 4 Maverick": (
        {"hidden_size": 5120, "num_hidden_layers": 48, "intermediate_size": 8192, "num_attention_heads": 40, "head_dim": 128,
         "vocab_size": 202048, "max_position_embeddings": 1_048_576, "num_local_experts": 128}, 400e9,
    ),
    "Mixtral 8x7B": (
        {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32, "vocab_size": 32000,
         "max_position_embeddings": 32768, "num_local_experts": 8}, 46.7e9,
    ),
    "ALBERT base": (
        {"hidden_size": 768, "num_hidden_layers": 12, "num_hidden_groups": 1, "intermediate_size": 3072, "num_attention_heads": 12,
         "vocab_size": 30000, "max_position_embeddings": 512, "type_vocab_size": 2}, 11.7e6,
    ),
    "ALBERT xxlarge": (
        {"hidden_size": 4096, "num_hidden_layers": 12, "num_hidden_groups": 1, "intermediate_size": 16384, "num_attention_heads": 64,
         "vocab_size": 30000, "max_position_embeddings": 512}, 223e6,
    ),
    "T5 small": (
        {"d_model": 512, "num_layers": 6, "num_decoder_layers": 6, "d_ff": 2048, "num_heads": 8, "d_kv": 64, "vocab_size": 32128}, 60.5e6,
    ),
    "GPT-2": ({"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}, 124e6),
    "OPT 350M": (
        {"hidden_size": 1024, "num_hidden_layers": 24, "ffn_dim": 4096, "num_attention_heads": 16, "vocab_size": 50272,
         "max_position_embeddings": 2048}, 331e6,
    ),
    "Gemma 3 270M": (
        {"hidden_size": 640, "num_hidden_layers": 18, "intermediate_size": 2048, "num_attention_heads": 4, "head_dim": 256,
         "vocab_size": 262144, "max_position_embeddings": 32768}, 268e6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_in_proportion_with_half_to_spare(name: str) -> None:
    config, parameters = PUBLISHED[name]
    assert excess(config, int(parameters / 2)) is None


@pytest.mark.parametrize(
    ("key", "number"),
    [("num_hidden_layers", 512), ("intermediate_size", 524_288), ("head_dim", 4096), ("hidden_size", 65_536),
     ("max_position_embeddings", 100_000_000), ("num_experts", 4096)],
)  # fmt: skip
def test_a_size_out_of_proportion_is_named(key: str, number: int) -> None:
    config, parameters = PUBLISHED["Qwen2.5 0.5B"]
    found = excess({**config, key: number}, int(parameters))
    assert found is not None
    assert found[1] > 4 * parameters
    assert excess(config, int(parameters)) is None
