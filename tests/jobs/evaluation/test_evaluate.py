"""Evaluation on a tiny model that has learnt eight rows by heart, so that what is right is known."""

import math
from dataclasses import dataclass

import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from jobs.data.encoding import encode_records, prompt_ids_for_generation
from jobs.evaluation import evaluate
from jobs.evaluation.evaluate import LONG_ANSWER_TOKENS, questions_of
from jobs.evaluation.generation import CACHE_TOKENS, generate
from jobs.models.attention import plain_inference
from jobs.spec import EvaluationSpec
from tests.tiny import tiny_config, tiny_tokenizer

LABELS = ("refund", "delivery", "login", "invoice")
TEXTS = (
    "money back please",
    "where is my box",
    "cannot sign in at all, whatever i try",
    "send the bill",
    "i want my cash",
    "parcel late",
    "password",
    "vat",
)
RECORDS = [
    {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": LABELS[index % 4]}], "label": LABELS[index % 4]}
    for index, text in enumerate(TEXTS)
]


DEFAULTS = EvaluationSpec()


@dataclass
class Sums:
    loss_sum: float
    tokens: int
    correct: int


def sums_of(model, tokenizer, records):
    """The loss as a plain loop over rows computes it."""
    sums = Sums(0.0, 0, 0)
    with torch.no_grad():
        for row in encode_records(records, tokenizer).rows:
            ids, trained = torch.tensor(row.ids.tolist()), torch.tensor(row.trained)[1:]
            logits = model(input_ids=ids[None]).logits[0, :-1][trained]
            targets = ids[1:][trained]
            sums.loss_sum += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            sums.tokens += len(targets)
            sums.correct += int((logits.argmax(-1) == targets).sum())
    return sums


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config(), attn_implementation="sdpa").eval()


@pytest.fixture(scope="module")
def overfitted(tokenizer):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(), attn_implementation="sdpa")
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = encode_records(RECORDS, tokenizer).rows
    length = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids.tolist() + [1] * (length - len(row.ids)) for row in rows])
    labels = torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        trained = torch.tensor(row.trained)
        labels[index, : len(trained)][trained] = ids[index, : len(trained)][trained]
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if loss.item() < 0.01:
            break
    return model.eval()


def measure(model, tokenizer, records=RECORDS, spec=DEFAULTS, **options):
    return evaluate(model, tokenizer, records, spec, loss_of=lambda: sums_of(model, tokenizer, records), **options)


def test_a_model_that_knows_the_rows_is_right_on_all(overfitted, tokenizer):
    progress = []
    found = measure(overfitted, tokenizer, progress=lambda done, total: progress.append((done, total)))
    assert (found["exact_match"], found["label_accuracy"], found["token_accuracy"]) == (1.0, 1.0, 1.0)
    sums = sums_of(overfitted, tokenizer, RECORDS)
    assert found["loss"] == sums.loss_sum / sums.tokens < 0.05
    assert found["perplexity"] == math.exp(found["loss"])
    assert (found["rows"], found["tokens"]) == (8, sum(len(label) + 1 for label in LABELS) * 2)
    assert progress[-1] == (8, 8)
    assert [sample["index"] for sample in found["samples"]] == [0, 1, 3, 4, 6]
    assert found["samples"][0] == {"index": 0, "prompt": TEXTS[0], "answer": "refund", "expected": "refund", "correct": True}


def test_an_untrained_model_is_wrong_on_all_and_is_asked_the_same(untrained, overfitted, tokenizer):
    found = measure(untrained, tokenizer)
    assert (found["exact_match"], found["choice_accuracy"]) == (0.0, None)
    assert found["label_accuracy"] <= 0.5  # as good as chance among four
    assert found["loss"] == pytest.approx(math.log(258), rel=0.1)
    tuned = measure(overfitted, tokenizer)
    assert [(s["index"], s["prompt"]) for s in found["samples"]] == [(s["index"], s["prompt"]) for s in tuned["samples"]]
    assert not any(sample["correct"] for sample in found["samples"])


def test_batched_answers_are_those_of_each_prompt_alone(untrained, tokenizer):
    prompts = [question.prompt_ids for question in questions_of(RECORDS, tokenizer, range(8))]
    together = generate(untrained, tokenizer, prompts, max_new_tokens=12)
    assert together == [generate(untrained, tokenizer, [prompt], max_new_tokens=12)[0] for prompt in prompts]
    assert len(set(together)) > 1


def test_answers_are_capped_by_the_longest_label(untrained, tokenizer):
    found = measure(untrained, tokenizer, spec=EvaluationSpec(max_new_tokens=64, samples=8))
    longest = max(map(len, LABELS)) + 4
    assert max(len(sample["answer"]) for sample in found["samples"]) <= longest


def test_only_as_many_rows_are_asked_as_the_spec_says(overfitted, tokenizer):
    found = measure(overfitted, tokenizer, spec=EvaluationSpec(rows=4, samples=20))
    assert [sample["index"] for sample in found["samples"]] == [0, 2, 4, 6]
    assert found["rows"] == 8
    found = measure(overfitted, tokenizer, spec=EvaluationSpec(generate=False))
    assert (found["exact_match"], found["samples"]) == (None, [])
    assert (found["label_accuracy"], found["loss"] < 0.05) == (1.0, True)  # neither is generated


def test_prose_is_shown_not_scored(untrained, tokenizer):
    prose = [{"prompt": f"Tell {number}:", "completion": "x" * (LONG_ANSWER_TOKENS + 1)} for number in range(6)]
    found = measure(untrained, tokenizer, prose, EvaluationSpec(samples=2, max_new_tokens=5))
    assert (found["exact_match"], found["label_accuracy"]) == (None, None)
    assert [(sample["index"], sample["correct"]) for sample in found["samples"]] == [(0, None), (1, None)]
    assert found["samples"][0]["prompt"] == "Tell 0:"


def test_plain_text_is_measured_by_its_loss_alone(untrained, tokenizer):
    found = measure(untrained, tokenizer, [{"text": "some words"}, {"text": "more of them"}])
    assert (found["exact_match"], found["samples"]) == (None, [])
    assert found["perplexity"] == pytest.approx(258, rel=0.5)


def test_nothing_to_measure_is_null_not_a_crash(untrained, tokenizer):
    found = measure(untrained, tokenizer, [])
    assert {found[key] for key in found.keys() - {"rows", "tokens", "seconds", "samples"}} == {None}


def test_a_packed_attention_is_put_aside_for_generation_and_back(untrained, tokenizer):
    used = []

    def packed(module, *arguments, **options):
        used.append(module)
        return sdpa_attention_forward(module, *arguments, **options)

    AttentionInterface.register("test_packed", packed)
    prompt = list(prompt_ids_for_generation(RECORDS[0], tokenizer))
    expected = generate(untrained, tokenizer, [prompt], max_new_tokens=4)
    untrained.set_attn_implementation("test_packed")
    untrained.train()
    try:
        assert generate(untrained, tokenizer, [prompt], max_new_tokens=4) == expected
        assert (used, untrained.config._attn_implementation, untrained.training) == ([], "test_packed", True)
        untrained(input_ids=torch.tensor([prompt]))
        assert used
        with pytest.raises(RuntimeError, match="in the middle"), plain_inference(untrained):
            raise RuntimeError("in the middle")
        assert untrained.config._attn_implementation == "test_packed"
    finally:
        untrained.set_attn_implementation("sdpa")
        untrained.eval()


def test_batches_stay_within_the_cache(untrained, tokenizer, monkeypatch):
    sizes = []
    original = untrained.generate
    monkeypatch.setattr(untrained, "generate", lambda **options: sizes.append(tuple(options["input_ids"].shape)) or original(**options))
    prompts = [[5] * length for length in [400, *[3] * 100]]
    answers = generate(untrained, tokenizer, prompts, max_new_tokens=2)
    assert len(answers) == 101
    assert all(rows * (length + 2) <= CACHE_TOKENS for rows, length in sizes)
    assert [rows for rows, _ in sizes] == [40, 61]
