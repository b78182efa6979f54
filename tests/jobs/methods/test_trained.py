"""What is told of a run before its launch is what the engine trains: every method, on the architectures that differ most."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft.tuners.lokr.layer import factorization
from transformers import AutoModelForCausalLM

from jobs.data.encoding import Encoded
from jobs.errors import UserError
from jobs.methods.adapter import count_trained
from jobs.methods.entry import BASE_BITS
from jobs.methods.lokr import split
from jobs.methods.registry import all_methods, get_method
from jobs.methods.setup import Setup
from jobs.models.frame import frame_of_files, read_frame
from jobs.models.heads import CAUSAL, Head, fresh_heads, labels_config
from jobs.models.loading import load_model, load_tokenizer
from jobs.run import apply_method
from tests.matrix.models import material
from tests.matrix.parameters import LAYERS, shape
from tools.methods_page import FACTS

LABELS = ("a", "b", "c")
# Beside the defaults: whatever changes the number of weights.
OTHER = {
    "adalora": {"rank": 6, "target_rank": 3, "targets": "attention"},
    "boft": {"block_size": 4, "factors": 2},
    "bottleneck_adapter": {"placement": "pfeiffer", "size": 10},
    "block_sparse": {"block_rows": 5, "block_columns": 7, "blocks": 99},
    "c3a": {"block_size": 16},
    "compacter": {"placement": "pfeiffer", "size": 12, "rank": 2},
    "cpt": {"virtual_tokens": 64, "examples": 2},
    "fourierft": {"frequencies": 77, "targets": "attention"},
    "lokr": {"factor": 8, "decompose_both": True, "rank": 2},
    "miss": {"variant": "mini", "rank": 8, "mini_rank": 4},
    "mora": {"operator": "sharing", "rank": 5},
    "oft": {"share_blocks": True, "block_size": 8},
    "p_tuning": {"network": "LSTM", "size": 24},
    "parallel_adapter": {"size": 9},
    "prefix_tuning": {"virtual_tokens": 7},
    "prompt_tuning": {"virtual_tokens": 7, "start": "random"},
    "randlora": {"rank": 7},
    "shira": {"rank": 3, "targets": "attention"},
}
MODELS = (
    ("llama", "causal_lm"),
    ("qwen2", "causal_lm"),
    ("gpt2", "causal_lm"),
    ("llama", "sequence_classification"),
    ("bert", "sequence_classification"),
    ("bert", "question_answering"),
    ("roberta", "sequence_classification"),
    ("roberta", "multiple_choice"),
    ("t5", "seq2seq_lm"),
)
AUTO = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "multiple_choice": "AutoModelForMultipleChoice",
}
ROWS = [Encoded(np.arange(5, 5 + length, dtype=np.int32), np.arange(length) > 2) for length in (6, 9, 7, 8)]


# What hangs on the rows: EVA spreads its ranks by them, CPT's virtual tokens are some of them.
UNKNOWN = ("eva", "cpt")


def head_of(task):
    if task == "seq2seq_lm":
        return Head("AutoModelForSeq2SeqLM")
    if task == "causal_lm":
        return CAUSAL
    return Head(AUTO[task], labels_config(LABELS) if task == "sequence_classification" else {})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(folder, loaded model) by architecture and task, each made once; a test takes a copy."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def get(architecture, task):
        if (architecture, task) not in made:
            folder = material(root, architecture, task).model
            made[architecture, task] = folder, load_model(folder, precision="float32", trains_base=False, head=head_of(task))
        folder, model = made[architecture, task]
        return folder, copy.deepcopy(model)

    return get


def fits(method, architecture, task):
    needs = method.capabilities.needs
    refused = ("biases" in needs and architecture in ("llama", "t5")) or ("linear" in needs and architecture == "gpt2")
    return task in method.capabilities.tasks and not refused and not method.capabilities.adapters


def trained(method, settings, model, task, folder):
    """How many numbers train in a model as a run makes it."""
    tokenizer = load_tokenizer(folder, writes=False)
    setup = Setup(seed=0, task=task, total_steps=10, rows=ROWS, tokenizer=tokenizer, heads=fresh_heads(model), base_folder=folder)
    made = apply_method(method, model, settings, setup)
    return sum(parameter.numel() for parameter in made.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(("architecture", "task"), MODELS, ids=lambda value: value)
def test_what_is_told_is_what_trains(architecture, task, models):
    """Every method that takes such a model, at its defaults and at other settings."""
    faults = []
    folder, _ = models(architecture, task)
    frame = read_frame(folder, task, len(LABELS))
    for method in all_methods():
        if not fits(method, architecture, task):
            continue
        for given in ({}, *([OTHER[method.id]] if method.id in OTHER else ())):
            settings = method.resolve({**given, **({BASE_BITS: "16"} if len(method.capabilities.bases) > 1 else {})})
            told = count_trained(method.plan_adapter(settings, frame), frame)
            counted = trained(method, settings, models(architecture, task)[1], task, folder)
            if told != counted and method.id not in UNKNOWN:
                faults.append((method.id, given, told, counted))
    assert faults == []


def apply_all(root):
    """Puts every method that builds on no other adapter on a base in 16 bits, in a process of its own."""
    for method in all_methods():
        if fits(method, "llama", "causal_lm") and 16 in method.capabilities.bases:
            folder = material(root, "llama", "causal_lm").model
            model = load_model(folder, precision="float32", trains_base=False, head=CAUSAL)
            settings = method.resolve({BASE_BITS: "16"} if len(method.capabilities.bases) > 1 else {})
            sys.stdout.write(f"{method.id} {trained(method, settings, model, 'causal_lm', folder)}\n")


def test_without_bitsandbytes_every_method_takes_a_plain_base(tmp_path):
    """`python -m jobs train` hides it from a run that has no use for it."""
    hidden = "from jobs.imports import hide_bitsandbytes; hide_bitsandbytes()"
    code = f"{hidden}; import pathlib, sys; from tests.jobs.methods.test_trained import apply_all; apply_all(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    applied = dict(line.split() for line in done.stdout.splitlines())
    assert {"lora", "c3a", "block_sparse", "prefix_tuning"} <= applied.keys()
    assert all(int(numbers) for numbers in applied.values())


def test_what_hangs_on_the_rows_is_not_told(models):
    frame = read_frame(models("qwen2", "causal_lm")[0])
    found = {method.id: method.plan_adapter(method.resolve({}), frame) for method in all_methods()}
    assert {name for name, adapter in found.items() if adapter and adapter.unknown} == {*UNKNOWN, "adapter_fusion"}
    assert found["eva"].numbers == found["lora"].numbers, "as many ranks in all, for memory to be planned with"
    settings = get_method("lora").resolve({"start": "eva"})
    assert count_trained(get_method("lora").plan_adapter(settings, frame), frame) is None


def test_ranks_of_single_layers_are_counted(models):
    folder, model = models("llama", "causal_lm")
    method = get_method("dora")
    settings = method.resolve({"rank": 5, "rank_pattern": "q_proj: 3\nmodel.layers.1.mlp.down_proj: 9"})
    frame = read_frame(folder)
    assert count_trained(method.plan_adapter(settings, frame), frame) == trained(method, settings, model, "causal_lm", folder)


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_a_fusion_trains_where_its_adapters_stand(placement, models):
    folder, model = models("llama", "causal_lm")
    frame, entry = read_frame(folder), get_method("bottleneck_adapter")
    made = apply_method(entry, model, entry.resolve({"placement": placement}), Setup(seed=0))
    config = {"target_modules": sorted(made.peft_config["default"].target_modules)}
    told = get_method("adapter_fusion").plan_adapter({}, frame, [config, config])
    assert told.numbers == (4 if placement == "houlsby" else 2) * 3 * 64 * 64


def test_the_defaults_agree_with_what_was_measured_for_the_catalogue():
    """docs/methods.json has what runs of SmolLM2-135M's shape trained."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape(LAYERS))
    config = {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"]}
    frame = frame_of_files(config, {name: tuple(weight.shape) for name, weight in model.state_dict().items()}, "causal_lm", 2)
    measured = json.loads(FACTS.read_text(encoding="utf-8"))["methods"]
    ends = [layer.name for layer in frame.layers if layer.name.endswith(("o_proj", "down_proj"))]
    for method in all_methods():
        facts = measured[method.id]
        if facts["trained"] is None:
            with pytest.raises(UserError) as refused:
                method.plan_adapter(facts["settings"], frame)
            assert refused.value.code == "method_cannot"
        elif method.id not in UNKNOWN:
            told = count_trained(method.plan_adapter(facts["settings"], frame, [{"target_modules": ends}]), frame)
            assert (method.id, told) == (method.id, facts["trained"])


@pytest.mark.parametrize("size", [1, 6, 12, 96, 97, 576, 1536])
@pytest.mark.parametrize("wanted", [0, 2, 7, 8, 16, 100])
def test_a_size_is_split_as_peft_splits_it(size, wanted):
    assert split(size, wanted) == factorization(size, wanted or -1)
