"""What padded batches of each task give, against each row by itself and against what transformers computes of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.data.token_cache import TokenCache
from jobs.models.heads import fresh_heads
from jobs.models.loading import load_model, load_tokenizer
from jobs.spec import TrainingSpec
from jobs.tasks.registry import make_work
from jobs.tasks.work import Means
from tests.jobs.tasks.rows import make_spec

CELLS = [
    ("sequence_classification", "bert"), ("sequence_classification", "llama"), ("regression", "roberta"), ("regression", "llama"),
    ("question_answering", "bert"), ("multiple_choice", "roberta"), ("seq2seq_lm", "t5"),
]  # fmt: skip


def prepared(models: Path, folder: Path, task: Any, kind: str) -> tuple[Any, Any, Any]:
    """What does the task, its forward, and rows of different lengths."""
    spec = make_spec(folder, models / kind, task)
    work, tokenizer = make_work(task), load_tokenizer(models / kind, writes=False)
    architecture = {"llama": "LlamaForCausalLM", "t5": "T5ForConditionalGeneration"}.get(kind, "BertForMaskedLM")
    rows = work.read(spec, tokenizer, architecture=architecture, cache=TokenCache(None), report=lambda _done: None)
    model = load_model(models / kind, precision="float32", trains_base=True, head=work.head(tokenizer, 0))
    encoded = rows.encoded(TrainingSpec(max_length=spec.training.max_length), 256)
    forward, reasons = work.forward(model, encoded.train.rows, Means(torch.float32, "cpu"), spec)
    assert reasons == []
    return work, forward, sorted(encoded.train.rows[:9], key=lambda row: len(row.ids))


@pytest.mark.parametrize(("task", "kind"), CELLS)
def test_a_row_gives_the_same_alone_and_among_others(models, tmp_path, task, kind):
    work, forward, rows = prepared(models, tmp_path, task, kind)
    assert len({len(row.ids) for row in rows}) > 1
    together = forward.logits(rows)
    for row, logits in zip(rows, together.logits, strict=True):
        with torch.no_grad():
            assert torch.allclose(work.logits(forward.model, row), logits, atol=2e-5)
    alone = [forward.score([row]) for row in rows]
    assert sum(loss for loss, _ in alone) == pytest.approx(together.loss_sum, rel=1e-5)
    assert sum(hits for _, hits in alone) == together.hits


@pytest.mark.parametrize(("task", "kind"), CELLS)
def test_every_trained_weight_gets_a_finite_gradient(models, tmp_path, task, kind):
    _, forward, rows = prepared(models, tmp_path, task, kind)
    forward.model.requires_grad_(True)
    batch = forward.batch(rows)
    with forward.running(batch):
        forward.loss_sum(batch).backward()
    unused = ("cls.", "pooler") if task == "question_answering" else ()
    for name, parameter in forward.model.named_parameters():
        if not any(part in name for part in unused):
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    assert all(any(name.startswith(head) for name, _ in forward.model.named_parameters()) for head in fresh_heads(forward.model))


def test_losses_are_those_of_transformers(models, tmp_path):
    """On rows of one length, where padding plays no part."""
    for task, kind in (
        ("sequence_classification", "bert"),
        ("regression", "roberta"),
        ("question_answering", "bert"),
        ("seq2seq_lm", "t5"),
    ):
        _, forward, rows = prepared(models, tmp_path, task, kind)
        row = rows[0]
        batch = forward.batch([row, row])
        given = {"start_positions": batch.targets[:, 0], "end_positions": batch.targets[:, 1]} if batch.targets.ndim == 2 else {}
        inputs = {**batch.inputs, **(given if task == "question_answering" else {"labels": batch.targets})}
        with torch.no_grad():
            expected = float(forward.model(**inputs).loss)
            assert float(forward.loss_sum(batch)) == pytest.approx(expected * 2 * row.labels, rel=1e-5), task


def test_a_causal_head_reads_the_last_token_of_each_text_where_padding_is_the_end_token(models, tmp_path):
    """The tiny Llama pads with its end token, as SmolLM2 does: padding lies on the left, positions count from the text's first token."""
    work, forward, rows = prepared(models, tmp_path, "sequence_classification", "llama")
    assert work.framing.pad_id == 1 == load_tokenizer(models / "llama").eos_token_id
    batch = forward.batch([rows[0], rows[-1]])
    padding = len(rows[-1].ids) - len(rows[0].ids)
    assert padding > 0
    assert batch.inputs["input_ids"][0].tolist() == [1] * padding + rows[0].ids.tolist()
    assert batch.inputs["position_ids"][0].tolist() == [0] * padding + list(range(len(rows[0].ids)))
    states = forward.model.model(input_ids=torch.from_numpy(rows[0].ids).long()[None]).last_hidden_state
    expected = forward.model.score(states[0, -1])
    with torch.no_grad():
        assert torch.allclose(forward.logits(rows).logits[0][0], expected, atol=2e-5)
