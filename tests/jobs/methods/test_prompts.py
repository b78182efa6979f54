"""Prompt methods upon small models: where they start, what they train, and that everything that runs a model runs it behind its prompt.

The reference is the base model, one row at a time, with the prompt laid before it by hand: nothing of PEFT's forward, no padding.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM, DynamicCache, GPT2Config, Qwen3Config

from jobs.data.encoding import Encoded
from jobs.errors import UserError
from jobs.evaluation.generation import answers
from jobs.evaluation.likelihood import Asked, known_positions, log_likelihoods
from jobs.export.parity import causal_logits
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.run import Session, apply_method, length_limit, make_hooks
from jobs.spec import DataSpec, MethodSpec, ModelSpec, RunSpec, TrainingSpec
from jobs.training.checks import choose_forward
from jobs.training.optimiser import grouped
from tests.jobs.training.reference import losses, make_trainer, short
from tests.tiny import VOCABULARY, tiny_config, tiny_tokenizer

WIDTH, LAYERS, KEYS = 64, 2, 32
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY}
CONFIGS = {
    "llama": tiny_config(initializer_range=0.15),
    "gpt2": GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=48, vocab_size=VOCABULARY, initializer_range=0.15),
    "qwen3": Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=24, initializer_range=0.15, bos_token_id=0, eos_token_id=1),
}
TOKENS, SIZE = 5, 7
METHODS = {
    "prompt_tuning": {"virtual_tokens": TOKENS},
    "prefix_tuning": {"virtual_tokens": TOKENS},
    "p_tuning": {"virtual_tokens": TOKENS, "size": SIZE},
    "cpt": {"virtual_tokens": 18, "examples": 2},
}
LSTM = {"virtual_tokens": TOKENS, "size": SIZE, "network": "LSTM"}
MLP_NUMBERS = (WIDTH + 1) * SIZE + (SIZE + 1) * SIZE + (SIZE + 1) * WIDTH
LSTM_LAYERS = [2 * 4 * SIZE * (inputs + SIZE + 2) for inputs in (WIDTH, 2 * SIZE)]  # two directions, four gates
LSTM_NUMBERS = sum(LSTM_LAYERS) + (2 * SIZE + 1) * 2 * SIZE + (2 * SIZE + 1) * WIDTH


@pytest.fixture(autouse=True)
def _peft_asks_by_an_old_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def make_rows():
    generator = np.random.default_rng(1)
    lengths = (9, 4, 13, 6, 13, 8)
    return [Encoded(generator.integers(3, 60, n).astype(np.int32), np.arange(n) >= 2) for n in lengths]


ROWS = make_rows()
EACH = pytest.mark.parametrize("method", METHODS)


def base(architecture="llama"):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[architecture], attn_implementation="sdpa").eval()


def apply(method, architecture="llama", seed=0, **settings):
    entry = get_method(method)
    resolved = entry.resolve({**METHODS[method], **settings})
    setup = Setup(seed=seed, rows=ROWS, tokenizer=tiny_tokenizer())
    return apply_method(entry, base(architecture), resolved, setup)


def stirred(method, architecture="llama"):
    """The model with a prompt that has moved away from its start."""
    model, generator = apply(method, architecture), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def by_hand(model, ids):
    """[length, vocabulary]: the logits of one row behind the prompt."""
    encoder, plain = model.prompt_encoder["default"], model.get_base_model()
    ids = torch.as_tensor(np.asarray(ids), dtype=torch.int64)[None]
    if model.active_peft_config.peft_type.value != "PREFIX_TUNING":
        prompt = encoder(torch.arange(model.active_peft_config.num_virtual_tokens))
        embedded = torch.cat((prompt, plain.get_input_embeddings()(ids)[0]))
        return plain(inputs_embeds=embedded[None]).logits[0, len(prompt) :]
    states = encoder.embedding.weight.view(TOKENS, LAYERS, 2, plain.config.num_key_value_heads, -1).permute(1, 2, 3, 0, 4)
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(states):
        cache.update(keys[None], values[None], layer)
    return plain(input_ids=ids, past_key_values=cache).logits[0]


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "settings", "count"),
    [
        ("prompt_tuning", {}, TOKENS * WIDTH),
        ("prefix_tuning", {}, TOKENS * LAYERS * 2 * KEYS),
        ("p_tuning", {}, TOKENS * WIDTH + MLP_NUMBERS),
        ("p_tuning", LSTM, TOKENS * WIDTH + LSTM_NUMBERS),
        ("cpt", {}, 17 * WIDTH),
    ],
)
def test_trains_the_papers_numbers_and_the_prompt_alone(method, settings, count):
    model = apply(method, **settings)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert sum(weight.numel() for weight in trained.values()) == count
    assert all(name.startswith("prompt_encoder.default.") and weight.dtype == torch.float32 for name, weight in trained.items())
    again = dict(apply(method, **settings).named_parameters())
    assert all(torch.equal(weight, again[name]) for name, weight in trained.items())


def test_prompt_tuning_starts_as_the_text_repeated_or_as_a_training_row():
    embeddings = base().get_input_embeddings().weight
    ids = tiny_tokenizer()("abc")["input_ids"]
    start = apply("prompt_tuning", start_text="abc").prompt_encoder["default"].embedding.weight
    assert torch.equal(start, embeddings[torch.tensor([*ids, *ids])[:TOKENS]])
    rows = apply("prompt_tuning", start="rows", virtual_tokens=30).prompt_encoder["default"].embedding.weight
    order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(0)).tolist()
    told = np.concatenate([ROWS[place].ids for place in order])[:30].astype(np.int64)
    assert torch.equal(rows, embeddings[torch.from_numpy(told)])


def test_a_random_start_is_as_spread_as_the_embeddings_and_drawn_from_the_seed():
    one, same, other = (apply("prompt_tuning", start="random", virtual_tokens=400, seed=seed) for seed in (1, 1, 2))
    first, again, else_ = (model.prompt_encoder["default"].embedding.weight for model in (one, same, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, else_)
    assert first.std().item() == pytest.approx(base().get_input_embeddings().weight.std().item(), rel=0.03)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_prefix_tuning_starts_as_the_model_behind_its_start_text(architecture):
    model = apply("prefix_tuning", architecture, start_text="To the harbour")
    text = tiny_tokenizer()("To the harbour")["input_ids"][:TOKENS]
    ids = torch.tensor([[*text, *ROWS[0].ids.tolist()]])
    with torch.no_grad():
        close(model(input_ids=ids[:, TOKENS:]).logits, base(architecture)(input_ids=ids).logits[:, TOKENS:])


def told_by_context():
    """The rows that stand before each row: the first two in the seed's order that fit into 18 tokens together."""
    order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = []
    for row in (ROWS[place] for place in order):
        if len(chosen) < 2 and sum(len(one.ids) for one in [*chosen, row]) <= 18:
            chosen.append(row)
    return chosen


def test_context_aware_prompt_tuning_starts_as_the_model_behind_whole_rows():
    first, second = told_by_context()
    model = apply("cpt")
    assert model.active_peft_config.num_virtual_tokens == len(first.ids) + len(second.ids)
    ids = torch.from_numpy(np.concatenate((first.ids, second.ids, ROWS[0].ids)).astype(np.int64))[None]
    with torch.no_grad():
        close(causal_logits(model, ROWS[0].ids), base()(input_ids=ids).logits[0, -len(ROWS[0].ids) :])


def test_the_context_is_learnt_as_pefts_own_loss_says():
    """PEFT's loss is the mean over the labels of row and context, each example weighted."""
    model, row = stirred("cpt"), ROWS[2]
    hooks = make_hooks(get_method("cpt"), model, {}, Setup(seed=0))
    labels = torch.where(torch.from_numpy(row.trained), torch.from_numpy(row.ids.astype(np.int64)), -100)[None]
    with torch.no_grad():
        wanted = model(input_ids=torch.from_numpy(row.ids.astype(np.int64))[None], labels=labels).loss
        forward, _ = choose_forward(model, ROWS, dtype=torch.float32, device="cpu")
        of_row = forward.loss_sum(forward.batch([row]))
        of_context = hooks.penalty()
    count = sum(int(one.trained.sum()) for one in told_by_context())
    close((of_row + count * of_context) / (count + int(row.trained.sum())), wanted)


def test_no_token_of_the_context_leaves_its_ball_and_its_answers_stay(tmp_path):
    entry, model = get_method("cpt"), apply("cpt")
    spec = short(TrainingSpec(micro_batch=3, gradient_accumulation=1, schedule="constant"), 3)
    hooks = make_hooks(entry, model, {}, Setup(seed=0))
    run, _ = make_trainer(model, ROWS, tmp_path, spec, learning_rate=0.1, hooks=hooks)
    run.run()
    answer = torch.from_numpy(np.concatenate([row.trained for row in told_by_context()]))
    moved = model.prompt_encoder["default"].delta_embedding.weight.norm(dim=-1)
    assert moved[answer].max() == 0
    torch.testing.assert_close(moved[~answer], torch.full_like(moved[~answer], 0.1 * (WIDTH / 2048) ** 0.5))


def test_a_context_that_holds_no_row_is_refused():
    with pytest.raises(UserError) as refused:
        apply("cpt", virtual_tokens=3)
    assert (refused.value.code, refused.value.where) == ("method_cannot", {"field": "method.settings.virtual_tokens"})


@EACH
@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_engines_loss_and_gradient_are_those_of_rows_by_hand(method, architecture):
    model = stirred(method, architecture)
    if method == "prefix_tuning" and architecture == "gpt2":
        model.get_base_model().config.num_key_value_heads = 4  # what the reference asks for
    forward, reasons = choose_forward(model, ROWS, dtype=torch.float32, device="cpu")
    assert (forward.packs, forward.own_head, len(reasons)) == (False, False, 1)
    assert "virtual tokens" in reasons[0]
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    logits = [by_hand(model, row.ids)[:-1][row.trained[1:]] for row in ROWS]
    targets = torch.from_numpy(np.concatenate([row.ids[row.trained] for row in ROWS]).astype(np.int64))
    wanted = functional.cross_entropy(torch.cat(logits), targets, reduction="sum")
    gradients = torch.autograd.grad(wanted, list(weights.values()))
    batch = forward.batch(ROWS)
    with forward.running(batch):
        loss = forward.loss_sum(batch)
        loss.backward()
    close(loss, wanted)
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        scale = gradient.abs().max()
        assert scale > 0, name
        torch.testing.assert_close(weight.grad / scale, gradient / scale, rtol=0, atol=1e-4)
    assert all(weight.grad is None for name, weight in model.named_parameters() if name not in weights)
    found, correct = forward.score(ROWS)
    assert found == pytest.approx(wanted.item(), rel=1e-5)
    assert correct == int((torch.cat(logits).argmax(-1) == targets).sum())


@EACH
@torch.no_grad()
def test_likelihoods_and_compared_logits_are_those_of_rows_by_hand(method):
    model = stirred(method)
    asked = [Asked([9, 4, 7, 30], [[8, 3, 9], [8], [44, 2]]), Asked([3], [[20, 21], [22, 23, 24, 25]])]

    def plain(of, one, tokens):
        logits = of([*one.prompt, *tokens])[len(one.prompt) - 1 : -1]
        return float(logits.log_softmax(-1)[range(len(tokens)), tokens].sum())

    wanted = [[plain(lambda ids: by_hand(model, ids), one, tokens) for tokens in one.continuations] for one in asked]
    for found, expected in zip(log_likelihoods(model, asked), wanted, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    close(causal_logits(model, [5, 6, 7]), by_hand(model, [5, 6, 7]))
    with model.disable_adapter():
        bare = base()
        off = [[plain(lambda ids: bare(torch.tensor([ids])).logits[0], one, tokens) for tokens in one.continuations] for one in asked]
        for found, expected in zip(log_likelihoods(model, asked), off, strict=True):
            assert found == pytest.approx(expected, rel=1e-5)


@EACH
@torch.no_grad()
def test_answers_are_the_likeliest_tokens_by_hand(method):
    """Prompts of several lengths, two of one length; the base answers where the prompt is off."""
    model, tokenizer = stirred(method), tiny_tokenizer()
    prompts = [[9, 4, 7], [3, 50, 17, 40, 8], [11, 12, 13], [5]]

    def greedy(logits, ids):
        new = []
        while len(new) < 8 and (token := int(logits([*ids, *new])[-1].argmax())) != tokenizer.eos_token_id:
            new.append(token)
        return tokenizer.decode(new, skip_special_tokens=True)

    bare = base()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT counts positions itself, and says so
        found = [answer.text for answer in answers(model, tokenizer, prompts, max_new_tokens=8)]
        with model.disable_adapter():
            off = [answer.text for answer in answers(model, tokenizer, prompts, max_new_tokens=8)]
    assert found == [greedy(lambda ids: by_hand(model, ids), prompt) for prompt in prompts]
    assert off == [greedy(lambda ids: bare(torch.tensor([ids])).logits[0], prompt) for prompt in prompts]
    assert found != off


@pytest.mark.parametrize(("method", "settings"), [*METHODS.items(), ("p_tuning", LSTM)])
def test_the_saved_adapter_is_the_trained_model_and_a_resumed_run_the_same(method, settings, tmp_path):
    entry = get_method(method)
    spec = short(TrainingSpec(micro_batch=3, gradient_accumulation=1, schedule="constant", checkpoint_every_steps=2), 4)

    def trainer(out):
        model = apply(method, **settings)
        hooks = make_hooks(entry, model, settings, Setup(seed=0))
        return make_trainer(model, ROWS, tmp_path / out, spec, learning_rate=entry.learning_rate, hooks=hooks)

    run, events = trainer("straight")
    run.run()
    again, resumed = trainer("resumed")
    again.restore(tmp_path / "straight" / "checkpoints" / "step-00000002", [])
    again.run()
    assert losses(resumed) == losses(events)[2:]
    assert all(torch.equal(weight, again.parameters[name]) for name, weight in run.parameters.items())

    model = run.forward.model.eval()
    run.hooks.save(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(base(), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        close(causal_logits(loaded, ROWS[2].ids), causal_logits(model, ROWS[2].ids))


def test_gradients_are_the_same_with_activations_computed_again():
    found = []
    for checkpointing in (False, True):
        model = stirred("prompt_tuning").train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        forward, _ = choose_forward(model, ROWS, dtype=torch.float32, device="cpu")
        batch = forward.batch(ROWS)
        with forward.running(batch):
            forward.loss_sum(batch).backward()
        found.append(model.prompt_encoder["default"].embedding.weight.grad)
    torch.testing.assert_close(found[0], found[1])


def test_prefix_tuning_with_gradient_checkpointing_is_refused_before_anything_is_loaded(tmp_path):
    spec = RunSpec(
        model=ModelSpec(path=str(tmp_path / "none")), data=DataSpec(train=str(tmp_path / "none.jsonl")),
        method=MethodSpec(id="prefix_tuning"), training=TrainingSpec(gradient_checkpointing=True),
    )  # fmt: skip
    with pytest.raises(UserError) as refused:
        Session.open(spec, tmp_path / "out", lambda *_, **__: None, lambda: False)
    assert (refused.value.code, refused.value.where) == ("checkpointing_cannot", {"field": "training.gradient_checkpointing"})
    assert not (tmp_path / "out").exists()
    spec = replace(spec, training=TrainingSpec())
    with pytest.raises(UserError) as refused:
        Session.open(spec, tmp_path / "out", lambda *_, **__: None, lambda: False)
    assert refused.value.code == "model_missing"


def test_an_empty_start_text_is_refused():
    for method in ("prompt_tuning", "prefix_tuning"):
        with pytest.raises(UserError) as refused:
            apply(method, start_text="")
        assert refused.value.where == {"field": "method.settings.start_text"}


def test_virtual_tokens_take_positions():
    """GPT-2 knows 48 positions and has no more: a row may hold 43 tokens, and does."""
    assert length_limit(base("gpt2"), TOKENS) == 48 - TOKENS
    model = stirred("prompt_tuning", "gpt2")
    assert known_positions(model) == 48 - TOKENS
    with torch.no_grad():
        found = log_likelihoods(model, [Asked([7] * 60, [[9], [8, 8]])])
        logits = by_hand(model, [7] * (48 - TOKENS - 2))[-1].log_softmax(-1)
    assert found[0][0] == pytest.approx(float(logits[9]), rel=1e-5)


def test_decay_leaves_virtual_tokens_alone():
    model = apply("p_tuning")
    hooks = make_hooks(get_method("p_tuning"), model, {}, Setup(seed=0))
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    groups = grouped(weights, 0.1, lambda _name: 1.0, hooks.decays)
    decays = {name: group.weight_decay for group in groups for name in group.parameters}
    found = {name.removeprefix("prompt_encoder.default."): decays[name] for name, weight in weights.items() if weight.dim() == 2}
    assert found == {"embedding.weight": 0.0, "mlp_head.0.weight": 0.1, "mlp_head.2.weight": 0.1, "mlp_head.4.weight": 0.1}
