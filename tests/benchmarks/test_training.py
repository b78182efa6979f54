"""The logic of `make bench-training`: the same work for all, turns, results and ratios; and that peer and Graft make the same steps."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import peers, training
from benchmarks.peers import ROOT, EnvironmentUnavailable, ensure_env
from benchmarks.peers.common import IGNORED, Job
from benchmarks.summary import ratios, summary, table
from benchmarks.trainers import TRAINERS, Failure, Result, Step, Trainer, peer_result, run_graft, run_peer, steps_of_events
from benchmarks.workloads import BATCH, SEED, Case, arc_record, graft_spec, load_names, load_records, make_job, write_job, write_rows
from jobs.events import Event
from jobs.spec import RunSpec
from jobs.training.order import permutation
from tests.tiny import make_tiny_model, tiny_tokenizer

CASE = Case("lora", "fp32", "tickets-plain")
ARC_ROW = {"question": "Which is red?", "choices": {"text": ["a rose", "the sea"], "label": ["A", "B"]}, "answerKey": "A"}


@pytest.fixture
def job() -> Job:
    records = load_records(CASE.load, None)
    return make_job(CASE, records, tiny_tokenizer(), Path("model"))


def small_job(**changes) -> Job:
    rows = [{"input_ids": [1] * length, "labels": [IGNORED] * length} for length in (2, 3, 5, 7)]
    steps = [[0, 1], [2, 3], [0, 3], [1, 2]]
    values = {"method": "lora", "precision": "float32", "learning_rate": 1e-3, "rank": 2, "alpha": 4, "seed": 0, "batch": 2}
    return Job(model="m", untimed=1, timed=2, settle_seconds=1.0, rows=rows, steps=steps, **values | changes)


def result(trainer: str, *rates: float, case: str = "lora-bf16-arc", round_: int = 1, peak: int = 10, **changes) -> Result:
    steps = [Step(seconds=1.0, loss=1.0, tokens=1), *(Step(seconds=100 / rate, loss=0.5, tokens=100) for rate in rates)]
    return replace(Result(case, trainer, round_, "ok", first_timed=1, peak_rss_bytes=peak, steps=steps), **changes)


def test_an_arc_row_is_asked_with_its_choices_and_answered_in_full():
    question, answer = arc_record(ARC_ROW)["messages"]
    assert question == {"role": "user", "content": "Question: Which is red?\n\nA) a rose\nB) the sea"}
    assert answer == {"role": "assistant", "content": "The correct answer is A) a rose."}


def test_the_job_holds_grafts_ids_labels_and_order(job):
    records = load_records(CASE.load, None)
    assert len(job.rows) == len(records) == 56
    text = records[0]["prompt"] + records[0]["completion"]
    assert job.rows[0]["input_ids"][:-1] == tiny_tokenizer()(text)["input_ids"]
    trained = [label for label in job.rows[0]["labels"] if label != IGNORED]
    assert trained == [*tiny_tokenizer()(records[0]["completion"])["input_ids"], tiny_tokenizer().eos_token_id]
    assert [index for step in job.steps[:7] for index in step] == permutation(SEED, 0, 56).tolist()
    assert {len(step) for step in job.steps} == {BATCH}
    assert job.examples[BATCH] is job.rows[job.steps[1][0]]
    assert job.tokens(1) == sum(len(job.rows[index]["input_ids"]) for index in job.steps[1])


def test_a_row_that_would_be_cut_is_refused():
    long = [{"prompt": "x" * 3000, "completion": "y"}] * BATCH
    with pytest.raises(ValueError, match="8 rows of the load 'tickets-plain' are longer than 2048 tokens"):
        make_job(CASE, long, tiny_tokenizer(), Path("model"))


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_grafts_spec_is_one_that_the_engine_reads_and_holds_nothing_out(method):
    spec = RunSpec.from_json(graft_spec(Case(method, "bf16", "tickets"), Path("rows.jsonl"), Path("model"), {"compile": False}))
    assert (spec.method.id, spec.training.precision, spec.training.schedule) == (method, "bfloat16", "constant")
    assert (spec.data.validation_share, spec.evaluation.generate, spec.evaluation.retention, spec.export.merge) == (0, False, False, "none")
    assert spec.training.max_steps == 8
    assert not spec.engine.compile
    assert spec.engine.shared_prefix


def test_cases_and_peers_are_chosen_by_name():
    assert load_names(None) == ["tickets", "tickets-plain"]
    assert [case.name for case in training.chosen_cases(Path("data"), "lora-bf16,full-fp32-gsm")] == [
        "lora-bf16-arc", "lora-bf16-gsm8k", "full-fp32-gsm8k",
    ]  # fmt: skip
    assert [one.name for one in training.chosen_trainers("trl,hf-padded")] == ["graft", "hf-padded", "trl", "trl-padding-free"]
    assert training.chosen_trainers("") == list(TRAINERS)
    with pytest.raises(SystemExit, match="no such peer: unsloth; there are hf-padded"):
        training.chosen_trainers("unsloth,trl")


def test_every_round_begins_with_another_trainer_and_compiled_ones_run_once():
    graft, one, two = Trainer("graft"), Trainer("one", "env"), Trainer("two", "env", compiled=True)
    assert [(round_, trainer.name) for round_, trainer in training.turns([graft, one, two], 3)] == [
        (0, "graft"),
        (1, "graft"), (1, "one"), (1, "two"),
        (2, "one"), (2, "graft"),
        (3, "graft"), (3, "one"),
    ]  # fmt: skip


def events(*tokens: int) -> list[Event]:
    begin = Event(1, 100.0, "phase", {"name": "training"})
    return [begin, *(Event(2 + i, 101.0 + 2 * i, "step", {"step": i + 1, "loss": 0.5, "tokens": count}) for i, count in enumerate(tokens))]


def test_a_step_of_graft_lasts_from_the_end_of_the_one_before():
    steps, last = steps_of_events(events(5, 17, 26), small_job())
    assert [(step.seconds, step.tokens) for step in steps] == [(1.0, 5), (2.0, 12), (2.0, 9)]
    assert (steps[1].tokens_per_second, last) == (6.0, 105.0)


@pytest.mark.parametrize(("tokens", "reason"), [((5, 18, 26), "18 tokens after step 2; the job has 17"), ((5, 17), "2 steps of 3")])
def test_a_run_of_graft_over_other_rows_or_too_few_steps_is_no_result(tokens, reason):
    with pytest.raises(Failure) as failure:
        steps_of_events(events(*tokens), small_job())
    assert (failure.value.outcome, failure.value.reason) == ("failed", reason)


METERED = """
import sys
from pathlib import Path
from benchmarks.peers.common import Job, Meter
meter = Meter(Job.read(Path(sys.argv[1])))
print("a library speaks")
meter.begin()
print([meter.step(loss) for loss in (3.0, 2.0, 1.0)], file=sys.stderr)
"""


def test_the_meter_ends_after_the_timed_steps_and_keeps_its_lines_apart(tmp_path):
    write_job(small_job(), tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == small_job()
    done = subprocess.run([sys.executable, "-c", METERED, str(tmp_path / "job.json")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "a library speaks" in done.stderr
    assert "[False, False, True]" in done.stderr
    measured = peer_result(done.stdout)
    assert [(step.loss, step.tokens) for step in measured["steps"]] == [(3.0, 5), (2.0, 12), (1.0, 9)]
    assert (measured["first_timed"], measured["settled"]) == (1, True)
    assert measured["peak_rss_bytes"] > 2**20


def test_a_peer_that_ends_early_is_no_result():
    with pytest.raises(Failure, match="it ended after 1 steps"):
        peer_result('{"step": 1, "seconds": 1.0, "loss": 2.0, "tokens": 3}\n')


def test_a_failing_peer_tells_why(tmp_path):
    with pytest.raises(Failure, match="FileNotFoundError"):
        run_peer(Trainer("x", "hf", "llama_factory"), Path(sys.executable), tmp_path / "absent.json")


def test_ratios_are_of_medians_over_all_timed_steps_and_rounds():
    results = [
        result("graft", 1.0, 1.0, round_=0, peak=99),
        result("graft", 300.0, 400.0, peak=30), result("graft", 500.0, 600.0, round_=2, peak=20),
        result("hf-padded", 90.0, 100.0, 110.0, peak=60), result("litgpt", 50.0, peak=40),
        result("hf-padded-compiled", 150.0, peak=80), result("trl", outcome="failed", reason="no memory"),
    ]  # fmt: skip
    found = ratios(results, "lora-bf16-arc")
    assert found == {
        "tokens_per_second": 450.0, "peak_rss_bytes": 30,
        "best_peer": "hf-padded", "ratio_to_best_peer": 4.5, "smallest_peer": "litgpt", "rss_ratio_to_smallest_peer": 0.75,
        "best_peer_compiled_too": "hf-padded-compiled", "ratio_to_best_peer_compiled_too": 3.0,
        "smallest_peer_compiled_too": "litgpt", "rss_ratio_to_smallest_peer_compiled_too": 0.75,
    }  # fmt: skip
    lines = table(results, "lora-bf16-arc").splitlines()
    assert lines[4] == "| graft | 450 | 350 550 | 0.23 | 0 | 1 | 1.0000 0.5000 0.5000 |"
    assert lines[-1] == "trl, round 1: failed: no memory"


def test_the_summary_compares_qlora_with_lora_and_names_loads():
    results = [
        result("graft", 200.0),
        result("trl", 100.0),
        result("graft", 180.0, case="qlora-bf16-arc"),
        result("hf-padded", 90.0, case="full-bf16-arc"),
    ]
    found = summary(results)
    assert found["ratio_to_best_peer"] == {"arc": 2.0}
    assert found["rss_ratio_to_smallest_peer"] == {"arc": 1.0}
    assert found["qlora_to_lora"] == {"arc": 0.9}
    assert list(found["cases"]) == ["lora-bf16-arc"]


def test_an_interrupted_bench_goes_on_with_what_it_has(tmp_path):
    path, results = training.open_results(tmp_path, resume=True)
    assert results == []
    done, failed = result("graft", 5.0), result("trl", outcome="failed", reason="r")
    bench = training.Bench(tmp_path, tmp_path, None, path, results, {})
    for one in (done, failed):
        bench._add(one)
    again, found = training.open_results(tmp_path, resume=True)
    assert (again, found) == (path, [done])
    assert json.loads(path.read_text().splitlines()[0])["machine"]["threads"] >= 1
    assert bench._known("lora-bf16-arc", Trainer("trl", "trl"), 2)
    assert not bench._known("lora-bf16-arc", Trainer("graft"), 2)


def test_an_environment_is_made_once_and_one_that_does_not_install_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "REQUIREMENTS", tmp_path)
    wanted = tmp_path / "litgpt.txt"
    wanted.write_text(f"{tmp_path}/absent-1.0-py3-none-any.whl\n")
    with pytest.raises(EnvironmentUnavailable, match=r"'litgpt' does not install: .*absent-1\.0"):
        ensure_env("litgpt", tmp_path / "envs")
    wanted.write_text("# nothing\n")
    python = ensure_env("litgpt", tmp_path / "envs")
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 1
    stamp = python.parent.parent / "installed.sha256"
    made = stamp.stat().st_mtime_ns
    assert ensure_env("litgpt", tmp_path / "envs") == python
    assert stamp.stat().st_mtime_ns == made


@pytest.mark.slow
def test_graft_and_hf_trainer_make_the_same_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, rows = make_tiny_model(tmp_path / "model"), tmp_path / "rows.jsonl"
    records = load_records(CASE.load, None)
    write_rows(records, rows)
    job = make_job(CASE, records, tiny_tokenizer(), model)
    (tmp_path / "job.json").write_text(json.dumps(asdict(job)))
    ours = run_graft(graft_spec(CASE, rows, model), job)
    theirs = run_peer(Trainer("hf-padded", "hf", "hf_trainer"), Path(sys.executable), tmp_path / "job.json")
    assert len(ours["steps"]) == len(theirs["steps"]) == 8
    assert [step.tokens for step in ours["steps"]] == [step.tokens for step in theirs["steps"]]
    assert [step.loss for step in ours["steps"]] == pytest.approx([step.loss for step in theirs["steps"]], abs=1e-4)
    assert ours["steps"][0].loss != pytest.approx(ours["steps"][-1].loss, abs=1e-3)
    assert ours["peak_rss_bytes"] > 2**27
