"""The sketch against the singular values of the gradient itself, on small models of every kind of base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.analysis.sketch import Sketch, draw
from jobs.analysis.spectrum import gradient_spectra, mini_batches
from jobs.analysis.subject import Loaded, Subject
from jobs.data.token_cache import TokenCache
from jobs.methods.targets import linear_layers
from jobs.spec import RunSpec
from tests.jobs.tasks.rows import make_spec
from tests.tiny import make_tiny_model
from tests.tiny_architectures import make_tiny_architecture

METHODS = {16: "lora", 8: "lora_8bit", 4: "qlora"}


def spec_of(folder: Path, bits: int) -> RunSpec:
    make_tiny_model(folder / "model")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "say {number % 7}", "completion": "it is {number % 5} of it"}}\n' for number in range(24)))
    return RunSpec.from_json(
        {
            "model": {"path": str(folder / "model")},
            "data": {"train": str(rows), "validation_share": 0.25},
            "method": {"id": METHODS[bits]},
            "training": {"micro_batch": 4, "precision": "float32"},
        }
    )


def open_spec(spec: RunSpec, bits: int) -> tuple[Loaded, list[list[Any]]]:
    loaded = Subject.open(spec, TokenCache(None)).load(bits)
    return loaded, mini_batches(loaded.encoded.train.rows, 4, 3, seed=0)


def true_gradients(loaded: Loaded, batches: list[list[Any]]) -> dict[str, torch.Tensor]:
    """By autograd, into the weights themselves, without a sketch."""
    runner = loaded.runner
    layers = dict(linear_layers(loaded.model))
    for layer in layers.values():
        layer.weight.requires_grad_(True)
    for rows in batches:
        batch = runner.batch(rows)
        with runner.running(batch):
            runner.loss_sum(batch).backward()
    labels = sum(row.labels for rows in batches for row in rows)
    found = {name: layer.weight.grad.clone() / labels for name, layer in layers.items()}
    loaded.model.zero_grad()
    loaded.model.requires_grad_(False)
    return found


def test_a_sketch_of_enough_directions_is_exact_and_one_of_few_is_never_too_large():
    generator = torch.Generator().manual_seed(0)
    parts = [
        (torch.randn(30, 40, generator=generator), torch.randn(30, 24, generator=generator) * 0.7 ** torch.arange(24)) for _ in range(3)
    ]
    gradient = sum(g.t() @ x for x, g in parts)
    exact = torch.linalg.svdvals(gradient.double())
    for directions in (24, 6):
        sketch = Sketch(24, *draw(40, directions, generator, "cpu"))
        for x, g in parts:
            sketch.add(x, g)
        sketch.turn()
        for x, g in parts:
            sketch.add(x, g)
        values, energy = sketch.found(scale=2.0)
        assert len(values) == directions
        if directions == 24:
            torch.testing.assert_close(values, 2 * exact, rtol=1e-4, atol=1e-5)
        assert (values <= 2 * exact[:directions] * (1 + 1e-5)).all()
        assert float(values[0]) == pytest.approx(2 * float(exact[0]), rel=0.05)
        assert energy == pytest.approx(4 * float(exact.square().sum()), rel=0.1)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_the_spectrum_is_that_of_the_summed_gradient(tmp_path, bits):
    loaded, batches = open_spec(spec_of(tmp_path, bits), bits)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    spectra = gradient_spectra(loaded.runner, batches, directions=64)
    again = gradient_spectra(loaded.runner, batches, directions=64)
    assert [one.singular_values for one in spectra] == [one.singular_values for one in again]
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in loaded.model.parameters())
    assert not loaded.model.training
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    assert [one.name for one in spectra] == [name for name, _ in linear_layers(loaded.model)]
    assert (spectra[0].layer, spectra[0].module, spectra[-1].layer) == (0, "q_proj", 1)
    if bits == 16:
        exact = true_gradients(loaded, batches)
        for one in spectra:
            values = torch.linalg.svdvals(exact[one.name].double())[: len(one.singular_values)]
            assert (one.outputs, one.inputs) == tuple(exact[one.name].shape)
            assert one.singular_values == pytest.approx(values.tolist(), rel=1e-3, abs=1e-3 * float(values[0]))
            assert one.energy == pytest.approx(float(exact[one.name].double().square().sum()), rel=1e-3)
    else:
        whole = Subject.open(spec_of(tmp_path, 16), TokenCache(None)).load(16)
        plain = gradient_spectra(whole.runner, batches, directions=64)
        assert all(one.energy == pytest.approx(other.energy, rel=0.5) for one, other in zip(spectra, plain, strict=True))
        assert [one.energy for one in spectra] != [one.energy for one in plain]


@pytest.mark.parametrize(("task", "kind"), [("sequence_classification", "bert"), ("seq2seq_lm", "t5")])
def test_other_tasks_have_a_spectrum_of_their_own_loss(tmp_path, task, kind):
    make_tiny_architecture(tmp_path / kind, kind)
    loaded, batches = open_spec(make_spec(tmp_path, tmp_path / kind, task), 16)
    spectra = gradient_spectra(loaded.runner, batches, directions=8)
    assert len(spectra) == len(list(linear_layers(loaded.model))) > 8
    assert all(one.energy > 0 and one.captured > 0.5 for one in spectra)


def test_mini_batches_are_those_that_a_run_begins_with_and_no_more_than_there_are():
    rows = list(range(10))
    assert sorted(row for batch in mini_batches(rows, 4, 9, seed=1) for row in batch) == rows
    assert [len(batch) for batch in mini_batches(rows, 4, 2, seed=1)] == [4, 4]
