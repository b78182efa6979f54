"""Adapters as after a training, saved by peft, and what peft itself makes of them."""

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from jobs.export.shards import read_checkpoint


def load(folder, dtype="auto"):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)


def make_adapter(base, folder, config):
    """An adapter whose every trained number is off its start by a tenth or so."""
    torch.manual_seed(1)
    model = get_peft_model(load(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def merged_by_peft(base, adapter, dtype="auto"):
    return PeftModel.from_pretrained(load(base, dtype), adapter).merge_and_unload().state_dict()


def stored(folder):
    """Every tensor of a checkpoint, read by the safetensors library."""
    files = {tensor.file for tensor in read_checkpoint(folder)}
    return {name: value for file in files for name, value in load_file(file).items()}


def assert_bitwise(found, expected):
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


def changed(found, before):
    return {name for name in found if name not in before or not torch.equal(found[name], before[name])}
