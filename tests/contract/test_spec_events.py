"""What crosses processes comes back as it went, and says where it is wrong."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import CATALOGUE, ExitCode, GraftError, UserError
from jobs.events import KINDS, Event, EventWriter, read_events
from jobs.methods.registry import METHODS, all_methods, get_method
from jobs.spec import DataSpec, ExportSpec, Mapping, MethodSpec, ModelSpec, RunSpec, StoredDtype, TrainingSpec, load_spec

SPECS = Path(__file__).resolve().parents[2] / "examples" / "specs"
JOBS = SPECS.parents[1] / "jobs"
SPEC = RunSpec(model=ModelSpec("model"), data=DataSpec("train.jsonl"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(
    seed=st.integers(0, 2**31 - 1),
    stored=st.sampled_from(get_args(StoredDtype)),
    epochs=st.floats(0.01, 1000),
    micro_batch=st.integers(1, 4096),
    settings=st.dictionaries(st.text(min_size=1), st.booleans() | st.integers(-(2**53), 2**53) | st.text(), max_size=4),
    columns=st.dictionaries(st.text(), st.text(), max_size=3),
    name=st.text(),
)
def test_a_spec_comes_back_as_it_went(*, seed, stored, epochs, micro_batch, settings, columns, name):
    spec = RunSpec(
        model=ModelSpec("model", name=name),
        data=DataSpec("train", mapping=Mapping("alpaca", columns)),
        method=MethodSpec("lora", settings),
        training=TrainingSpec(epochs=epochs, micro_batch=micro_batch),
        export=ExportSpec(dtype=stored),
        seed=seed,
        name=name,
    )
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"seed": -1}, "spec_bad_value", "seed"),
        ({"seed": "3"}, "spec_bad_value", "seed"),
        ({"colour": 1}, "spec_unknown_field", "colour"),
        ({"training": {"epochs": 0}}, "spec_bad_value", "training.epochs"),
        ({"training": {"schedule": "square"}}, "spec_bad_value", "training.schedule"),
        ({"training": {"epoch": 1}}, "spec_unknown_field", "training.epoch"),
        ({"export": {"dtype": "bfloat16"}}, "spec_bad_value", "export.dtype"),
        ({"data": {}}, "spec_missing_field", "data.train"),
    ],
)
def test_a_wrong_spec_names_its_field(change, code, field):
    with pytest.raises(UserError) as refused:
        RunSpec.from_json({**SPEC.to_json(), **change})
    assert (refused.value.code, refused.value.where) == (code, {"field": field})


@pytest.mark.parametrize(("field", "value"), [("early_stopping_evaluations", 2), ("final_weights", "best")])
def test_what_is_steered_by_validation_rows_needs_some(field, value):
    body = {**SPEC.to_json(), "training": {field: value}}
    assert getattr(RunSpec.from_json(body).training, field) == value
    bare = {**body, "data": {"train": "train.jsonl", "validation_share": 0}}
    assert RunSpec.from_json({**bare, "data": {**bare["data"], "validation": "validation.jsonl"}}).data.validation_share == 0
    with pytest.raises(UserError) as refused:
        RunSpec.from_json(bare)
    assert (refused.value.code, refused.value.where) == ("validation_needed", {"field": f"training.{field}"})


def test_a_spec_without_a_stored_dtype_keeps_the_bases():
    assert RunSpec.from_json({**SPEC.to_json(), "export": {"merge": "none"}}).export.dtype == "base"


def test_a_spec_of_another_version_is_refused():
    with pytest.raises(UserError, match="version 2"):
        RunSpec.from_json({**SPEC.to_json(), "version": 2})


@pytest.mark.parametrize("name", ["full", "lora", "qlora"])
def test_the_examples_are_specs_of_known_methods(name):
    spec = load_spec(SPECS / f"{name}.json")
    assert spec.method.id == name
    get_method(spec.method.id).resolve(dict(spec.method.settings))
    assert Path(spec.data.train).resolve() == SPECS.parent / "tickets" / "train.jsonl"
    assert Path(spec.data.train).is_file()


@given(kind=st.sampled_from(KINDS), seq=st.integers(1, 10**9), data=st.dictionaries(st.text(), json_values, max_size=4))
def test_an_event_comes_back_as_it_went(kind, seq, data):
    event = Event(seq=seq, t=1763805600.25, kind=kind, data=data)
    line = event.to_line()
    assert line.count("\n") == 1
    assert Event.from_line(line) == event
    assert Event.from_line(line.encode()) == event


def test_numbers_that_are_not_finite_are_null_and_said(tmp_path):
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.emit("step", step=3, loss=math.nan, memory={"resident_bytes": 1}, nested=[math.inf, 1.0])
    writer.close()
    line = (tmp_path / "events.jsonl").read_text()
    data = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["data"]
    assert data == {"step": 3, "loss": None, "memory": {"resident_bytes": 1}, "nested": [None, 1.0], "nonfinite": True}


def test_numbering_goes_on_and_an_unfinished_line_is_left_out(tmp_path):
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        writer = EventWriter(path)
        writer.emit("log", level="info", message="one")
        writer.emit("log", level="info", message="two")
        writer.close()
    with path.open("a") as file:
        file.write('{"v":1,"seq":5')
    assert [event.seq for event in read_events(path)] == [1, 2, 3, 4]
    offset = path.read_bytes().index(b'{"v":1,"seq":3')
    assert [event.seq for event in read_events(path, offset)] == [3, 4]


@pytest.mark.parametrize("line", ["[]", '{"v":2,"seq":1,"t":0,"kind":"log","data":{}}', '{"v":1,"seq":1,"t":0,"kind":"tune","data":{}}'])
def test_what_is_no_event_is_refused(line):
    with pytest.raises(ValueError, match="not an event"):
        Event.from_line(line)


def test_every_error_has_words_and_an_exit_code_that_is_no_success():
    for code, text in CATALOGUE.items():
        assert text.message, code
        assert text.remedy, code
        assert text.exit_code is not ExitCode.DONE, code
    assert GraftError("preempted", step=3).to_json()["message"] == "Stopped on request after step 3."


def test_the_catalogue_of_methods_as_the_command_prints_it():
    answer = subprocess.run([sys.executable, "-m", "jobs", "methods", "--json"], capture_output=True, text=True, check=True)
    assert [method["id"] for method in json.loads(answer.stdout)] == list(METHODS)


def test_defaults_of_every_method_are_allowed_by_their_own_settings():
    for method in all_methods():
        assert set(method.resolve({})) == {setting.name for setting in method.settings}
        with pytest.raises(UserError):
            method.resolve({"no_such_setting": 1})


def test_the_contract_is_light():
    """What the web half imports of the engine loads nothing heavy."""
    modules = "jobs.spec, jobs.events, jobs.errors, jobs.methods.registry"
    program = (
        f"import sys, {modules}; jobs.methods.registry.all_methods(); "
        "print([name for name in ('torch', 'transformers', 'peft', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_field_of_the_training_spec_is_used_by_the_engine():
    files = [JOBS / "run.py", *(JOBS / "training").glob("*.py"), *(JOBS / "tasks").glob("*.py")]
    engine = "".join(path.read_text() for path in files)
    unused = [field.name for field in fields(TrainingSpec) if f".{field.name}" not in engine]
    assert unused == []
