"""Which methods are recommended, why, and what is asked less of; on sizes that can be followed by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from jobs.__main__ import main
from jobs.errors import UserError
from jobs.methods.registry import get_method
from jobs.planning import estimate as planned
from jobs.planning.advice import ask_for_less
from jobs.planning.batches import RowLengths
from jobs.planning.outcomes import Outcome
from jobs.planning.recommend import OWN_RUNS, Situation, recommend
from jobs.planning.rules import RULES, settings_of
from jobs.planning.shape import read_shape
from jobs.spec import DataSpec, EvaluationSpec, MethodSpec, ModelSpec, RunSpec, TrainingSpec
from tests.jobs.planning.test_shape import CPU
from tests.tiny import make_tiny_model, tiny_config

SPEC = RunSpec(ModelSpec("m", name="acme/tiny"), DataSpec("rows"), training=TrainingSpec(precision="bfloat16"))
RUN = Outcome("tickets", "dora", {"rank": 4}, {"epochs": 2.0}, "acme/tiny", "causal_lm", 3000, 2.0, 1.0, 90.0, 2**30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = tiny_config(hidden_size=128, intermediate_size=256, num_hidden_layers=3)
    return make_tiny_model(tmp_path_factory.mktemp("recommend") / "m", config=config)


@pytest.fixture(scope="module")
def situation(folder):
    return Situation(SPEC, {**CPU, "memory_bytes": 8 * 2**30}, read_shape(folder), RowLengths.of([100], rows=2000))


@pytest.fixture
def only_training(monkeypatch):
    """Sizes of the training alone: in so small a model Python itself is most of the memory, and answering needs more than learning."""
    monkeypatch.setitem(planned.UNMEASURED_RUNTIME, "cpu", 0)
    return replace(SPEC, evaluation=EvaluationSpec(generate=False, retention=False))


def knowing(situation, *past):
    return replace(situation, past=past)


def ids(found):
    return [one.spec.method.id for one in found]


def test_every_rule_names_a_method_that_takes_its_settings(situation):
    for rule in RULES:
        get_method(rule.method).resolve(settings_of(rule, situation.facts))
        assert "20" in rule.source, "a year"
        assert rule.tells.format(rows=1, tokens=1).endswith(".")


def test_quality_memory_and_speed_are_ranked_apart(situation):
    quality, memory, speed = (recommend(situation, wish) for wish in ("quality", "memory", "speed"))
    assert ids(quality) == ["lora", "lora_8bit", "qlora"]
    assert ids(speed) == ids(quality), "without a calibration no time is known"
    peaks = [one.estimate.memory.peak for one in memory]
    assert peaks == sorted(peaks)
    assert all(one.spec.training.micro_batch == 1 and one.spec.training.gradient_checkpointing for one in memory)
    assert all(one.spec.training.gradient_accumulation == 16 for one in memory), "as many rows a step as the spec has"
    assert all(one.estimate.fits and one.reason and one.source and not one.changes for one in quality + memory + speed)


def test_facts_of_the_data_decide(situation):
    few = replace(situation, lengths=RowLengths.of([100], rows=200))
    assert ids(recommend(few, "quality")) == ["dora", "pissa", "lora"], "few rows, few steps"
    assert set(ids(recommend(few, "speed"))) == {"lora", "lora_8bit", "qlora"}
    assert recommend(few, "quality")[2].spec.method.settings == {"dropout": 0.05}
    assert ids(recommend(replace(situation, languages=("ja",)), "quality"))[0] == "rslora"
    assert ids(recommend(replace(situation, languages=("en-GB",)), "quality"))[0] == "lora"
    many = recommend(replace(situation, lengths=RowLengths.of([100], rows=200_000)), "quality")
    assert ids(many) == ["full", "rslora", "lora"]
    assert {one.spec.training.epochs for one in many} == {1.0}
    assert "10,000,000 trained tokens" in many[0].reason


def test_own_runs_on_alike_data_come_before_rules_and_say_so(situation):
    better = replace(RUN, name="better", method="vera", settings={}, loss_after=0.5, peak_bytes=3 * 2**30, seconds=300.0)
    found = recommend(knowing(situation, RUN, better), "quality")
    assert ids(found) == ["vera", "dora", "lora"]
    assert found[1].source == OWN_RUNS
    assert found[1].reason == "Your run “tickets” on this base and 3,000 rows took 50 % of the loss away, in 90 s and 1.0 GiB."
    assert (found[1].spec.method.settings, found[1].spec.training.epochs) == ({"rank": 4}, 2.0)
    assert ids(recommend(knowing(situation, RUN, better), "memory"))[:2] == ["dora", "vera"]
    assert ids(recommend(knowing(situation, RUN, better), "speed"))[:2] == ["dora", "vera"]


@pytest.mark.parametrize(
    "change",
    [
        {"base": "other"},
        {"task": "regression"},
        {"rows": 8001},
        {"rows": 499},
        {"method": "gone"},
        {"settings": {"rank": 0}},
        {"loss_after": 2.0},
    ],
)
def test_runs_on_other_data_or_that_cannot_be_repeated_are_no_reason(situation, change):
    assert ids(recommend(knowing(situation, replace(RUN, **change)), "quality")) == ["lora", "lora_8bit", "qlora"]


def test_a_method_that_made_matters_worse_comes_last(situation):
    worse = replace(RUN, method="lora", settings={}, loss_after=2.5)
    assert ids(recommend(knowing(situation, worse), "quality")) == ["lora_8bit", "qlora", "lora"]
    assert ids(recommend(knowing(situation, worse, replace(worse, loss_after=1.5)), "quality"))[0] == "lora"


def test_methods_that_do_not_come_into_question_are_left_out(situation):
    known = knowing(situation, replace(RUN, method="vera", settings={}))
    assert ids(recommend(known, "quality")) == ["vera", "lora", "lora_8bit"]
    assert ids(recommend(replace(known, without=frozenset({"vera", "lora"})), "quality")) == ["lora_8bit", "qlora"]


def test_times_are_those_of_own_runs_on_this_base_and_device(situation):
    fast = replace(RUN, method="lora", settings={}, rows=100, device=CPU["name"], tokens_per_second=500.0)
    runs = [fast, replace(fast, tokens_per_second=1500.0), replace(fast, tokens_per_second=None)]
    others = [replace(fast, base="other", tokens_per_second=1.0), replace(fast, device="other", tokens_per_second=1.0)]
    first, second, _ = recommend(knowing(situation, *runs, *others), "quality")
    assert first.estimate.steps == 375, "3 epochs of 2,000 rows, 16 a step"
    assert first.timing.seconds == 375 * 16 * 100 / 1000
    assert "2 of your own runs" in first.timing.basis
    assert second.timing is None
    assert first.to_json()["timing"] == {"seconds": 600.0, "basis": first.timing.basis}
    all_known = [replace(fast, method=method, tokens_per_second=speed) for method, speed in (("lora", 9), ("lora_8bit", 7), ("qlora", 8))]
    assert ids(recommend(knowing(situation, *all_known), "speed")) == ["lora", "qlora", "lora_8bit"]


def test_what_does_not_fit_comes_last_and_what_can_be_changed_without_loss_is(situation, only_training):
    situation = replace(situation, spec=only_training)
    roomy = recommend(knowing(situation, replace(RUN, method="full", settings={})), "quality")
    assert ids(roomy)[0] == "full"
    least = roomy[0].estimate.memory.peak
    tight = replace(situation, device={**situation.device, "memory_bytes": round(0.8 * least)})
    found = recommend(knowing(tight, replace(RUN, method="full", settings={})), "quality")
    by_fit = [one.estimate.fits for one in found]
    assert by_fit == sorted(by_fit, reverse=True)
    for one in found:
        batch = one.spec.training.micro_batch * one.spec.training.gradient_accumulation
        assert batch == 16


def test_asking_for_less_falls_until_it_fits_and_goes_no_further(situation, only_training):
    spec = replace(
        only_training,
        method=MethodSpec("full"),
        training=TrainingSpec(precision="bfloat16", micro_batch=6, gradient_accumulation=1, learning_rate=1e-5),
    )

    def peak_of(changed):
        return situation.estimate(changed).memory.peak

    whole = situation.less(replace(spec, training=replace(spec.training, max_length=512)))
    assert whole == ()
    steps = ask_for_less(replace(spec, training=replace(spec.training, max_length=512)), 0.0, peak_of)
    peaks = [peak_of(spec), *(step.peak for step in steps)]
    assert all(after < before for before, after in pairwise(peaks))
    assert not any(step.fits for step in steps)
    assert steps[0].change.startswith("Lower the micro-batch to 3 and raise the accumulation to 2:")
    for step in steps:
        assert step.spec.training.micro_batch * step.spec.training.gradient_accumulation == 6
    lora = next(step.spec for step in steps if step.spec.method.id != "full")
    assert lora.training.learning_rate is None
    enough = ask_for_less(replace(spec, training=replace(spec.training, max_length=512)), steps[1].peak, peak_of)
    assert [step.change for step in enough] == [step.change for step in steps[:2]]
    assert [step.fits for step in enough] == [False, True]


def test_asking_for_less_leaves_the_length_to_the_data_and_the_engine_alone(situation, only_training):
    spec = replace(only_training, training=replace(only_training.training, precision="float32"))
    tight = replace(situation, spec=spec, device={**situation.device, "memory_bytes": 1})
    steps = tight.less(spec)
    assert any(not step.spec.engine.packed_weights for step in steps)
    kept = replace(tight, keep_engine=True).less(spec)
    assert kept
    assert all(step.spec.engine == spec.engine for step in kept)
    lengths = [step.spec.training.max_length for step in kept if "maximum length" not in step.change]
    assert lengths[0] is None


def test_asking_for_less_without_another_result_keeps_the_method(situation, only_training):
    steps = ask_for_less(
        replace(only_training, method=MethodSpec("full")), 0.0, lambda spec: situation.estimate(spec).memory.peak, same_result=True
    )
    assert steps
    assert {step.spec.method.id for step in steps} == {"full"}


def test_past_runs_are_read_strictly():
    assert Outcome.from_json(asdict(RUN)) == RUN
    for body in ({**asdict(RUN), "extra": 1}, {"name": "x"}, {**asdict(RUN), "loss_before": 0.0}):
        with pytest.raises(UserError) as refused:
            Outcome.from_json(body)
        assert refused.value.code == "spec_bad_value"


def test_the_command_prints_three_and_what_to_ask_less_of(folder, tmp_path, capsys):
    rows, past, spec = tmp_path / "rows.jsonl", tmp_path / "past.json", tmp_path / "spec.json"
    rows.write_text('{"prompt": "say it", "completion": "it is said"}\n' * 900)
    past.write_text(json.dumps([{**asdict(RUN), "rows": 1000}]))
    spec.write_text(json.dumps({"model": {"path": str(folder), "name": "acme/tiny"}, "data": {"train": str(rows)}}))
    call = ["advise", str(spec), "--past", str(past), "--cache", str(tmp_path), "--memory"]
    assert main([*call, str(8 * 2**30), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recommendations"][0]["method"]["id"] == "dora"
    assert found["recommendations"][0]["source"] == OWN_RUNS
    assert len(found["recommendations"]) == 3
    assert found["less"] == []
    assert (found["fits"], found["estimate"]["fits"], found["refusal"], found["timing"]) == (True, True, None, None)
    assert main([*call, "1000000"]) == 0
    words = capsys.readouterr().out
    assert "It does not fit." in words
    assert "The spec as it stands does not fit. Nothing that is known here saves enough to be worth it." in words
    past.write_text("{}")
    assert main([*call, "1000000", "--json"]) != 0
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "spec_bad_value"


def test_the_command_looks_at_the_device_that_it_is_told_of(folder, tmp_path, capsys):
    rows, device, spec = tmp_path / "rows.jsonl", tmp_path / "device.json", tmp_path / "spec.json"
    rows.write_text('{"prompt": "say it", "completion": "it is said"}\n' * 40)
    device.write_text(json.dumps({**CPU, "memory_bytes": 8 * 2**30}))
    asked = {"model": {"path": str(folder)}, "data": {"train": str(rows)}, "training": {"precision": "float16"}}
    spec.write_text(json.dumps(asked))
    call = ["advise", str(spec), "--cache", str(tmp_path), "--device", str(device), "--rows", "200000", "--without", "full", "--json"]
    assert main(call) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["recommendations"], found["refusal"]["code"], found["less"]) == ([], "device_cannot", []), "float16 is for GPUs"
    spec.write_text(json.dumps({**asked, "training": {}}))
    assert main(call) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["estimate"]["device_bytes"] == 8 * 2**30
    assert [one["training"]["epochs"] for one in found["recommendations"]] == [1.0] * 3, "so many rows as it was told"
    assert found["each"] == []
    each = tmp_path / "each.json"
    settings = [{"rank": 4}, {"rank": 8}, {"rank": 0}]
    each.write_text(json.dumps([{"method": {"id": "lora", "settings": one}, "training": {"micro_batch": 4}} for one in settings]))
    assert main([*call, "--each", str(each)]) == 0
    four, eight, none = json.loads(capsys.readouterr().out)["each"]
    assert eight["estimate"]["trained_parameters"] == 2 * four["estimate"]["trained_parameters"]
    assert (none["estimate"], none["refusal"]["code"]) == (None, "method_setting")
    each.write_text('[{"method": {"id": "lora"}}]')
    assert main([*call, "--each", str(each)]) != 0
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "spec_bad_value"
    device.write_text('{"kind": "cpu"}')
    assert main(call) != 0
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "spec_bad_value"
