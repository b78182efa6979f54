"""A1 to A23: models, adapters, tokenizers, chat templates, configs, archives of models, names."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import UserError
from tests.attacks import corpus
from tests.attacks.corpus import change, pickled, sharded, write_weights, zip_of
from tests.attacks.files.boxed import Ground, refused, take_model, unpack
from webapp.catalog.services import describe

Spoil = Callable[[Path], Any]


def test_the_model_itself_is_fit_for_use(model: Path) -> None:
    """Else every refusal below would prove nothing."""
    found = take_model(model)
    assert found["facts"]["architecture"] == "LlamaForCausalLM"
    assert "What is a base model?" in found["chat"]["text"]


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin", "adapter_model.bin", "training_args.bin", "rng_state.pth", "scheduler.pt", "optimizer.pt", "x.pkl", "x.joblib",
        "x.npy", "vhead.bin",
    ],
)  # fmt: skip
def test_a1_a3_a4_pickles(model: Path, here: Ground, name: str) -> None:
    (model / name).write_bytes(pickled(here.marker))
    refused(lambda: take_model(model), name, "only safetensors")
    refused(lambda: unpack(zip_of(here.files / "m.zip", {name: pickled(here.marker)}), here.out), name, "run code")
    assert list(here.out.iterdir()) == []


@pytest.mark.parametrize("name", ["modeling_evil.py", "conversion.so", "x.gguf"])
def test_a5_a21_code_and_other_kinds(model: Path, here: Ground, name: str) -> None:
    (model / name).write_text(f"open({str(here.marker)!r}, 'w')")
    refused(lambda: take_model(model), name)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}),
        ("config.json", {"text_config": {"trust_remote_code": True}}),
        ("config.json", {"a": {"b": [{"c": {"trust_remote_code": True}}]}}),
        ("config.json", {"_attn_implementation_internal": "attacker/kernel"}),
        ("config.json", {"vision": {"_attn_implementation_internal": "attacker/kernel"}}),
        ("config.json", {"attn_implementation": "attacker/kernel"}),
        ("config.json", {"_attn_implementation": "attacker/kernel"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
        ("generation_config.json", {"trust_remote_code": True}),
    ],
)
def test_a5_to_a8_keys_that_lead_to_code(model: Path, file: str, changes: dict[str, Any]) -> None:
    change(model, file, **changes)
    refused(lambda: take_model(model), file, "run code")


@pytest.mark.parametrize(
    "target", ["../../theirs/model.safetensors", "{theirs}/model.safetensors", "a/../../theirs/model.safetensors", ".."]
)
def test_a9_a_weight_map_that_leads_to_others(model: Path, here: Ground, target: str) -> None:
    sharded(model, target.format(theirs=here.theirs))
    refused(lambda: take_model(model), "not a safetensors file of this folder")


def test_a10_links(model: Path, here: Ground) -> None:
    weights = model / "model.safetensors"
    weights.unlink()
    weights.symlink_to("../../theirs/model.safetensors")
    refused(lambda: take_model(model), "link")
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        entry = {"model.safetensors": b"../../theirs/model.safetensors"}
        refused(lambda: unpack(zip_of(here.files / "m.zip", entry, {"model.safetensors": kind | 0o777}), here.out))  # noqa: B023
    refused(lambda: unpack(corpus.tar_with_link(here.files / "m.zip", "../../theirs/model.safetensors"), here.out), "no zip archive")
    assert list(here.out.iterdir()) == []


ADAPTERS: list[dict[str, Any]] = [
    {"auto_mapping": {"parent_library": "antigravity", "base_model_class": "x"}},
    {"megatron_config": {}, "megatron_core": "evil.module"},
    {"tokenizer_kwargs": {"trust_remote_code": True}, "tokenizer_name_or_path": "attacker/tokenizer"},
    {"base_model_name_or_path": "/data/tenants/B/model"},
    {"base_model_name_or_path": "../B"},
]


@pytest.mark.parametrize("config", ADAPTERS)
def test_a11_a12_a13_an_adapter_is_no_file_that_is_taken(model: Path, here: Ground, config: dict[str, Any]) -> None:
    """Adapters come from runs of the site alone, by the id of the run; as a file nothing of one is accepted."""
    (model / "adapter_config.json").write_text(json.dumps(config))
    refused(lambda: take_model(model), "adapter_config.json")
    members = {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": b"x"}
    refused(lambda: unpack(zip_of(here.files / "a.zip", members), here.out), "adapter_")
    assert list(here.out.iterdir()) == []


def _tensor(first: int, last: int, shape: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [first, last]}


HEADERS: dict[str, tuple[Any, int, int | None]] = {
    "a length of 2^63": (b"{}", 0, 2**63),
    "a length beyond the file": (b"{}", 0, 10**6),
    "an overlap": ({"a": _tensor(0, 8, [2]), "b": _tensor(4, 12, [2])}, 12, None),
    "a hole": ({"a": _tensor(0, 8, [2]), "b": _tensor(12, 20, [2])}, 20, None),
    "a negative size": ({"a": _tensor(0, 8, [-2])}, 8, None),
    "a negative offset": ({"a": _tensor(-8, 0, [2])}, 8, None),
    "a shape of 2^248": ({"a": _tensor(0, 8, [2**62] * 4)}, 8, None),
    "a number in the place of a tensor": ({"a": 1}, 0, None),
    "nested without end": (b'{"a":' + b"[" * 200_000, 0, None),
}


@pytest.mark.parametrize("header", HEADERS)
def test_a14_headers_that_lie(model: Path, header: str) -> None:
    body, data, length = HEADERS[header]
    write_weights(model / "model.safetensors", body, data, length=length)
    refused(lambda: take_model(model), "model.safetensors")


def test_a14_a_million_empty_tensors_and_notes_without_end(model: Path) -> None:
    many = {f"t{number}": _tensor(0, 0, [0]) for number in range(300_000)}
    write_weights(model / "model.safetensors", many, 0)
    refused(lambda: take_model(model), "more than 50,000 tensors")
    write_weights(model / "model.safetensors", b"{" + b" " * 26_000_000 + b"}", 0)
    refused(lambda: take_model(model), "not a complete safetensors file")
    write_weights(model / "model.safetensors", {"__metadata__": {"note": "x" * 2_000_000}}, 0)
    refused(lambda: take_model(model), "bytes of notes")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 200_000}, {"vocab_size": 2**31}, {"hidden_size": -1}, {"hidden_size": "16"}, {"num_attention_heads": 0},
        {"num_hidden_layers": True}, {"max_position_embeddings": 10**12}, {"text_config": {"num_hidden_layers": 10**6}},
        {"num_hidden_layers": 512}, {"intermediate_size": 524_288}, {"num_attention_heads": 1024, "head_dim": 4096},
        {"vocab_size": 2_000_000},
        {"num_experts": 4096, "moe_intermediate_size": 524_288},
    ],
)  # fmt: skip
def test_a15_a_config_that_exhausts_a_loader(model: Path, changes: dict[str, Any]) -> None:
    """The last ones are within the bounds of honest models, but not what these files hold."""
    change(model, "config.json", **changes)
    refused(lambda: take_model(model), "config.json")


def test_a15_a_config_that_is_a_pit(model: Path) -> None:
    (model / "config.json").write_bytes(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    refused(lambda: take_model(model), "config.json")


TOKENIZERS: dict[str, Spoil] = {
    "a regular expression without end": lambda model: corpus.split_by(model, "(a+)+$"),
    "another": lambda model: corpus.split_by(model, "(.|a)*b"),
    "a megabyte for a letter": lambda model: corpus.replacing(model, ("a", "b" * 2**20)),
    "fifty megabytes before each text": lambda model: change(
        model, "tokenizer.json", normalizer={"type": "Prepend", "prepend": "p" * 50_000_000}
    ),
    "twenty-six doublings": lambda model: corpus.replacing(model, *[("a", "aa")] * 26),
    "no tokenizer": lambda model: (model / "tokenizer.json").write_text('{"model": {"type": "Evil"}}'),
    "a pit": lambda model: (model / "tokenizer.json").write_bytes(b"[" * 100_000),
}


@pytest.mark.parametrize("tokenizer", [name for name in TOKENIZERS if name != "another"])
def test_a16_a17_tokenizers(model: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "LIMITS", replace(describe.LIMITS, cpu_seconds=8))
    TOKENIZERS[tokenizer](model)
    refused(lambda: take_model(model))


TEMPLATES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ cycler.__init__.__globals__ }}",
    "{% set ns = namespace(__class__='x') %}{{ ns.__class__ }}",
    "{{ ('{0.__class__}'|attr('format'))(messages) }}",
    "{{ self.__init__.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.getcwd() }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a18_a_template_that_reaches_for_the_host(model: Path, template: str) -> None:
    change(model, "tokenizer_config.json", chat_template=template)
    try:
        told = json.dumps(describe.chat_of(model, "their model"))
    except UserError as refusal:
        told = refusal.message
    assert not any(word in told for word in ("uid=", "<class", "<function", "root:", "subprocess.Popen"))


BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'A' * 3000000000 }}",
    "{{ '%3000000000d' % 1 }}",
    "{{ ''|center(3000000000) }}",
]


@pytest.mark.parametrize("template", BOMBS)
def test_a19_a_template_without_end(model: Path, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "CHAT_LIMITS", replace(describe.CHAT_LIMITS, cpu_seconds=3))
    change(model, "tokenizer_config.json", chat_template=template)
    refused(lambda: describe.chat_of(model, "their model"), "chat template")


def test_a19_a_template_larger_than_any(model: Path) -> None:
    (model / "chat_template.jinja").write_text("x" * 70_000)
    refused(lambda: take_model(model), "chat template", "64,000 bytes")


NAMES = [
    "../../etc/passwd", "..\\..\\config.json", "%2e%2e%2fconfig.json", "%252e%252e%252fconfig.json", "a/../../config.json",
    "C:\\config.json", "con.txt", "x" * 300 + ".safetensors", "config.json\u202e", ".", "/abs/config.json",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a23_a31_names_in_an_archive(here: Ground, name: str) -> None:
    members = {"config.json": b"{}", name: b"x"}
    if os.path.basename(name.replace("\\", "/")) == "config.json":
        del members["config.json"]
        members["tokenizer.json"] = b"{}"
    refused(lambda: unpack(zip_of(here.files / "m.zip", members), here.out))
    assert list(here.out.iterdir()) == []


def test_a32_archives_that_grow(here: Ground) -> None:
    refused(lambda: unpack(corpus.many_entries(here.files / "n.zip", 70_000), here.out), "more than 1,000 files")
    refused(lambda: unpack(corpus.overlapping(here.files / "o.zip"), here.out))
    inner = zip_of(here.files / "i.zip", {"config.json": b"{}"}).read_bytes()
    refused(lambda: unpack(zip_of(here.files / "q.zip", {"model.zip": inner}), here.out), "none of the files")
    refused(lambda: unpack(zip_of(here.files / "b.zip", {"vocab.json": bytes(20_000_000)}), here.out), "100 times")
    assert sum(path.stat().st_size for path in here.out.iterdir()) < 2**20
