"""A real training that is finished early, and one that goes on for longer than was planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.data.token_cache import TokenCache
from jobs.errors import UserError
from jobs.run import execute
from jobs.spec import RunSpec
from jobs.training.schedule import rate_factor, warmup_steps
from tests.jobs.tasks.rows import Ran, make_spec, run
from tests.tiny_architectures import make_tiny_architecture


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """Six steps an epoch, two epochs."""
    folder = tmp_path_factory.mktemp("extension")
    make_tiny_architecture(folder / "bert", "bert")
    made = make_spec(folder, folder / "bert", "sequence_classification", epochs=2, max_steps=None)
    return replace(made, export=replace(made.export, merge="none"))


def finished_after(spec: RunSpec, out: Path, step: int) -> Ran:
    """A run that is asked to finish while it does this step."""
    ran = Ran()
    out.mkdir()

    def emit(kind: str, /, **data: object) -> None:
        ran.events.append((kind, data))

    execute(spec, out, [], emit=emit, stop=lambda: False, finish=lambda: len(ran.of("step")) >= step, cache=TokenCache(None))
    return ran


def test_a_finished_training_leaves_all_that_a_whole_one_does_and_can_be_extended(spec: RunSpec, tmp_path: Path) -> None:
    whole = run(spec, tmp_path / "whole")
    early = finished_after(spec, tmp_path / "early", 4)
    assert [data["loss"] for data in early.of("step")] == [data["loss"] for data in whole.of("step")][:4]
    assert [data["step"] for data in early.of("checkpoint")] == [4]
    assert early.measured("tuned")["step"] == 4
    assert [data["kind"] for data in early.of("artifact")] == [data["kind"] for data in whole.of("artifact")]
    assert any("Finished after step 4 of 12 on request" in data["message"] for data in early.of("log"))

    longer = replace(spec, training=replace(spec.training, epochs=1.5))
    again = run(longer, tmp_path / "again", [tmp_path / "early"])
    plan = again.of("plan")[0]
    assert (plan["start_step"], plan["total_steps"]) == (4, 9)
    assert [data["step"] for data in again.of("step")] == [5, 6, 7, 8, 9]
    assert "after step 4 to step 9" in next(data["message"] for data in again.of("warning") if data["code"] == "length_changed")
    # The schedule is that of a run of nine steps.
    peak, warmup = spec.training.learning_rate, warmup_steps(9, spec.training.warmup_share)
    assert peak is not None
    expected = [peak * rate_factor(step, total_steps=9, warmup=warmup, kind=spec.training.schedule) for step in range(4, 9)]
    assert [data["learning_rate"] for data in again.of("step")] == pytest.approx(expected, rel=1e-9)


def test_a_run_that_has_ended_goes_on_and_a_shorter_one_is_refused(spec: RunSpec, tmp_path: Path) -> None:
    run(spec, tmp_path / "first")
    more = run(replace(spec, training=replace(spec.training, epochs=2.5)), tmp_path / "second", [tmp_path / "first"])
    assert [data["step"] for data in more.of("step")] == [13, 14, 15]
    assert more.measured("tuned")["step"] == 15
    with pytest.raises(UserError, match="not the same epochs"):
        run(replace(spec, training=replace(spec.training, epochs=1)), tmp_path / "third", [tmp_path / "first"])
    # The same length again is no extension, and has nothing left to train.
    same = run(spec, tmp_path / "fourth", [tmp_path / "first"])
    assert not same.of("step")
    assert not [data for data in same.of("warning") if data["code"] == "length_changed"]
