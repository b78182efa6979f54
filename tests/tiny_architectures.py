"""Small real encoders (BERT, RoBERTa) and an encoder-decoder (T5), made on the spot, each with a byte tokenizer that frames texts its way.

The Llama of `tests.tiny` is the fourth kind: `make_tiny_architecture` makes any of them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
)

from tests.tiny import tiny_config, tiny_tokenizer

Architecture = Literal["llama", "bert", "roberta", "t5"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
WIDTH = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def make_tiny_architecture(folder: Path, kind: Architecture, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Writes a random pretrained-like model (with its language head) of two layers, 64 wide, and its tokenizer into `folder`.

    `changes` are of the config. Weights are large enough that outputs differ clearly from text to text.
    """
    torch.manual_seed(0)
    make_config, auto, make_tokenizer = _KINDS[kind]
    tokenizer = make_tokenizer()
    model = auto.from_config(make_config(len(tokenizer), **changes)).to(dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _llama(vocabulary: int, **changes: Any) -> PretrainedConfig:
    return tiny_config(**{"initializer_range": 0.15, "vocab_size": vocabulary, **changes})


def _bert(vocabulary: int, **changes: Any) -> PretrainedConfig:
    values = {"max_position_embeddings": 256, "initializer_range": 0.15, "pad_token_id": 0}
    return BertConfig(vocab_size=vocabulary, **{**WIDTH, **values, **changes})


def _roberta(vocabulary: int, **changes: Any) -> PretrainedConfig:
    # Positions begin after the padding token's id, so two more are kept than are used.
    values = {"max_position_embeddings": 258, "type_vocab_size": 1, "initializer_range": 0.15}
    values |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    return RobertaConfig(vocab_size=vocabulary, **{**WIDTH, **values, **changes})


def _t5(vocabulary: int, **changes: Any) -> PretrainedConfig:
    values = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0, "initializer_factor": 1.0}
    values |= {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return T5Config(vocab_size=vocabulary, **{**values, **changes})


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte; `[CLS] text [SEP]`, `[CLS] text [SEP] pair [SEP]` with the pair's tokens of type 1."""
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    frame = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return _byte_tokenizer(
        names, frame, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def roberta_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte; `<s> text </s>`, `<s> text </s></s> pair </s>`, all of type 0."""
    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    frame = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return _byte_tokenizer(
        names, frame, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>",
        mask_token="<mask>", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte; `text </s>`, `text </s> pair </s>`."""
    frame = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    names = ("<pad>", "</s>", "<unk>")
    return _byte_tokenizer(
        names, frame, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_input_names=["input_ids", "attention_mask"]
    )


def _byte_tokenizer(names: tuple[str, ...], frame: Any, **settings: Any) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate([*names, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(names))
    tokenizer.post_processor = frame
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


_Kind = tuple[Callable[..., PretrainedConfig], Any, Callable[[], PreTrainedTokenizerFast]]
_KINDS: dict[Architecture, _Kind] = {
    "llama": (_llama, AutoModelForCausalLM, tiny_tokenizer),
    "bert": (_bert, AutoModelForMaskedLM, bert_tokenizer),
    "roberta": (_roberta, AutoModelForMaskedLM, roberta_tokenizer),
    "t5": (_t5, AutoModelForSeq2SeqLM, t5_tokenizer),
}
