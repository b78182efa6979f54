"""The general probe: its items, its figures, and that they do not depend on what a run trains on."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from jobs.evaluation.probe import FOLDER, KINDS, load_probe, measure_probe
from tests.jobs.evaluation.test_evaluate import Sums
from tests.tiny import tiny_config, tiny_tokenizer


def test_the_items_are_sixty_of_six_kinds_and_each_choice_is_a_fair_one():
    probe = load_probe()
    assert tuple(probe) == KINDS
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(KINDS)
    assert sum(map(len, probe.values())) == 60
    places = []
    for kind in ("knowledge", "arithmetic", "grammar"):
        for record in probe[kind]:
            assert len(record["choices"]) == (3 if kind == "grammar" else 4)
            places.append(record["choices"].index(record["completion"].strip()))
    assert all(places.count(place) >= len(places) // 8 for place in range(4))  # no place is the right one by habit


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        tiny_config(initializer_range=0.15, max_position_embeddings=256), attn_implementation="sdpa"
    ).eval()


def sums_of(model, rows):
    sums = Sums(0.0, 0, 0)
    with torch.no_grad():
        for row in rows:
            ids, trained = torch.tensor(row.ids.tolist()), torch.tensor(row.trained)[1:]
            logits = model(input_ids=ids[None]).logits[0, :-1][trained]
            sums.loss_sum += torch.nn.functional.cross_entropy(logits, ids[1:][trained], reduction="sum").item()
            sums.tokens += len(logits)
            sums.correct += int((logits.argmax(-1) == ids[1:][trained]).sum())
    return sums


def test_the_figures_of_the_kinds_make_those_of_the_whole(model):
    progress, lengths, ends = [], [], 0

    def loss_of(rows):
        nonlocal ends
        lengths.extend(len(row.ids) for row in rows)
        ends += sum(int(row.ids[-1]) == 1 for row in rows)
        return sums_of(model, rows)

    found = measure_probe(model, tiny_tokenizer(), loss_of=loss_of, progress=lambda done, total: progress.append((done, total)))
    kinds = found["kinds"]
    assert tuple(kinds) == KINDS
    assert (found["rows"], progress[-1], len(lengths), ends) == (60, (60, 60), 60, 0)
    assert max(lengths) == 256  # cut where the model's positions end
    assert found["tokens"] == sum(kind["tokens"] for kind in kinds.values())
    assert found["loss"] == pytest.approx(sum(kind["loss"] * kind["tokens"] for kind in kinds.values()) / found["tokens"])
    answers = sum(len(record["completion"]) for record in load_probe()["knowledge"])
    assert kinds["knowledge"]["tokens"] == answers  # a token a byte, no token for the end
    assert [kinds[kind]["choice_accuracy"] for kind in ("code", "prose", "instructions")] == [None] * 3
    right = sum(kinds[kind]["choice_accuracy"] * kinds[kind]["rows"] for kind in ("knowledge", "arithmetic", "grammar"))
    assert found["choice_accuracy"] == pytest.approx(right / 38)
    assert (found["exact_match"], found["label_accuracy"]) == (None, None)


def test_a_chat_template_takes_no_part(model):
    plain, chatty = tiny_tokenizer(), tiny_tokenizer()
    chatty.chat_template = "{{ 'Something else' }}"
    first, second = (measure_probe(model, tokenizer, loss_of=lambda rows: sums_of(model, rows)) for tokenizer in (plain, chatty))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
