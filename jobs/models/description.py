"""What a model's page tells of it beyond `jobs.models.inspect`: its linear layers by kind, and its tokenizer. Free of torch.

A tokenizer is a stranger's program: to be asked in a bounded process alone. What it does to a few short texts is looked at here, since
some take for ever, or make megabytes of a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.errors import UserError
from jobs.models.frame import read_frame
from jobs.spec import Task

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
# One sentence in each of these languages, of much the same meaning: how many tokens it takes says whom the vocabulary was made for.
SENTENCES = {
    "en": "Please check the invoice before you pay it.",
    "fi": "Tarkista lasku ennen kuin maksat sen.",
    "uk": "Перевірте рахунок, перш ніж сплатити його.",
    "ru": "Проверьте счёт, прежде чем оплатить его.",
    "ko": "지불하기 전에 청구서를 확인하세요.",
    "ja": "支払う前に請求書を確認してください。",
}
# What a bad regular expression or a doubling replacement shows itself on; a token of an honest tokenizer is a byte at the least.
_PROBES = ("a" * 30 + "!", "0" * 40, " " * 40 + "x")
MOST_TOKENS_A_BYTE = 64
_LAYER_NUMBER = re.compile(r"(?:^|\.)\d+\.")


@dataclass(frozen=True)
class LayerKind:
    """Linear layers that have name and size in common: `count` of them, each from `inputs` to `outputs` numbers a token."""

    name: str
    count: int
    inputs: int
    outputs: int

    @property
    def numbers(self) -> int:
        """Numbers of all their weights."""
        return self.count * self.inputs * self.outputs


@dataclass(frozen=True)
class TokenizerFacts:
    """`algorithm` is the file's own word (BPE, Unigram, WordPiece). `lengths`: tokens of each of `SENTENCES`, by language."""

    algorithm: str
    vocabulary: int
    special: dict[str, str]
    lengths: dict[str, int]
    lower_cases: bool

    def to_json(self) -> dict[str, Any]:
        """The facts as a JSON object."""
        return asdict(self)


def linear_layers(folder: Path, task: Task) -> list[LayerKind]:
    """The layers that an adapter may sit on, by kind, in the order of the model. Raises `UserError`: `model_missing`, `model_unusable`."""
    counts: dict[tuple[str, int, int], int] = {}
    for layer in read_frame(folder, task).layers:
        key = (_LAYER_NUMBER.split(layer.name)[-1], layer.inputs, layer.outputs)
        counts[key] = counts.get(key, 0) + 1
    return [LayerKind(name, count, inputs, outputs) for (name, inputs, outputs), count in counts.items()]


def tokenizer_facts(folder: Path) -> TokenizerFacts:
    """What the tokenizer of the model in `folder` is. Raises `UserError("model_unusable")` where it does not load or does not behave."""
    tokenizer = _load(folder / "tokenizer.json")
    for text in _PROBES:
        _count(tokenizer, text)
    state = json.loads((folder / "tokenizer.json").read_bytes())
    return TokenizerFacts(
        algorithm=str((state.get("model") or {}).get("type", "")),
        vocabulary=tokenizer.get_vocab_size(with_added_tokens=True),
        special=special_tokens(folder),
        lengths={language: _count(tokenizer, text) for language, text in SENTENCES.items()},
        lower_cases=_count(tokenizer, "GRAFT", words=True) == _count(tokenizer, "graft", words=True),
    )


def special_tokens(folder: Path) -> dict[str, str]:
    """The special tokens that the tokenizer's settings name, by their kind."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        body = _object(folder / name)
        for kind in SPECIAL_TOKENS:
            token = body.get(kind)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str) and text:
                found[kind] = text
    return found


def _load(file: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except BaseException as failure:  # noqa: BLE001 - a fault in the library's own language is no Exception
        raise _refused(f"its tokenizer does not load: {_first_line(failure)}") from None


def _count(tokenizer: Any, text: str, *, words: bool = False) -> Any:
    """The number of tokens of a text, or with `words` the tokens themselves. Raises `UserError("model_unusable")`."""
    try:
        encoded = tokenizer.encode(text, add_special_tokens=False)
        tokens: list[str] = encoded.tokens
    except BaseException as failure:  # noqa: BLE001 - see above
        raise _refused(f"its tokenizer fails on {text[:20]!r}: {_first_line(failure)}") from None
    if len(tokens) > MOST_TOKENS_A_BYTE * len(text.encode()):
        raise _refused(f"its tokenizer makes {len(tokens):,} tokens of {len(text)} characters")
    return tokens if words else len(tokens)


def _object(file: Path) -> Mapping[str, Any]:
    """A JSON object of a file that may be absent."""
    body = json.loads(file.read_bytes()) if file.is_file() else {}
    return body if isinstance(body, dict) else {}


def _refused(reason: str) -> UserError:
    return UserError("model_unusable", reason=reason, where={"file": "tokenizer.json"})


def _first_line(failure: BaseException) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0][:200]
