"""A2, A5, A18, A24, A68, A69, A73: what the program itself must not hold, and what a spec cannot say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import UserError
from jobs.methods.registry import all_methods, get_method
from jobs.spec import RunSpec
from tests.attacks.files.boxed import Ground

PROJECT = Path(__file__).resolve().parents[3]
SOURCES = sorted(path for part in ("jobs", "webapp") for path in (PROJECT / part).rglob("*.py"))
# Calls that run what a file says, or follow where its author leads.
NEVER_CALLED = {
    "eval", "exec", "compile", "pickle.load", "pickle.loads", "joblib.load", "dill.load", "marshal.load", "marshal.loads", "shelve.open",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "load_dataset", "datasets.load_dataset", "jinja2.Environment",
    "os.system", "os.popen", "extractall",
}  # fmt: skip
NEVER_SAID = {("weights_only", False), ("trust_remote_code", True), ("allow_pickle", True), ("shell", True), ("use_safetensors", False)}


def called(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_there_is_a_program_to_look_at() -> None:
    assert len(SOURCES) > 300


def test_a2_a5_a18_a24_a69_nothing_runs_what_a_file_says() -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{call.lineno} {name}"
        for path in SOURCES
        for name, call in called(path)
        if name in NEVER_CALLED
        or any(isinstance(word.value, ast.Constant) and (word.arg, word.value.value) in NEVER_SAID for word in call.keywords)
    ]
    assert found == []


def test_a2_what_torch_loads_is_weights_alone() -> None:
    """`torch.load` where at all, then said so at the place, never as a fallback."""
    for path in SOURCES:
        for name, call in called(path):
            if name == "torch.load":
                assert any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords), path


def test_a18_templates_of_models_are_compiled_by_transformers_alone() -> None:
    assert [path for path in SOURCES if re.search(r"from jinja2(\.\w+)? import .*\bEnvironment", path.read_text(encoding="utf-8"))] == []


# What opens a file of a stranger, or a library that parses one.
READERS = {
    "read_frame", "read_shape", "inspect_model", "inspect_tensors", "unpack_model", "tokenizer_facts", "linear_layers", "preview_chat",
    "read_template", "open_rows", "read_records", "sniff_file", "read_parquet", "examine", "validate", "sniff", "preview", "see",
    "fetch_model", "read_licence", "needs_of",
}  # fmt: skip
PARSERS = {"pyarrow", "tokenizers", "safetensors", "zipfile", "tarfile", "gzip", "csv", "jinja2", "huggingface_hub"}


def test_the_web_half_reads_no_file_of_a_stranger() -> None:
    """What it wants to know of one it asks the box; `csv` is there to be written."""
    found = []
    for path in SOURCES:
        if not path.is_relative_to(PROJECT / "webapp"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jobs."):
                found += [f"{path.name}: {name.name}" for name in node.names if name.name in READERS]
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
                found += [f"{path.name}: {module}" for module in modules if module.split(".")[0] in PARSERS - {"csv"}]
    assert found == []


def test_a36_no_template_switches_escaping_off() -> None:
    """And in the program what is marked as markup stands in two files, where each part was escaped before."""
    for path in (PROJECT / "templates").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|\{%\s*autoescape\s+off", text), path
    marking = {str(path.relative_to(PROJECT)) for path in SOURCES for name, _ in called(path) if name == "mark_safe"}
    assert marking == {"webapp/runs/lists/cells.py", "webapp/core/templatetags/graft.py"}


def test_a73_no_dependency_is_older_than_its_last_hole() -> None:
    """What is pinned, against the floors that published advisories set."""
    pinned = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([0-9][^\s;]*)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE))
    pinned = {name.lower(): version for name, version in pinned.items()}
    floors = {"transformers": (5, 3), "torch": (2, 6), "jinja2": (3, 1, 6)}
    for name, floor in floors.items():
        assert tuple(int(part) for part in pinned[name].split(".")[: len(floor)]) >= floor, name
    assert not {"kernels", "lightgbm", "flower", "ray"} & pinned.keys()


SPEC: dict[str, Any] = {
    "name": "x", "model": {"path": "model"}, "data": {"train": "train.jsonl"}, "method": {"id": "lora"}, "training": {}, "evaluation": {},
    "export": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("training", {"output_dir": "/etc"}), ("training", {"deepspeed": "/x.json"}), ("training", {"report_to": "wandb"}),
        ("training", {"learning_rate": "__import__('os').system('id')"}), ("training", {"epochs": "!!python/object/apply:os.system [id]"}),
        ("training", {"callbacks": ["evil.Callback"]}), ("training", {"max_steps": 10**30}), ("training", {"learning_rate": "nan"}),
        ("export", {"path": "/etc"}), ("export", {"dtype": "../../x"}), ("evaluation", {"metrics_path": "/etc/passwd"}),
        ("method", {"id": "../../lora"}), ("method", {"id": "jobs.evil"}), ("", {"output_dir": "/etc"}),
    ],
)  # fmt: skip
def test_a68_a_spec_holds_nothing_but_what_it_knows(here: Ground, part: str, changes: dict[str, Any]) -> None:
    body = {**SPEC, **({part: {**SPEC[part], **changes}} if part else changes)}
    with pytest.raises(UserError) as refusal:
        get_method(RunSpec.from_json(body).method.id)
    assert refusal.value.remedy


@pytest.mark.parametrize(
    "changes", [{"target_modules": "../../etc"}, {"rank": "__import__('os')"}, {"auto_mapping": {"x": "y"}}, {"rank": 10**9}]
)
def test_a68_settings_of_methods_are_typed(changes: dict[str, Any]) -> None:
    refusing = 0
    for method in all_methods():
        with pytest.raises(UserError) as refusal:
            method.resolve(dict(changes))
        assert refusal.value.remedy
        refusing += 1
    assert refusing > 10


def test_a68_the_spec_that_all_others_differ_from_is_good() -> None:
    assert RunSpec.from_json(SPEC).method.id == "lora"
