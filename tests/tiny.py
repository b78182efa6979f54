"""Small real models with a small real tokenizer, made on the spot: a Llama of two layers, 64 wide, that knows bytes and a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]
VOCABULARY = 256 + len(SPECIAL)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, ChatML; the padding token is the end token, as in many real models."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate([*SPECIAL, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[1], pad_token=SPECIAL[1])
    fast.add_special_tokens({"additional_special_tokens": SPECIAL})
    fast.chat_template = CHATML
    return fast


def tiny_config(**changes: Any) -> LlamaConfig:
    """Two layers, 64 wide, 4 heads over 2 key-value heads, untied."""
    values = {
        "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
        "tie_word_embeddings": False,
    }  # fmt: skip
    return LlamaConfig(**{**values, **changes})


def make_tiny_model(
    folder: Path, *, config: PretrainedConfig | None = None, dtype: torch.dtype = torch.float32, shard_bytes: int = 10**9
) -> Path:
    """Writes a random model and its tokenizer into `folder`; weights large enough that logits differ clearly from token to token."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config or tiny_config(initializer_range=0.15)).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard_bytes)
    tiny_tokenizer().save_pretrained(folder)
    return folder
