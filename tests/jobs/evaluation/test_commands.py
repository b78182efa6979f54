"""`python -m jobs evaluate` and `generate` on a tiny model with an adapter: what they print, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from jobs.__main__ import main
from jobs.commands.generate import MERGE_FROM_TOKENS, prompt_ids
from jobs.data.encoding import prompt_ids_for_generation
from jobs.errors import ExitCode
from jobs.evaluation.generation import Sampling, answers
from jobs.models.opened import open_model
from tests.tiny import make_tiny_model, tiny_tokenizer

ROWS = [
    {
        "messages": [{"role": "user", "content": f"sky {number}"}, {"role": "assistant", "content": "blue" if number % 2 else "red"}],
        "choices": ["blue", "red"],
    }
    for number in range(6)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, an adapter that changes its answers, and rows."""
    place = tmp_path_factory.mktemp("commands")
    make_tiny_model(place / "model")
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(place / "model"), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    model.save_pretrained(place / "adapter")
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (place / "prompts.jsonl").write_text(
        json.dumps({"prompt": "sky"}) + "\n" + json.dumps({"messages": ROWS[0]["messages"]}) + "\n" + json.dumps({"prompt": "sea"}) + "\n"
    )
    return place


def command(name: str, folder: Path, *more: str) -> list[str]:
    return [name, "--model", str(folder / "model"), "--precision", "float32", *more]


def told(capsys, arguments: list[str]) -> dict[str, Any]:
    """What the command says with `--json`, run in this process."""
    assert main([*arguments, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def refused(capsys, arguments: list[str]) -> dict[str, Any]:
    """The error that it says instead; nothing else is printed."""
    assert main([*arguments, "--json"]) == ExitCode.BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    return dict(json.loads(captured.err.splitlines()[-1])["error"])


def test_evaluate_as_a_program(folder):
    arguments = command("evaluate", folder, "--adapter", str(folder / "adapter"), "--data", str(folder / "rows.jsonl"), "--probe", "--json")
    result = subprocess.run([sys.executable, "-m", "jobs", *arguments], capture_output=True, text=True, timeout=120, check=True)
    body = json.loads(result.stdout)
    found = body["evaluation"]
    assert (found["rows"], found["tokens"], body["precision"]) == (6, 27, "float32")
    assert (found["loss"] > 0, 0 <= found["exact_match"] <= 1, found["label_accuracy"] in {k / 6 for k in range(7)}) == (True,) * 3
    assert found["choice_accuracy"] in {k / 6 for k in range(7)}
    assert [sample["expected"] for sample in body["samples"]] == ["red", "blue", "red", "blue", "red"]
    assert (body["probe"]["rows"], len(body["probe"]["kinds"])) == (60, 6)
    assert result.stderr == ""


def test_evaluate_without_adapter_generation_or_probe(folder, capsys):
    rows = str(folder / "rows.jsonl")
    mapping = json.dumps({"format": "messages", "columns": {"messages": "messages"}})
    arguments = command("evaluate", folder, "--data", rows, "--rows", "3", "--no-generate")
    plain, with_choices = told(capsys, [*arguments, "--mapping", mapping]), told(capsys, arguments)
    assert (plain["samples"], plain["probe"], plain["evaluation"]["exact_match"]) == ([], None, None)
    assert (plain["evaluation"]["choice_accuracy"], with_choices["evaluation"]["choice_accuracy"] is not None) == (None, True)
    tuned = told(capsys, [*arguments, "--adapter", str(folder / "adapter")])
    assert tuned["evaluation"]["loss"] != plain["evaluation"]["loss"] == with_choices["evaluation"]["loss"]
    assert main(arguments) == 0
    assert f"rows: loss {plain['evaluation']['loss']:.4g}\n" in capsys.readouterr().out


def test_evaluate_on_the_probe_alone_in_words(folder, capsys):
    assert main(command("evaluate", folder, "--probe")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "probe: rows 60" in lines
    assert [line.split(",")[1].split(":")[0].strip() for line in lines if line.startswith("probe, ")] == [
        "knowledge", "arithmetic", "grammar", "code", "prose", "instructions",
    ]  # fmt: skip


def test_evaluate_refuses_what_it_cannot_use(folder, tmp_path, capsys):
    rows = ["--data", str(folder / "rows.jsonl")]
    assert refused(capsys, command("evaluate", folder))["code"] == "request_invalid"
    assert refused(capsys, command("evaluate", folder, "--data", str(tmp_path / "none.jsonl")))["code"] == "file_missing"
    assert refused(capsys, command("evaluate", folder, *rows, "--mapping", "{"))["code"] == "mapping_invalid"
    error = refused(capsys, command("evaluate", folder, *rows, "--adapter", str(tmp_path)))
    assert (error["code"], "adapter_config.json" in error["message"]) == ("adapter_unusable", True)
    assert refused(capsys, ["evaluate", "--model", str(tmp_path), *rows])["code"] == "model_missing"
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({**ROWS[0], "choices": ["green", "grey"]}) + "\n" + json.dumps(ROWS[1]) + "\n")
    error = refused(capsys, command("evaluate", folder, "--data", str(bad)))
    assert (error["code"], error["where"]) == ("choices_wrong", {"file": str(bad), "line": 2})


def test_an_adapter_of_another_model_is_refused(folder, tmp_path, capsys):
    from tests.tiny import tiny_config

    make_tiny_model(tmp_path / "model", config=tiny_config(hidden_size=32, num_attention_heads=2, num_key_value_heads=1))
    error = refused(capsys, command("generate", tmp_path, "--adapter", str(folder / "adapter"), "--prompt", "sky"))
    assert error["code"] == "adapter_unusable"
    assert "size mismatch" in error["message"].lower() or "shape" in error["message"].lower()


def test_generate_as_a_program_writes_the_answer_as_it_comes(folder):
    arguments = command("generate", folder, "--prompt", "sky", "--max-new-tokens", "12")
    result = subprocess.run([sys.executable, "-m", "jobs", *arguments], capture_output=True, text=True, timeout=120, check=True)
    opened = open_model(folder / "model", None, precision="float32")
    (expected,) = answers(opened.model, opened.tokenizer, [prompt_ids("sky", opened.tokenizer, raw=False)], max_new_tokens=12)
    assert result.stdout.rstrip("\n") == expected.text.rstrip("\n") != ""


def test_generate_answers_a_file_and_merges_only_where_it_pays(folder, capsys):
    arguments = command("generate", folder, "--adapter", str(folder / "adapter"), "--file", str(folder / "prompts.jsonl"))
    few = told(capsys, [*arguments, "--max-new-tokens", "8"])
    assert [one["prompt"] for one in few["answers"]] == ["sky", ROWS[0]["messages"][:1], "sea"]
    assert (few["merged"], {one["tokens"] <= 8 for one in few["answers"]}) == (False, {True})
    many = told(capsys, [*arguments, "--max-new-tokens", str(MERGE_FROM_TOKENS // 3 + 1)])
    assert many["merged"] is True
    assert [one["answer"][:3] for one in many["answers"]] == [one["answer"][:3] for one in few["answers"]]
    merged = told(capsys, [*arguments, "--max-new-tokens", "8", "--merge"])
    assert (merged["merged"], merged["answers"]) == (True, few["answers"])  # in float32 the same
    base = told(capsys, [*command("generate", folder, "--file", str(folder / "prompts.jsonl")), "--max-new-tokens", "8", "--merge"])
    assert (base["merged"], base["answers"] != few["answers"]) == (False, True)


def test_a_temperature_draws_by_the_seed(folder, capsys):
    def drawn(seed: int) -> str:
        arguments = command("generate", folder, "--prompt", "sky", "--max-new-tokens", "16", "--temperature", "1.5", "--seed", str(seed))
        return str(told(capsys, arguments)["answers"][0]["answer"])

    state = torch.random.get_rng_state()
    assert drawn(1) == drawn(1) != drawn(2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_prompt_is_that_of_an_evaluation_and_raw_is_as_it_stands():
    tokenizer = tiny_tokenizer()
    assert prompt_ids("sky 0", tokenizer, raw=False) == prompt_ids_for_generation(ROWS[0], tokenizer)
    assert tokenizer.decode(prompt_ids("sky", tokenizer, raw=True)) == "sky"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": 3}, "field_type"),
        ({"prompt": " "}, "text_empty"),
        ({"question": "sky"}, "field_missing"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "chat_role"),
        ({"messages": ROWS[0]["messages"][1:]}, "text_empty"),
    ],
)
def test_generate_refuses_a_row_without_a_prompt_by_its_line(row, code, folder, tmp_path, capsys):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "sky"}) + "\n" + json.dumps(row) + "\n")
    error = refused(capsys, command("generate", folder, "--file", str(file)))
    assert (error["code"], error["where"]) == (code, {"file": str(file), "line": 2})


def test_chats_cannot_be_raw(folder, capsys):
    assert refused(capsys, command("generate", folder, "--file", str(folder / "prompts.jsonl"), "--raw"))["code"] == "request_invalid"


def test_a_prompt_too_long_for_the_model_loses_its_beginning(folder):
    opened = open_model(folder / "model", None, precision="float32")
    prompt = [5 + number % 200 for number in range(700)]
    long, cut = (
        answers(opened.model, opened.tokenizer, [ids], max_new_tokens=12, sampling=Sampling()) for ids in (prompt, prompt[-(512 - 12) :])
    )
    assert long == cut
