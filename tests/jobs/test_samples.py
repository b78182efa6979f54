"""What a model in training answers to some held-out prompts: when it is asked, and that asking changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import samples
from jobs.errors import GraftError
from jobs.spec import RunSpec
from jobs.training import checkpoint
from tests.jobs.tasks.rows import Ran, run
from tests.threads import single_threaded
from tests.tiny import make_tiny_model

STEPS = 16
ANSWERS = ("refund", "shipping")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """16 steps with dropout, which draws random numbers, looked at after every second one."""
    folder = tmp_path_factory.mktemp("samples")
    make_tiny_model(folder / "model")
    for name, count in (("train", 24), ("test", 8)):
        rows = [{"prompt": f"ticket {number}", "completion": ANSWERS[number % 2]} for number in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunSpec.from_json(
        {
            "model": {"path": str(folder / "model")},
            "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl"), "validation_share": 0.1},
            "method": {"id": "lora", "settings": {"rank": 4, "dropout": 0.1}},
            "training": {"max_steps": STEPS, "epochs": 100, "micro_batch": 4, "precision": "float32", "evaluate_every_steps": 2},
            "evaluation": {"max_new_tokens": 100, "samples": 4, "retention": False},
            "export": {"merge": "none"},
        }
    )


def carried_out(spec: RunSpec, out: Path, *, share: float, **more: Any) -> Ran:
    with pytest.MonkeyPatch.context() as patch, single_threaded():
        patch.setattr(samples, "SHARE", share)
        return run(spec, out, **more)


@pytest.fixture(scope="module")
def asked_often(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A run whose samples may take any time."""
    out = tmp_path_factory.mktemp("often")
    return out, carried_out(spec, out, share=1e9)


def steps_of(told: Ran) -> list[int]:
    """The steps of the training at which it was asked, once for each answer."""
    return [data["step"] for data in told.of("sample") if data["model"] == "tuned" and data["step"] < STEPS]


def test_the_same_prompts_are_asked_over_time_base_first(asked_often):
    told = asked_often[1].of("sample")
    base = [data for data in told if data["model"] == "base"]
    assert told[: len(base)] == base
    assert [data["step"] for data in base] == [0] * 4
    assert steps_of(asked_often[1]) == [step for step in (2, 4, 6, 8, 10, 12, 14) for _ in range(samples.PROMPTS)]
    known = {(data["index"], data["prompt"], data["expected"]) for data in base}
    between = [data for data in told if 0 < data["step"] < STEPS]
    assert len({data["index"] for data in between}) == samples.PROMPTS
    assert {(data["index"], data["prompt"], data["expected"]) for data in between} < known
    assert all(data["correct"] == (data["answer"] == data["expected"]) for data in between)
    # Answers among known labels are no longer than those; a run tells of each in its phases.
    assert max(len(data["answer"]) for data in between) <= len("shipping") + 4
    phases = [data["name"] for data in asked_often[1].of("phase")]
    assert phases.count("evaluating") >= 7


def test_asking_changes_no_bit_of_the_training(spec, asked_often, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.run.Samples", lambda *_: lambda: None)
    plain = carried_out(spec, tmp_path, share=0.0)
    assert not steps_of(plain)
    often = asked_often[1]
    for name in ("loss", "gradient_norm"):
        assert [data[name] for data in plain.of("step")] == [data[name] for data in often.of("step")]
    ours, theirs = (checkpoint.read_weights(checkpoint.newest([out])) for out in (tmp_path, asked_often[0]))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_no_more_time_is_taken_than_its_share(spec, tmp_path):
    told = carried_out(spec, tmp_path, share=0.0)
    assert steps_of(told) == [2] * samples.PROMPTS, "once in any case"


def test_a_resumed_run_asks_at_the_same_steps_and_never_twice(spec, asked_often, tmp_path, monkeypatch):
    told = Ran()
    monkeypatch.setattr("tests.jobs.tasks.rows.Ran", lambda: told)
    with pytest.raises(GraftError, match="Stopped on request"):
        carried_out(spec, tmp_path / "1", share=1e9, until=7)
    monkeypatch.undo()
    rest = carried_out(spec, tmp_path / "2", share=1e9, resume=[tmp_path / "1"])
    both = [*told.of("sample"), *rest.of("sample")]
    assert [data for data in both if data["step"] < STEPS] == [data for data in asked_often[1].of("sample") if data["step"] < STEPS]


def test_nothing_is_asked_where_nothing_is_written(spec, tmp_path):
    silent = RunSpec.from_json({**spec.to_json(), "evaluation": {"generate": False, "retention": False}})
    assert not carried_out(silent, tmp_path, share=1e9).of("sample")
