"""Log-likelihoods against a plain loop over whole rows, on architectures that share the prompt and on those that must not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    Lfm2Config,
    MistralConfig,
)

from jobs.evaluation import likelihood
from jobs.evaluation.likelihood import Asked, log_likelihoods
from tests.tiny import VOCABULARY, tiny_config

ASKED = [
    Asked([9, 4, 7, 30, 12, 5], [[8, 3, 9], [8], [44, 2, 60, 7, 1], [5, 5]]),
    Asked([3, 77], [[20, 21], [22, 23, 24]]),
    Asked([11, 12, 13, 14, 15, 16, 17, 18, 19], [[40], [41], [42]]),
]
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.15, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 1,
}  # fmt: skip
SHARING = {
    "Llama": tiny_config(initializer_range=0.15),
    "Mistral with a window": MistralConfig(**SMALL, sliding_window=64),
    "Gemma 2 (soft caps, eager)": Gemma2Config(**SMALL, head_dim=16, sliding_window=64, query_pre_attn_scalar=16),
    "GPT-2 (learnt positions)": GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=128, initializer_range=0.15),
}
ALONE = {
    "LFM2 (convolutions leak)": Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]),
    "Mistral, its window too short": MistralConfig(**SMALL, sliding_window=4),
    "BLOOM (positions come with the mask)": AutoConfig.for_model("bloom", vocab_size=VOCABULARY, hidden_size=64, n_layer=2, n_head=4),
}


def make(config: Any) -> Any:
    torch.manual_seed(0)
    attention = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
    if config.model_type == "bloom":
        attention = "eager"
        config.initializer_range = 0.15
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def plain(model: Any, asked: list[Asked]) -> list[list[float]]:
    """One row at a time, nothing shared, nothing padded."""
    found = []
    with torch.no_grad():
        for one in asked:
            sums = []
            for tokens in one.continuations:
                ids = torch.tensor([[*one.prompt, *tokens]])
                logits = model(input_ids=ids).logits[0, len(one.prompt) - 1 : -1].double()
                sums.append(float(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum()))
            found.append(sums)
    return found


def flat(found: list[list[float]]) -> list[float]:
    return [value for sums in found for value in sums]


@pytest.fixture
def shapes(monkeypatch):
    """Which kinds of rows were run: (shared, rows)."""
    seen = []
    original = likelihood._run

    def run(model, batch, *, shared):
        seen.append((shared, len(batch)))
        return original(model, batch, shared=shared)

    monkeypatch.setattr(likelihood, "_run", run)
    return seen


@pytest.mark.parametrize("config", SHARING.values(), ids=SHARING)
def test_a_prompt_is_computed_once_and_the_figures_are_those_of_whole_rows(config, shapes):
    model = make(config)
    assert flat(log_likelihoods(model, ASKED)) == pytest.approx(flat(plain(model, ASKED)), abs=2e-4)
    assert shapes[-1] == (True, len(ASKED))


@pytest.mark.parametrize("config", ALONE.values(), ids=ALONE)
def test_an_architecture_that_does_not_keep_to_the_mask_gets_a_row_for_each(config, shapes):
    model = make(config)
    long = [one for one in ASKED if len(one.prompt) > 4]
    assert flat(log_likelihoods(model, long)) == pytest.approx(flat(plain(model, long)), abs=2e-4)
    assert shapes[-1] == (False, 7)


def test_virtual_tokens_before_the_row(shapes):
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(make(SHARING["Llama"]), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    virtual = model.get_prompt(1)[0].detach()
    found = log_likelihoods(model, ASKED[:1])
    base = model.get_base_model()
    for tokens, value in zip(ASKED[0].continuations, found[0], strict=True):
        ids = torch.tensor([*ASKED[0].prompt, *tokens])
        embedded = torch.cat([virtual, base.get_input_embeddings()(ids)])[None]
        with torch.no_grad():
            logits = base(inputs_embeds=embedded).logits[0, 3 + len(ASKED[0].prompt) - 1 : -1].double()
        assert value == pytest.approx(float(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum()), abs=2e-4)
    assert shapes == [(False, 4)]


def test_bfloat16_shares_too(shapes):
    model = make(SHARING["Llama"]).to(torch.bfloat16)
    assert flat(log_likelihoods(model, ASKED)) == pytest.approx(flat(plain(model, ASKED)), rel=0.03)
    assert shapes[-1] == (True, 3)


def test_a_prompt_too_long_for_the_model_loses_its_beginning():
    model = make(SHARING["GPT-2 (learnt positions)"])
    prompt = [number % VOCABULARY for number in range(300)]
    long, cut = Asked(prompt, [[5, 6, 7], [8]]), Asked(prompt[-125:], [[5, 6, 7], [8]])
    assert flat(log_likelihoods(model, [long])) == pytest.approx(flat(plain(model, [cut])), abs=2e-4)


def test_batches_bound_tokens_and_logits(shapes, monkeypatch):
    model = make(SHARING["Llama"])
    many = [Asked([number + 1, 2, 3], [[4, 5], [6, 7]]) for number in range(50)]
    progress = []
    whole = log_likelihoods(model, many, lambda done, total: progress.append((done, total)))
    assert (shapes[-1], progress) == ((True, 50), [(50, 50)])
    monkeypatch.setattr(likelihood, "BATCH_TOKENS", 55)
    assert flat(log_likelihoods(model, many)) == pytest.approx(flat(whole), abs=1e-5)
    assert shapes[-1] == (True, 6)  # 4 batches of 11 rows of 5 tokens, and what is left
    monkeypatch.setattr(likelihood, "LOGIT_BYTES", 2 * 3 * VOCABULARY * 4)
    assert flat(log_likelihoods(model, many)) == pytest.approx(flat(whole), abs=1e-5)
    assert shapes[-1] == (True, 2)
