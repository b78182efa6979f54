"""A frame read from the files is that of the loaded model, whatever the architecture calls its parts."""

import pytest
import torch
import transformers
from transformers import AutoConfig

from jobs.errors import UserError
from jobs.methods.ia3 import down_layers, key_value_layers
from jobs.methods.places import find_places
from jobs.methods.selection import targeted
from jobs.methods.targets import frame_of
from jobs.models.frame import frame_of_files
from jobs.models.heads import mark_fresh

SMALL = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2}
WRITERS = {
    "llama": GROUPED, "qwen2": GROUPED, "qwen3": {**GROUPED, "head_dim": 24}, "mistral": GROUPED, "gemma2": {**GROUPED, "head_dim": 24},
    "phi3": GROUPED, "phi": {}, "granite": GROUPED, "gpt2": {}, "gpt_neox": {}, "gptj": {"rotary_dim": 8}, "gpt_neo": {
        "attention_types": [[["global"], 2]], "num_heads": 4, "num_layers": 2,
    }, "bloom": {}, "falcon": {}, "opt": {"ffn_dim": 96, "word_embed_proj_dim": 32}, "starcoder2": GROUPED,
    "mixtral": {**GROUPED, "num_local_experts": 4}, "olmo2": GROUPED, "stablelm": GROUPED,
}  # fmt: skip
ENCODERS = {
    "bert": {}, "roberta": {}, "xlm-roberta": {}, "camembert": {}, "distilbert": {"n_layers": 2, "dim": 64, "hidden_dim": 96, "n_heads": 4},
    "electra": {"embedding_size": 32}, "albert": {"embedding_size": 32}, "deberta-v2": {}, "modernbert": {}, "mpnet": {},
}  # fmt: skip
TASKS = {
    "sequence_classification": ("AutoModelForSequenceClassification", 3),
    "question_answering": ("AutoModelForQuestionAnswering", 2),
    "multiple_choice": ("AutoModelForMultipleChoice", 1),
}


def made(kind, auto, labels=2, **changes):
    """A model without weights."""
    config = AutoConfig.for_model(kind, **{**SMALL, **changes})
    config.num_labels = labels
    with torch.device("meta"):
        return getattr(transformers, auto).from_config(config)


def files_of(model):
    """Its config and the shapes of its tensors, as its files would have them."""
    config = {**model.config.to_dict(), "architectures": [type(model).__name__], "tie_word_embeddings": model.config.tie_word_embeddings}
    return config, {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def same(read, model):
    """Asserts that whatever a method asks of the frame that was read is what the loaded model has."""
    loaded = frame_of(model)
    assert (read.width, read.depth, read.cached, read.kind) == (loaded.width, loaded.depth, loaded.cached, loaded.kind)
    for targets in ("all-linear", "attention"):
        pairs = [
            [(layer.name, layer.inputs, layer.outputs, layer.biased) for layer in targeted(frame, targets, method="x")]
            for frame in (read, loaded)
        ]
        assert pairs[0] == pairs[1]
    assert {(norm.name, norm.numbers, norm.biased) for norm in read.norms} == {
        (norm.name, norm.numbers, norm.biased) for norm in loaded.norms
    }
    for select in (key_value_layers, down_layers):
        assert [layer.name for layer in select(read)] == [layer.name for layer in select(loaded)]
    assert _places(read) == _places(loaded)
    assert read.parameters == loaded.parameters


def _places(frame):
    try:
        places = find_places(frame, method="x")
    except UserError as refused:
        return refused.code
    return set(places.attention), set(places.feed_forward), places.inputs


@pytest.mark.parametrize("kind", WRITERS)
def test_a_model_that_writes(kind):
    model = made(kind, "AutoModelForCausalLM", **WRITERS[kind])
    same(frame_of_files(*files_of(model), "causal_lm", 2), model)


@pytest.mark.parametrize("kind", ["t5", "mt5"])
def test_an_encoder_decoder(kind):
    changes = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    model = made(kind, "AutoModelForSeq2SeqLM", **changes)
    same(frame_of_files(*files_of(model), "seq2seq_lm", 2), model)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", [*ENCODERS, "llama", "gpt2"])
def test_a_model_with_the_head_of_a_task(kind, task):
    """Its files are those of the pretraining, so that the head begins from nothing."""
    changes = {**ENCODERS, **WRITERS}[kind]
    if kind in WRITERS and task != "sequence_classification":
        pytest.skip("answers and chooses by writing")
    stored = made(kind, "AutoModelForMaskedLM" if kind in ENCODERS else "AutoModelForCausalLM", **changes)
    auto, labels = TASKS[task]
    model = made(kind, auto, labels, **changes)
    config, tensors = files_of(stored)
    mark_fresh(model, {name for name, _ in model.named_parameters()} - tensors.keys())
    read = frame_of_files(config, tensors, task, labels)
    same(read, model)
    assert sum(read.head.values()) == sum(frame_of(model).head.values()) > 0


def test_names_of_old_files_are_those_of_today():
    model = made("bert", "AutoModelForMaskedLM")
    config, tensors = files_of(model)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): size
        for name, size in tensors.items()
    }
    old["bert.embeddings.position_ids"] = (1, 512)
    assert old.keys() != tensors.keys()
    assert frame_of_files(config, old, "question_answering", 2) == frame_of_files(config, tensors, "question_answering", 2)
