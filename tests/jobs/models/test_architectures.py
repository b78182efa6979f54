"""Which architectures serve which task: the table against transformers itself."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from bitsandbytes.nn import Linear4bit

from jobs.errors import UserError
from jobs.models.architectures import CAUSAL_TASKS, ENCODER_TASKS, is_encoder, require_task, tasks_of
from jobs.models.heads import CAUSAL, Head, fresh_heads, fresh_modules, labels_config, read_head, write_head
from jobs.models.inspect import inspect_model
from jobs.models.loading import load_model, load_tokenizer
from tests.tiny_architectures import ARCHITECTURES, make_tiny_architecture

ENCODERS = ("Bert", "Roberta", "XLMRoberta", "Camembert", "DistilBert", "Electra", "Albert", "DebertaV2", "ModernBert", "MPNet")
HEADS = ("AutoModelForSequenceClassification", "AutoModelForQuestionAnswering", "AutoModelForMultipleChoice")
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "embedding_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 32, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_takes_every_head_upon_the_body_of_its_checkpoint(tmp_path, name):
    body = getattr(transformers, f"{name}ForMaskedLM")(getattr(transformers, f"{name}Config")(**SIZES))
    body.save_pretrained(tmp_path)
    assert tasks_of(json.loads((tmp_path / "config.json").read_text())["architectures"][0]) == ENCODER_TASKS
    for auto in HEADS:
        model = load_model(tmp_path, precision="float32", trains_base=False, head=Head(auto, {"num_labels": 2}))
        heads = ("classifier", "qa_outputs", "pooler", "head", "pre_classifier", "sequence_summary", "logits_proj")
        assert fresh_heads(model), auto
        assert all(module.split(".")[-1] in heads for module in fresh_heads(model)), f"{auto}: only what heads are made of is new"
        small = load_model(tmp_path, precision="float32", trains_base=False, bits=4, head=Head(auto, {"num_labels": 2}))
        quantised = [module for module, layer in small.named_modules() if isinstance(layer, Linear4bit)]
        assert quantised
        assert not [name for name in quantised if name.startswith(fresh_heads(small))], f"{auto}: what is new is not quantised"


def test_what_other_models_can_be_trained_for():
    assert tasks_of("LlamaForCausalLM") == tasks_of("GPT2LMHeadModel") == CAUSAL_TASKS
    assert tasks_of("T5ForConditionalGeneration") == ("seq2seq_lm",)
    assert tasks_of("LlavaForConditionalGeneration") == tasks_of("ViTModel") == tasks_of("BertGenerationEncoder") == ()
    assert is_encoder("RobertaForMaskedLM")
    assert not is_encoder("RobertaForCausalLM")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_folder_says_what_it_can_be_trained_for(tmp_path, kind):
    folder = make_tiny_architecture(tmp_path / kind, kind)
    facts = inspect_model(folder)
    assert tuple(facts.tasks) == {"llama": CAUSAL_TASKS, "t5": ("seq2seq_lm",)}.get(kind, ENCODER_TASKS)
    assert (facts.hidden_size, facts.layers) == (64, 2)
    assert require_task(folder, facts.tasks[0]) == facts.architecture
    wrong = "question_answering" if kind == "llama" else "causal_lm"
    with pytest.raises(UserError) as refused:
        require_task(folder, wrong)
    assert refused.value.code == "model_task"
    assert ", ".join(facts.tasks) in refused.value.message


def test_a_fresh_head_is_drawn_from_the_seed(tmp_path):
    folder = make_tiny_architecture(tmp_path / "bert", "bert")
    config = {**labels_config(["no", "yes"]), "pad_token_id": 0}

    def head(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)
        model = load_model(folder, precision="float32", trains_base=False, head=Head("AutoModelForSequenceClassification", config, seed))
        assert fresh_heads(model) == ("bert.pooler", "classifier")
        assert model.config.id2label == {0: "no", 1: "yes"}
        return model.classifier.weight

    assert torch.equal(head(3), head(3))
    assert not torch.equal(head(3), head(4))


def test_the_largest_new_modules_are_named():
    model = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 2), "top": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))})
    assert fresh_modules(model, {"top.0.weight", "top.0.bias", "top.1.weight", "top.1.bias"}) == ("top",)
    assert fresh_modules(model, {"top.1.weight", "top.1.bias", "not.a.weight"}) == ("top.1",)


def test_an_encoder_needs_no_end_of_sequence(tmp_path):
    folder = make_tiny_architecture(tmp_path / "bert", "bert")
    with pytest.raises(UserError, match="no end-of-sequence token"):
        load_tokenizer(folder)
    assert load_tokenizer(folder, writes=False).pad_token == "[PAD]"


def test_a_head_is_written_beside_an_adapter_and_read_strictly(tmp_path):
    write_head(CAUSAL, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert read_head(tmp_path) == CAUSAL
    head = Head("AutoModelForSequenceClassification", {**labels_config(["a", "b"]), "pad_token_id": 1})
    write_head(head, tmp_path)
    assert read_head(tmp_path) == head
    for body in ({"auto": "pipeline", "config": {}}, {"auto": head.auto, "config": {"trust_remote_code": True}}):
        (tmp_path / "head.json").write_text(json.dumps(body))
        with pytest.raises(ValueError, match="not as it was written"):
            read_head(tmp_path)
