"""What a model's page tells: layers by kind, tokenizer, memory by method, chat template, licence; and what of them is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import UserError
from jobs.models.chat_preview import preview_chat, read_template
from jobs.models.description import linear_layers, tokenizer_facts
from jobs.models.licences import read_licence
from jobs.models.origin import Origin, write_origin
from jobs.planning.needs import METHODS, needs_of
from tests.tiny import CHATML, make_tiny_model
from tests.tiny_architectures import make_tiny_architecture

MARKS = ("<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def folder(tmp_path: Path, tiny: Path) -> Path:
    """A copy to spoil."""
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def with_template(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_layers_by_kind(tiny: Path) -> None:
    kinds = {kind.name: (kind.count, kind.inputs, kind.outputs, kind.numbers) for kind in linear_layers(tiny, "causal_lm")}
    assert kinds == {
        "self_attn.q_proj": (2, 64, 64, 8192), "self_attn.k_proj": (2, 64, 32, 4096), "self_attn.v_proj": (2, 64, 32, 4096),
        "self_attn.o_proj": (2, 64, 64, 8192), "mlp.gate_proj": (2, 64, 128, 16384), "mlp.up_proj": (2, 64, 128, 16384),
        "mlp.down_proj": (2, 128, 64, 16384),
    }  # fmt: skip


def test_layers_of_an_encoder(tmp_path: Path) -> None:
    bert = make_tiny_architecture(tmp_path / "bert", "bert")
    names = [kind.name for kind in linear_layers(bert, "sequence_classification")]
    assert sorted(names) == [
        "attention.output.dense", "attention.self.key", "attention.self.query", "attention.self.value", "intermediate.dense",
        "output.dense",
    ]  # fmt: skip


def test_the_tokenizer(tiny: Path) -> None:
    facts = tokenizer_facts(tiny)
    assert (facts.algorithm, facts.vocabulary, facts.lower_cases) == ("BPE", 258, False)
    assert facts.special == {"bos_token": MARKS[0], "eos_token": MARKS[1], "pad_token": MARKS[1]}
    # One token a byte.
    assert facts.lengths["en"] == len("Please check the invoice before you pay it.")
    assert facts.lengths["uk"] == len("Перевірте рахунок, перш ніж сплатити його.".encode())


def spoil(folder: Path, **changes: Any) -> Path:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_a_tokenizer_that_fails_in_its_own_language_is_a_refusal(folder: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    with pytest.raises(UserError) as refused:
        tokenizer_facts(spoil(folder, pre_tokenizer=split))
    assert refused.value.code == "model_unusable"
    assert "fails on 'aaaa" in refused.value.message


def test_a_tokenizer_that_makes_much_of_little_is_a_refusal(folder: Path) -> None:
    with pytest.raises(UserError) as refused:
        tokenizer_facts(spoil(folder, normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 5000}))
    assert "tokens of 31 characters" in refused.value.message


def test_a_tokenizer_that_does_not_load(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "Evil"}}')
    with pytest.raises(UserError) as refused:
        tokenizer_facts(folder)
    assert "does not load" in refused.value.message


def test_the_conversation_as_the_model_reads_it(tiny: Path) -> None:
    shown = preview_chat(tiny)
    assert shown is not None
    assert shown["text"].startswith("<|im_start|>system\nYou answer in one sentence.<|im_end|>\n<|im_start|>user\n")
    assert shown["text"].endswith("And an adapter?<|im_end|>\n<|im_start|>assistant\n")
    assert (shown["without_system"], shown["refusal"]) == (False, "")


def test_a_template_without_system_messages_gets_none(folder: Path) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role!') }}{% endif %}" + CHATML
    shown = preview_chat(with_template(folder, refuses))
    assert shown is not None
    assert (shown["without_system"], "sentence" in shown["text"].split("assistant")[0]) == (True, False)


def test_a_template_that_takes_nothing_says_why(folder: Path) -> None:
    shown = preview_chat(with_template(folder, "{{ raise_exception('Tools only.') }}"))
    assert shown == {"text": "", "without_system": False, "refusal": "Tools only."}
    broken = preview_chat(with_template(folder, "{% for message in %}"))
    assert broken is not None
    assert broken["refusal"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% set ns = namespace(__class__='x') %}{{ ns.__class__ }}",
        "{{ ('{0.__class__}'|attr('format'))(messages) }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_cannot_reach_beyond_the_conversation(folder: Path, template: str) -> None:
    try:
        shown = preview_chat(with_template(folder, template)) or {}
    except UserError as refused:
        shown = {"text": "", "refusal": refused.message}
    assert [word for word in ("uid=", "class", "<function", "[") if word in shown["text"]] == []


def test_a_template_that_is_a_program_of_its_own_is_refused(folder: Path) -> None:
    with pytest.raises(UserError):
        preview_chat(with_template(folder, "x" * 70_000))


def test_where_templates_stand(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert read_template(folder) is None
    assert preview_chat(folder) is None
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    several = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": several}))
    assert read_template(folder) == "d"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "j"}))
    assert read_template(folder) == "j"


def test_what_the_usual_methods_need(tmp_path: Path) -> None:
    from tests.tiny import tiny_config

    model = make_tiny_model(tmp_path / "m", config=tiny_config(hidden_size=512, intermediate_size=2048, num_hidden_layers=4))
    needs = needs_of(model, "causal_lm")
    assert len(needs) == len(METHODS) * 4 * 2
    found = {(need.method, need.kind, need.bfloat16, need.micro_batch): need.bytes for need in needs}
    assert all(size and size > 0 for size in found.values())

    def bytes_of(method: str, micro_batch: int = 8) -> int:
        return found[method, "cuda", True, micro_batch] or 0

    assert bytes_of("qlora") < bytes_of("lora") < bytes_of("full")
    assert bytes_of("lora", 1) < bytes_of("lora")
    # Full fine-tuning in mixed precision holds 4 bytes each of weight, gradient and two moments.
    parameters = 4 * (4 * 512 * 512 + 3 * 512 * 2048) * 3 // 4
    assert bytes_of("full", 1) > 12 * parameters


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\nlicense: apache-2.0\ntags: [a]\n---\n# M"}, "apache-2.0"),
        ({"README.md": "---\r\nlanguage: en\r\nlicense: 'mit'\r\n---\r\n"}, "mit"),
        ({"README.md": "license: mit"}, ""),
        ({"README.md": "---\nlicense: other\n---\n", "LICENSE": "MIT License\n\nCopyright"}, "MIT"),
        ({"LICENSE.txt": "      Apache License\n      Version 2.0, January 2004"}, "Apache-2.0"),
        ({"LICENSE": "All rights reserved."}, ""),
        ({"README.md": "---\nlicense: !!python/object/apply:os.system ['id']\n---\n"}, ""),
        ({}, ""),
    ],
)
def test_the_licence_that_the_files_name(tmp_path: Path, files: dict[str, str], licence: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert read_licence(tmp_path) == licence


def test_a_licence_that_was_noted_at_the_download_comes_first(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    write_origin(tmp_path, Origin("m", "1", "apache-2.0", "hub"))
    assert read_licence(tmp_path) == "apache-2.0"
