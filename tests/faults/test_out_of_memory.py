"""The real engine in too little memory of the host: it goes on with less (that of a GPU: tests/webapp/runs/test_memory.py)."""

from __future__ import annotations

from tests.faults.figures import record
from tests.faults.invariants import violations
from tests.flow.site import Site
from tests.tiny import make_tiny_model, tiny_config
from tests.webapp.runs.rows import make_bench
from tests.webapp.runs.test_memory import ENGINE, engine, told
from webapp.runs.states import State

ROWS = [{"prompt": f"Say {number}: ", "completion": "even " * 20} for number in range(64)]
# A step of all rows at once takes about 1.5 GB, one of half of them 1.0 GB.
LIMIT_BYTES = 1_250_000_000


def test_f50_the_engine_out_of_host_memory_goes_on_with_less(site: Site) -> None:
    bench = make_bench(rows=ROWS)
    make_tiny_model(bench.base_model.folder, config=tiny_config(initializer_range=0.15, intermediate_size=4096))
    training = {"max_steps": 2, "micro_batch": 64, "gradient_accumulation": 1, "precision": "float32"}
    run = bench.launch(training=training, **ENGINE)
    while engine(run, "--data-bytes", str(LIMIT_BYTES)).state == State.QUEUED:
        assert told(run, "finished", run.attempt)[0]["code"] == "host_oom"
    assert run.state == State.SUCCEEDED, run.message
    assert 1 <= run.memory_cuts == run.attempt - 1 <= 4
    (plan,) = told(run, "plan", run.attempt)
    assert (plan["micro_batch"], plan["effective_batch"]) == (64 // 2**run.memory_cuts, 64)
    assert violations([run]) == []
    record("out_of_memory", run.attempt, "the real engine, refused by the kernel")
