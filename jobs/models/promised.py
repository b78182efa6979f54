"""What a config makes a loader allocate, against what the files hold: sizes that no honest file has are refused before anything is built.

A loader builds the model that the config describes, and fills in what the files lack. So each size in the config is weighed by the least
number of weights that it entails, and these may not be more than a few times those that the files hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Layers that are left out of some kinds, experts in every other layer, embeddings narrower than the model: an honest one stays below two.
MOST_TIMES = 4
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers")
_INNER = ("intermediate_size", "n_inner", "d_ff", "hidden_dim", "ffn_dim")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_HEAD_WIDTH = ("head_dim", "d_kv")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_EXPERT_INNER = ("moe_intermediate_size",)
_TABLES = ("vocab_size", "type_vocab_size")
_POSITIONS = ("max_position_embeddings", "n_positions")
# Kinds that turn by positions and have no table of them, however long their context is.
_ROTARY = frozenset(
    ("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "phimoe",
     "gpt_neox", "stablelm", "olmo", "olmo2", "olmo3", "starcoder2", "cohere", "cohere2", "smollm3", "granite", "modernbert")
)  # fmt: skip


def excess(config: Mapping[str, Any], stored: int) -> tuple[str, int] | None:
    """(key, numbers) of the first size that entails more than `MOST_TIMES` the `stored` numbers; None where all are in proportion.

    `config` is one whose numbers are whole and positive where they are there at all (`jobs.models.inspect`).
    """
    for key, numbers in _entailed(config):
        if numbers > MOST_TIMES * stored:
            return key, numbers
    return None


def _entailed(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Each size with the least weights that it entails: tables by rows, layers by their two projections at least."""
    _, width = _largest(config, _WIDTH)
    # ALBERT has the weights of one layer for all of a group.
    depth_key, depth = _largest(config, ("num_hidden_groups",) if "num_hidden_groups" in config else _LAYERS)
    for key in _TABLES if config.get("model_type") in _ROTARY else (*_TABLES, *_POSITIONS):
        yield key, width * _largest(config, (key,), default=0)[1]
    inner_key, inner = _largest(config, _INNER)
    yield inner_key or depth_key, depth * 2 * width * inner
    head_key, head_width = _largest(config, _HEAD_WIDTH, default=0)
    yield head_key, depth * 2 * width * head_width * _largest(config, _HEADS)[1]
    expert_key, experts = _largest(config, _EXPERTS, default=0)
    yield expert_key, depth * 2 * width * experts * _largest(config, _EXPERT_INNER, default=inner)[1]


def _largest(config: Mapping[str, Any], keys: tuple[str, ...], default: int = 1) -> tuple[str, int]:
    found = [(config[key], key) for key in keys if isinstance(config.get(key), int)]
    number, key = max(found, default=(default, ""))
    return key, number
