"""Whole runs of every task: what they learn, what they leave, what it is worth outside, and how they go on after a stop."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from jobs.__main__ import main
from jobs.errors import ExitCode, GraftError, UserError
from jobs.export.dequantised import requantised_weights
from jobs.export.merged_folder import merge_folder
from jobs.models.heads import read_head
from jobs.models.loading import load_tokenizer
from jobs.spec import MethodSpec
from jobs.tasks.registry import get_task
from jobs.training import checkpoint
from tests.jobs.tasks.rows import Ran, make_spec, run

CELLS = [
    ("sequence_classification", "bert"), ("sequence_classification", "roberta"), ("sequence_classification", "llama"),
    ("regression", "bert"), ("regression", "llama"), ("question_answering", "bert"), ("multiple_choice", "roberta"), ("seq2seq_lm", "t5"),
]  # fmt: skip
AUTO = {
    "sequence_classification": "AutoModelForSequenceClassification", "regression": "AutoModelForSequenceClassification",
    "question_answering": "AutoModelForQuestionAnswering", "multiple_choice": "AutoModelForMultipleChoice",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
}  # fmt: skip


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def ran(request, models, tmp_path_factory) -> tuple[str, Path, Path, Ran]:
    """(task, the base model, the run's folder, what it told) of a run with LoRA from start to end."""
    task, kind = request.param
    folder = tmp_path_factory.mktemp(f"{task}-{kind}")
    return task, models / kind, folder / "out", run(make_spec(folder, models / kind, task), folder / "out")


def unzipped(out: Path, kind: str, told: Ran, folder: Path) -> Path:
    (artifact,) = [data for data in told.of("artifact") if data["kind"] == kind]
    with zipfile.ZipFile(out / artifact["path"]) as archive:
        archive.extractall(folder)
    return folder


def test_it_learns_and_says_so_in_the_tasks_own_figures(ran):
    task, _, _, told = ran
    base, tuned, merged = (told.measured(model) for model in ("base", "tuned", "merged"))
    assert tuned["loss"] < base["loss"] / 2
    assert merged["loss"] == pytest.approx(tuned["loss"], rel=1e-3)
    known = {metric.id for metric in get_task(task).metrics}
    assert set(tuned["metrics"]) <= known
    assert set(base["metrics"]) == set(tuned["metrics"]) == set(merged["metrics"]) != set()
    assert all(value is not None for value in tuned["metrics"].values())
    if task in ("sequence_classification", "multiple_choice"):
        assert tuned["metrics"]["accuracy"] == 1.0
    if task == "regression":
        assert tuned["metrics"]["pearson"] > 0.8
    assert (tuned["rows"], tuned["perplexity"] is None) == (12, task != "seq2seq_lm")
    assert {data["split"] for data in told.of("eval")} == {"test", "validation"}, "a general probe is for models that write"
    (plan,) = told.of("plan")
    assert plan["batching"] == "padded"
    assert bool(plan["fresh_modules"]) == (task != "seq2seq_lm"), "the base's figures are chance under a fresh head"
    assert (plan["label_tokens"] == plan["train_rows"]) == (task != "seq2seq_lm")
    samples = told.samples()
    assert [set(data) for data in samples] == [{"step", "model", "index", "prompt", "answer", "expected", "correct"}] * 2
    asked = {(data["index"], data["prompt"], data["expected"]) for data in samples}
    between = [data for data in told.of("sample") if 0 < data["step"] < 40]
    assert {(data["index"], data["prompt"], data["expected"]) for data in between} == asked, "in the training the same are asked"
    assert {data["model"] for data in between} == {"tuned"}


def test_the_merged_model_loads_by_itself_as_its_task_has_it(ran, tmp_path):
    task, _, out, told = ran
    folder = unzipped(out, "merged", told, tmp_path)
    auto = getattr(transformers, AUTO[task])
    model, found = auto.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert json.loads((folder / "config.json").read_text())["architectures"] == [type(model).__name__]
    if task == "sequence_classification":
        assert model.config.id2label == {0: "blue", 1: "green", 2: "red"}
        classify = transformers.pipeline("text-classification", model=model, tokenizer=load_tokenizer(folder, writes=False))
        assert classify("a green leaf 1")[0]["label"] == "green"


def test_the_adapter_loads_with_plain_peft_and_gives_the_merged_models_outputs(ran, tmp_path):
    task, base, out, told = ran
    folder = unzipped(out, "adapter", told, tmp_path / "adapter")
    head = json.loads((folder / "head.json").read_text())
    assert head["auto"] == AUTO[task]
    auto = getattr(transformers, AUTO[task])
    config = {key: value for key, value in head["config"].items() if key != "id2label"}
    tuned = peft.PeftModel.from_pretrained(auto.from_pretrained(base, **config), folder).eval()
    merged = auto.from_pretrained(unzipped(out, "merged", told, tmp_path / "merged")).eval()
    inputs = example(task, transformers.AutoTokenizer.from_pretrained(folder))
    with torch.no_grad():
        ours, theirs = tuned(**inputs), merged(**inputs)
    name = "start_logits" if task == "question_answering" else "logits"
    assert torch.allclose(ours[name], theirs[name], atol=1e-4)
    assert "general probe" not in (folder / "README.md").read_text().lower()


def example(task: str, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Inputs as anybody would make them."""
    if task == "multiple_choice":
        both = tokenizer(["which is red?"] * 2, ["red apple", "other one"], return_tensors="pt")
        return {name: tensor[None] for name, tensor in both.items()}
    if task == "question_answering":
        return dict(tokenizer("which one?", "the red apple is here.", return_tensors="pt"))
    inputs = dict(tokenizer("a red apple", return_tensors="pt"))
    return {**inputs, "labels": inputs["input_ids"]} if task == "seq2seq_lm" else inputs


@pytest.mark.parametrize(("task", "kind"), [("sequence_classification", "bert"), ("question_answering", "roberta"), ("seq2seq_lm", "t5")])
def test_a_run_that_was_stopped_goes_on_with_the_same_bits(models, tmp_path, task, kind):
    """With dropout, which is BERT's own, and a head that is drawn from the seed."""
    spec = make_spec(tmp_path, models / kind, task, max_steps=6)
    spec = replace(spec, export=replace(spec.export, merge="none"))
    straight = run(spec, tmp_path / "straight")
    with pytest.raises(GraftError) as stopped:
        run(spec, tmp_path / "first", until=3)
    assert stopped.value.code == "preempted"
    again = run(spec, tmp_path / "second", [tmp_path / "first"])
    assert again.of("plan")[0]["start_step"] == 3
    assert [data["loss"] for data in again.of("step")] == [data["loss"] for data in straight.of("step")][3:]
    ends = [checkpoint.read_weights(checkpoint.newest([tmp_path / name])) for name in ("straight", "second")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert again.measured("tuned")["metrics"] == straight.measured("tuned")["metrics"]


@pytest.mark.parametrize(("task", "kind"), [("sequence_classification", "llama"), ("question_answering", "bert")])
def test_full_fine_tuning_leaves_a_model_of_the_task(models, tmp_path, task, kind):
    spec = make_spec(tmp_path, models / kind, task, learning_rate=1e-3)
    told = run(replace(spec, method=MethodSpec("full")), tmp_path / "out")
    assert told.measured("tuned")["loss"] < told.measured("base")["loss"] / 2
    (artifact,) = told.of("artifact")
    assert artifact["details"]["merge_max_difference"] < 1e-5
    folder = unzipped(tmp_path / "out", "model", told, tmp_path / "model")
    _, found = getattr(transformers, AUTO[task]).from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"]


def test_a_base_in_four_bits_keeps_its_new_head_whole(models, tmp_path):
    spec = make_spec(tmp_path, models / "bert", "sequence_classification")
    told = run(replace(spec, method=MethodSpec("qlora", {"rank": 4}), export=replace(spec.export, merge="both")), tmp_path / "out")
    assert told.measured("tuned")["metrics"]["accuracy"] == 1.0
    faithful = next(data for data in told.of("artifact") if data["details"].get("merge_into") == "dequantised")
    assert faithful["details"]["merge_max_difference"] < 1e-3
    assert faithful["details"]["top1_agreement"] == 1.0
    folder = tmp_path / "adapter"
    unzipped(tmp_path / "out", "adapter", told, folder)
    heads = {name: tensor.dtype for name, tensor in load_file(folder / "adapter_model.safetensors").items() if "lora" not in name}
    assert set(heads.values()) == {torch.float32}
    assert sorted(name.split(".", 2)[2] for name in heads) == [
        "bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight",
    ]  # fmt: skip
    # `python -m jobs merge --dequantised float32` gives the same weights from the files alone.
    weights = requantised_weights(models / "bert", "float32", read_head(folder))
    merge_folder(models / "bert", folder, tmp_path / "merged", shard_bytes=10**9, dequantised=weights)
    with zipfile.ZipFile(tmp_path / "out" / faithful["path"]) as archive:
        archive.extractall(tmp_path / "offered")
    offered, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("offered", "merged"))
    assert offered.keys() == merged.keys()
    assert all(torch.equal(offered[name], merged[name]) for name in offered)


def test_labels_are_those_of_the_training_rows(models, tmp_path):
    spec = make_spec(tmp_path, models / "bert", "sequence_classification")
    rows = [{"text": f"text {number}", "label": number % 12} for number in range(24)]
    Path(spec.data.train).write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path(spec.data.test).write_text(json.dumps({"text": "x", "label": 3}) + "\n" + json.dumps({"text": "x", "label": 12}) + "\n")
    with pytest.raises(UserError) as refused:
        run(spec, tmp_path / "out")
    assert (refused.value.code, refused.value.where) == ("label_unknown", {"file": spec.data.test, "line": 2})
    assert "'12'" in refused.value.message
    Path(spec.data.train).write_text("".join(json.dumps({**row, "label": "same"}) + "\n" for row in rows))
    with pytest.raises(UserError) as refused:
        run(spec, tmp_path / "again")
    assert (refused.value.code, "one label alone, 'same'" in refused.value.message) == ("labels_wrong", True)


def test_a_model_that_cannot_is_refused_before_anything_is_read(models, tmp_path):
    spec = make_spec(tmp_path, models / "llama", "question_answering")
    with pytest.raises(UserError) as refused:
        run(spec, tmp_path / "out")
    assert refused.value.code == "model_task"
    assert list((tmp_path / "out").iterdir()) == []


# -- python -m jobs evaluate and generate --------------------------------------------------------------------------------


def told_by(capsys, *arguments: str) -> dict[str, Any]:
    """What a command says with `--json`."""
    assert main([*arguments, "--precision", "float32", "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def refused_by(capsys, *arguments: str) -> dict[str, Any]:
    """The error that it says instead."""
    assert main([*arguments, "--precision", "float32", "--json"]) == ExitCode.BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    return dict(json.loads(captured.err.splitlines()[-1])["error"])


def test_evaluate_measures_the_finished_adapter_and_the_merged_model_as_the_run_did(ran, tmp_path, capsys):
    task, base, out, told = ran
    rows = ["--data", str(out.parent / f"{task}-test.jsonl"), "--samples", "2", "--max-new-tokens", "8"]
    adapter = unzipped(out, "adapter", told, tmp_path / "adapter")
    merged = unzipped(out, "merged", told, tmp_path / "merged")
    samples = [(data["prompt"], data["answer"], data["correct"]) for data in told.samples()]
    for model in (["--model", str(base), "--adapter", str(adapter)], ["--model", str(merged)]):
        body = told_by(capsys, "evaluate", *model, *rows)
        found, tuned = body["evaluation"], told.measured("tuned")
        assert found["rows"] == 12
        assert body["probe"] is None
        assert set(found["metrics"]) == set(tuned["metrics"]) != set()
        if task != "question_answering":  # the run was told shorter windows than the command takes
            assert found["metrics"] == pytest.approx(tuned["metrics"], abs=1e-3)
            assert found["loss"] == pytest.approx(tuned["loss"], rel=1e-3)
            if task != "regression":
                assert [(data["prompt"], data["answer"], data["correct"]) for data in body["samples"]] == samples


def test_generate_writes_for_text_to_text_and_refuses_what_has_a_head(ran, tmp_path, capsys):
    task, base, out, told = ran
    model = ["--model", str(base), "--adapter", str(unzipped(out, "adapter", told, tmp_path / "adapter"))]
    if task != "seq2seq_lm":
        error = refused_by(capsys, "generate", *model, "--prompt", "x")
        assert (error["code"], AUTO[task] in error["message"], "evaluate" in error["remedy"]) == ("model_writes_not", True, True)
        error = refused_by(capsys, "evaluate", *model, "--probe", "--data", str(out.parent / f"{task}-test.jsonl"))
        assert error["code"] == "request_invalid"
        return
    samples = [(data["prompt"], data["answer"]) for data in told.samples()]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt, _ in samples))
    body = told_by(capsys, "generate", *model, "--file", str(file), "--max-new-tokens", "8")
    assert [(one["prompt"], one["answer"].strip()) for one in body["answers"]] == samples


def test_evaluate_refuses_rows_that_are_not_the_models(models, tmp_path, capsys):
    config = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}, "num_labels": 2}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(models / "bert", **config)
    model.save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(models / "bert").save_pretrained(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a", "label": "yes"}\n{"text": "b", "label": "maybe"}\n')
    error = refused_by(capsys, "evaluate", "--model", str(tmp_path / "model"), "--data", str(rows))
    assert (error["code"], error["where"]) == ("label_foreign", {"file": str(rows), "line": 2})
    assert "no, yes" in error["message"]
    rows.write_text('{"question": "a", "answer": "yes"}\n')
    assert refused_by(capsys, "evaluate", "--model", str(tmp_path / "model"), "--data", str(rows))["code"] == "columns_unfit"
    for command in (["evaluate", "--data", str(rows)], ["generate", "--prompt", "x"]):
        error = refused_by(capsys, *command, "--model", str(models / "bert"))
        assert (error["code"], "an encoder without a head" in error["message"]) == ("model_writes_not", True)
