"""Hostile files, made anew by these functions in a folder that the test gives: nothing of it is kept in the repository.

A model is a small Llama of zeros that is fit for use; each attack changes one thing of it. Data files are what they are called.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers

MEBI = 2**20
SPECIAL = ["<|im_start|>", "<|im_end|>"]
CHATML = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256 + len(SPECIAL), "hidden_size": 16,
    "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128,
}  # fmt: skip
WIDTHS = {
    "self_attn.q_proj": (16, 16), "self_attn.k_proj": (8, 16), "self_attn.v_proj": (8, 16), "self_attn.o_proj": (16, 16),
    "mlp.gate_proj": (32, 16), "mlp.up_proj": (32, 16), "mlp.down_proj": (16, 32),
}  # fmt: skip
GOOD_ROW = {"prompt": "Two and two?", "completion": "Four."}


class Runs:
    """Pickled, it runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def pickled(marker: Path) -> bytes:
    """A pickle that leaves `marker` behind where it is loaded."""
    return pickle.dumps(Runs(marker))


# -- models -----------------------------------------------------------------------------------------------------------


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the model by name."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (258, 16), "model.norm.weight": (16,), "lm_head.weight": (258, 16)}
    for layer in range(2):
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in WIDTHS.items()}
        found |= {f"model.layers.{layer}.{name}_layernorm.weight": (16,) for name in ("input", "post_attention")}
    return found


def header_of(tensors: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Any], int]:
    """A header of float32 tensors one after the other, and the bytes of data that go with it."""
    header, end = {}, 0
    for name, shape in tensors.items():
        size = 4
        for number in shape:
            size *= number
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    return header, end


def write_weights(path: Path, header: Any, data_bytes: int, *, length: int | None = None) -> Path:
    """A safetensors file of zeros; `length` is what it says of its header's."""
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(body) if length is None else length) + body)
        file.truncate(8 + len(body) + data_bytes)
    return path


def plain_tokenizer() -> Tokenizer:
    """One token a byte."""
    alphabet = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def make_model(folder: Path) -> Path:
    """A model that is fit for use."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    plain_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_weights(folder / "model.safetensors", *header_of(shapes()))
    return folder


def change(folder: Path, file: str, **changes: Any) -> None:
    """Sets keys of a JSON file of the model."""
    path = folder / file
    body = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**body, **changes}))


def sharded(folder: Path, target: str) -> None:
    """An index whose map leads to `target`."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = dict.fromkeys(shapes(), "model-00001-of-00001.safetensors")
    names["lm_head.weight"] = target
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def split_by(folder: Path, pattern: str) -> None:
    """A tokenizer that cuts by a regular expression."""
    part = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    change(folder, "tokenizer.json", pre_tokenizer=part)


def replacing(folder: Path, *steps: tuple[str, str]) -> None:
    """A tokenizer that writes one text in the place of another, step by step."""
    parts = [{"type": "Replace", "pattern": {"String": old}, "content": new} for old, new in steps]
    change(folder, "tokenizer.json", normalizer={"type": "Sequence", "normalizers": parts})


# -- archives ---------------------------------------------------------------------------------------------------------


def zip_of(path: Path, members: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> Path:
    """A zip with names as they are given; `modes` are Unix modes, a link or a device among them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = ((modes or {}).get(name, stat.S_IFREG | 0o644)) << 16
            archive.writestr(entry, body)
    return path


def many_entries(path: Path, count: int) -> Path:
    """A zip of so many empty files."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"{number:x}"), b"")
    return path


def overlapping(path: Path) -> Path:
    """As 42.zip's better sister: entries that share one body."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vocab.json", bytes(64 * 1024))
        archive.writestr("merges.txt", bytes(64 * 1024))
        first, second = archive.infolist()
        second.header_offset = first.header_offset
    return path


def tar_with_link(path: Path, target: str) -> Path:
    """A tar whose weights are a link."""
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("model.safetensors")
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        archive.addfile(entry)
    return path


# -- data -------------------------------------------------------------------------------------------------------------


def lines(*rows: Any) -> bytes:
    """JSON Lines: good rows, then these."""
    good = [json.dumps(GOOD_ROW)] * 3
    return "\n".join([*good, *(row if isinstance(row, str) else json.dumps(row) for row in rows), ""]).encode()


def nested(depth: int) -> bytes:
    """A row of so many brackets."""
    return b'{"prompt": ' + b"[" * depth + b"]" * depth + b', "completion": "x"}\n'


def gzip_bomb(mebibytes: int) -> bytes:
    """So many MiB of one row, a thousandth of that in size."""
    packed = io.BytesIO()
    row = (json.dumps(GOOD_ROW) + "\n").encode()
    block = row * (MEBI // len(row))
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        for _ in range(mebibytes):
            file.write(block)
    return packed.getvalue()


def parquet_bomb(path: Path, rows: int, characters: int) -> Path:
    """So many rows of one long text, which a dictionary holds once: megabytes of file, terabytes of text."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * characters]))
    answer = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["y"]))
    pq.write_table(pa.table({"prompt": text, "completion": answer}), path, compression="zstd")
    return path
