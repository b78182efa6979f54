"""Plain inference: what it puts back, and what the head of a model reads."""

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from benchmarks.memory import highest
from jobs.models.attention import plain_inference
from tests.tiny import tiny_config

ROWS = 16


def test_logits_of_the_last_places_do_not_copy_the_head_for_each_row():
    model = AutoModelForCausalLM.from_config(tiny_config(vocab_size=4096))
    ids = torch.arange(ROWS * 20).view(ROWS, 20)
    with plain_inference(model), torch.no_grad():
        wanted = model(input_ids=ids).logits[:, -2:]
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            found = model(input_ids=ids, logits_to_keep=2).logits
    assert torch.allclose(found, wanted, atol=1e-5)
    assert highest(profiled) < 2 * model.lm_head.weight.nbytes + found.nbytes
    assert not model.lm_head._forward_pre_hooks
