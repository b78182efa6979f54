"""What a folder of model files is, read without torch and without running anything that stands in it.

A model's files come from strangers. Loaders obey more than they should: a weight map may point out of the folder, a config may name code to
fetch and run, a header may be larger than memory. So a folder is refused here, before any loader sees it, unless every file is of a known
name, every name in it leads to a file in it, and every number is within bounds.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from jobs.errors import UserError
from jobs.models.architectures import tasks_of
from jobs.models.promised import excess
from jobs.spec import Task

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SHARD_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,127}\.safetensors", re.ASCII)
# Every name that a folder may hold. Of those, FETCHED are downloaded from a hub; the others are notes that nothing here reads.
FETCHED = (
    re.compile(r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json"),
    re.compile(r"(tokenizer\.model|spiece\.model|merges\.txt|vocab\.txt|chat_template\.jinja)"),
    re.compile(r"model\.safetensors(\.index\.json)?|model-\d{5}-of-\d{5}\.safetensors"),
    re.compile(r"(LICEN[CS]E|NOTICE|USE_POLICY)(\.(md|txt))?", re.IGNORECASE),
)
NOTES = (re.compile(r"README\.md|graft\.json|\.gitattributes"),)
# Files whose keys may be any word, each with its number.
VOCABULARIES = ("vocab.json", "tokenizer.json", "added_tokens.json")
# Keys that make a loader fetch or run code, or choose its own attention kernel; refused at any depth of any JSON file, unless off.
FORBIDDEN_KEYS = frozenset({
    "auto_map", "trust_remote_code", "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "custom_pipelines",
})  # fmt: skip

HEADER_BYTES = 25_000_000
HEADER_TENSORS = 50_000
METADATA_BYTES = 1_000_000
JSON_BYTES = 64_000_000
JSON_DEPTH = 32
CHAT_TEMPLATE_BYTES = 64_000
MAX_FILES = 1_000
# Bounds of a config's numbers: above the largest models published, far below what exhausts a loader.
BOUNDS = {
    "num_hidden_layers": (1, 512), "num_attention_heads": (1, 1024), "num_key_value_heads": (1, 1024), "hidden_size": (1, 65_536),
    "intermediate_size": (1, 524_288), "vocab_size": (1, 2_000_000), "max_position_embeddings": (1, 100_000_000), "head_dim": (1, 4096),
    "n_layer": (1, 512), "n_head": (1, 1024), "n_embd": (1, 65_536), "n_inner": (1, 524_288), "n_positions": (1, 100_000_000),
    "num_experts": (1, 4096), "num_local_experts": (1, 4096), "num_layers": (1, 512), "n_layers": (1, 512), "num_heads": (1, 1024),
    "n_heads": (1, 1024), "d_model": (1, 65_536), "dim": (1, 65_536), "d_ff": (1, 524_288), "d_kv": (1, 4096), "hidden_dim": (1, 524_288),
    "num_decoder_layers": (1, 512), "type_vocab_size": (0, 1024), "relative_attention_num_buckets": (1, 4096), "ffn_dim": (1, 524_288),
    "n_routed_experts": (0, 4096), "moe_intermediate_size": (1, 524_288), "num_hidden_groups": (1, 512),
}  # fmt: skip
ITEM_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class ModelFacts:
    """What a form and a planner need to know of a model. `bytes` and `parameters` are of the stored tensors; `tasks` are those that its
    architecture can be trained for.
    """

    architecture: str
    parameters: int
    bytes: int
    context_length: int | None
    vocabulary: int | None
    hidden_size: int | None
    layers: int | None
    dtype: str
    chat_template: bool
    has_biases: bool
    tasks: list[Task]
    files: list[str]

    def to_json(self) -> dict[str, Any]:
        """The facts as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class TensorFacts:
    """One tensor as the header of a safetensors file describes it: `dtype` in the format's own words, `size` in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def inspect_model(folder: Path) -> ModelFacts:
    """The facts of the model in `folder`. Raises `UserError("model_unusable")`, or `"model_missing"` where there is no folder."""
    files, documents, tensors = _examine(folder)
    return _facts(documents[CONFIG], tensors, files, _has_template(files, documents))


def inspect_tensors(folder: Path) -> tuple[dict[str, Any], list[TensorFacts]]:
    """The config and every tensor of the model in `folder`, after the same checks. Raises as `inspect_model` does."""
    _, documents, tensors = _examine(folder)
    return documents[CONFIG], tensors


def _examine(folder: Path) -> tuple[list[str], dict[str, Any], list[TensorFacts]]:
    """The names of the files, the JSON documents by name, and the tensors; all of them checked."""
    if not folder.is_dir():
        raise UserError("model_missing", path=folder)
    files = _check_names(folder)
    documents = {name: _read_json(folder / name) for name in files if name.endswith(".json")}
    if CONFIG not in documents:
        _refuse("it has no config.json")
    for name, body in documents.items():
        _check_keys(name, body)
    _check_config(documents[CONFIG])
    _check_tokenizer(folder, files)
    tensors = _read_weights(folder, files, documents.get(INDEX))
    _check_proportion(documents[CONFIG], tensors)
    return files, documents, tensors


def fetched(name: str) -> bool:
    """Whether a hub's file of this name is part of a model as Graft uses it."""
    return any(pattern.fullmatch(name) for pattern in FETCHED)


def _refuse(reason: str, file: str | None = None) -> NoReturn:
    raise UserError("model_unusable", reason=reason, where={"file": file} if file else None)


def _check_names(folder: Path) -> list[str]:
    """The names of the files, sorted; refuses folders, links, names that are not on the list, and too many."""
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(names) == MAX_FILES:
                _refuse(f"it has more than {MAX_FILES} files")
            facts = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(facts.st_mode):
                _refuse(f"{entry.name!r} is a {_kind(facts.st_mode)}, not a file", entry.name)
            if not (fetched(entry.name) or SHARD_NAME.fullmatch(entry.name) or any(note.fullmatch(entry.name) for note in NOTES)):
                _refuse(f"{entry.name!r} may not be there: only safetensors, config and tokenizer files are used", entry.name)
            names.append(entry.name)
    return sorted(names)


def _kind(mode: int) -> str:
    return "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "special file"


def _read_json(path: Path) -> Any:
    if path.stat().st_size > JSON_BYTES:
        _refuse(f"{path.name} is larger than {JSON_BYTES:,} bytes", path.name)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as failure:
        _refuse(f"{path.name} is not valid JSON ({str(failure)[:120]})", path.name)


def _check_keys(file: str, body: Any) -> None:
    """Refuses the forbidden keys, and nesting deeper than any real file has."""
    level = [body]
    for _ in range(JSON_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                for key, value in item.items():
                    if key in FORBIDDEN_KEYS and value and not (file in VOCABULARIES and isinstance(value, int)):
                        _refuse(f"{file} sets '{key}', which can make a loader run code that is not part of this program", file)
                below.extend(value for value in item.values() if isinstance(value, dict | list))
            else:
                below.extend(value for value in item if isinstance(value, dict | list))
        level = below
        if not level:
            return
    _refuse(f"{file} is nested more than {JSON_DEPTH} deep", file)


def _check_config(config: Any) -> None:
    if not isinstance(config, dict):
        _refuse("config.json is not an object", CONFIG)
    if "quantization_config" in config:
        _refuse("its weights are quantised already; training starts from 16- or 32-bit weights", CONFIG)
    names = config.get("architectures")
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        _refuse("config.json does not name its architecture", CONFIG)
    if not tasks_of(names[0]):
        _refuse(f"it is a {names[0][:80]}: neither a model that writes text (…ForCausalLM, T5) nor an encoder that is known here", CONFIG)
    for part in _parts(config):
        for key, (least, most) in BOUNDS.items():
            value = part.get(key)
            if value is not None and (type(value) is not int or not least <= value <= most):
                _refuse(f"'{key}' in config.json is {str(value)[:40]!r}; it must be a whole number from {least:,} to {most:,}", CONFIG)


def _check_proportion(config: Mapping[str, Any], tensors: list[TensorFacts]) -> None:
    stored = sum(math.prod(tensor.shape) for tensor in tensors)
    for part in _parts(config):
        if found := excess(part, stored):
            key, numbers = found
            _refuse(f"'{key}' in config.json asks for {numbers:,} weights, of which its files hold {stored:,} in all", CONFIG)


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A config and the configs within it."""
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _parts(value)


def _check_tokenizer(folder: Path, files: list[str]) -> None:
    if "tokenizer.json" not in files:
        _refuse("it has no tokenizer.json, the tokenizer in the form that this program reads")
    template = folder / "chat_template.jinja"
    if template.name in files and template.stat().st_size > CHAT_TEMPLATE_BYTES:
        _refuse(f"its chat template is larger than {CHAT_TEMPLATE_BYTES:,} bytes", template.name)


def _has_template(files: list[str], documents: Mapping[str, Any]) -> bool:
    settings = documents.get("tokenizer_config.json")
    return bool(
        {"chat_template.jinja", "chat_template.json"} & set(files) or (isinstance(settings, dict) and settings.get("chat_template"))
    )


def _read_weights(folder: Path, files: list[str], index: Any) -> list[TensorFacts]:
    """Every tensor of the weights that a loader would read; the index must name files of the folder, and what is really in them."""
    shards = _shards(files, index)
    tensors: dict[str, TensorFacts] = {}
    for shard in shards:
        for tensor in _read_header(folder / shard):
            if tensors.setdefault(tensor.name, tensor) is not tensor:
                _refuse(f"the tensor {tensor.name[:120]!r} stands in two files", shard)
            if index is not None and index["weight_map"].get(tensor.name) != shard:
                _refuse(f"{INDEX} does not say that {tensor.name[:120]!r} is in {shard}", INDEX)
    if index is not None and (absent := index["weight_map"].keys() - tensors.keys()):
        _refuse(f"{INDEX} names {len(absent)} tensors that are in no file, {min(absent)[:120]!r} among them", INDEX)
    if not tensors:
        _refuse("its safetensors files hold no tensor")
    return list(tensors.values())


def _shards(files: list[str], index: Any) -> list[str]:
    if index is None:
        if "model.safetensors" not in files:
            _refuse("it has no weights in safetensors (model.safetensors, or shards with an index); pickled weights are never read")
        return ["model.safetensors"]
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or len(weight_map) > HEADER_TENSORS:
        _refuse(f"{INDEX} has no weight_map of 1 to {HEADER_TENSORS:,} tensors", INDEX)
    for name in set(map(str, weight_map.values())):
        if not SHARD_NAME.fullmatch(name) or name not in files:
            _refuse(f"{INDEX} points to {name[:120]!r}, which is not a safetensors file of this folder", INDEX)
    if "model.safetensors" in files and "model.safetensors" not in weight_map.values():
        _refuse("it has both model.safetensors and an index of other files; which one is the model is not clear", INDEX)
    return sorted(set(weight_map.values()))


def _read_header(path: Path) -> list[TensorFacts]:
    """The tensors of one safetensors file, after every check that its header allows."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(HEADER_BYTES, size - 8):
            _refuse(f"{path.name} is not a complete safetensors file", path.name)
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            _refuse(f"the header of {path.name} is not valid JSON", path.name)
    if not isinstance(header, dict):
        _refuse(f"the header of {path.name} is not an object", path.name)
    metadata = header.pop("__metadata__", {})
    if len(json.dumps(metadata)) > METADATA_BYTES or len(header) > HEADER_TENSORS:
        _refuse(f"the header of {path.name} holds more than {HEADER_TENSORS:,} tensors or {METADATA_BYTES:,} bytes of notes", path.name)
    return _check_layout(path.name, header, size - 8 - length)


def _check_layout(file: str, header: Mapping[str, Any], data_bytes: int) -> list[TensorFacts]:
    """Every tensor as long as its shape says, one after the other from the first byte of the data to the last."""
    entries = []
    for name, facts in header.items():
        if not _well_formed(facts):
            _refuse(f"the tensor {name[:120]!r} in {file} is not described as the format asks", file)
        first, last = facts["data_offsets"]
        bits = ITEM_BITS[facts["dtype"]] * math.prod(facts["shape"])
        if bits != 8 * (last - first):
            _refuse(f"the tensor {name[:120]!r} in {file} has {last - first:,} bytes where its shape needs {bits // 8:,}", file)
        entries.append((first, last, TensorFacts(name, facts["dtype"], tuple(facts["shape"]), last - first)))
    end = 0
    for first, last, _ in sorted(entries, key=lambda entry: entry[:2]):
        if first != end:
            _refuse(f"the tensors in {file} overlap or leave holes", file)
        end = last
    if end != data_bytes:
        _refuse(f"{file} has {data_bytes:,} bytes of tensors where its header needs {end:,}: it is cut off or has something added", file)
    return [tensor for _, _, tensor in entries]


def _well_formed(facts: Any) -> bool:
    def counts(value: Any, length: int | None) -> bool:
        numbers = isinstance(value, list) and all(type(item) is int and 0 <= item < 2**62 for item in value)
        return numbers and (len(value) <= 8 if length is None else len(value) == length)

    return (
        isinstance(facts, dict)
        and isinstance(facts.get("dtype"), str)
        and facts["dtype"] in ITEM_BITS
        and counts(facts.get("shape"), None)
        and counts(facts.get("data_offsets"), 2)
    )


def _facts(config: dict[str, Any], tensors: list[TensorFacts], files: list[str], chat_template: bool) -> ModelFacts:
    nested = config.get("text_config")
    text: dict[str, Any] = nested if isinstance(nested, dict) else config
    by_dtype: dict[str, int] = {}
    for tensor in tensors:
        by_dtype[tensor.dtype] = by_dtype.get(tensor.dtype, 0) + tensor.size
    main = max(by_dtype, key=lambda dtype: by_dtype[dtype])
    if main not in DTYPE_NAMES:
        _refuse(f"its weights are stored as {main}; training starts from 16- or 32-bit weights")

    def first(*keys: str) -> int | None:
        return next((text[key] for key in keys if isinstance(text.get(key), int)), None)

    return ModelFacts(
        architecture=config["architectures"][0],
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        bytes=sum(tensor.size for tensor in tensors),
        context_length=first("max_position_embeddings", "n_positions"),
        vocabulary=first("vocab_size"),
        hidden_size=first("hidden_size", "n_embd", "d_model", "dim"),
        layers=first("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        dtype=DTYPE_NAMES[main],
        chat_template=chat_template,
        has_biases=any(tensor.name.endswith(".bias") for tensor in tensors),
        tasks=list(tasks_of(config["architectures"][0])),
        files=files,
    )
