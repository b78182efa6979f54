"""How many numbers every method trains on a model of SmolLM2-135M's shape: `python -m tests.matrix.parameters` writes docs/methods.json.

Counted on models of one and of two layers of that shape, as a run makes them; every further layer adds as much as the second did. Methods
that were measured at the defaults that they have today are passed over, unless they are named.
"""

from __future__ import annotations

import tests.environment  # isort: skip  # an own `var`, and no hub
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

from jobs.errors import UserError
from jobs.methods.entry import Method
from jobs.methods.registry import all_methods
from tests.matrix.conformance import adapters_for
from tests.matrix.models import Material, material
from tests.matrix.running import make_spec, prepare, quiet
from tests.tiny import make_tiny_model
from tools.methods_page import FACTS, Facts

MODEL, LAYERS = "SmolLM2-135M", 30


def shape(layers: int) -> LlamaConfig:
    """SmolLM2-135M's config, with another number of layers."""
    return LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9, num_key_value_heads=3,
        max_position_embeddings=8192, bos_token_id=0, eos_token_id=1, pad_token_id=1, tie_word_embeddings=True,
    )  # fmt: skip


def trained(method: Method, given: Material, out: Path) -> int | None:
    """What `method` trains at its defaults upon a model; None where it refuses the model."""
    adapters = adapters_for(method, "causal_lm", given, out)
    try:
        run = prepare(make_spec(method.id, {}, "causal_lm", given, adapters), out / "run")
    except UserError as refused:
        if refused.code != "method_cannot":
            raise
        return None
    return sum(parameter.numel() for parameter in run.trainer.parameters.values())


def measure(methods: Sequence[Method], folder: Path) -> dict[str, Any]:
    """The facts of some methods, by their ids."""
    rows = material(folder, "llama", "causal_lm").rows
    models = [make_tiny_model(folder / f"layers-{layers}", config=shape(layers), dtype=torch.bfloat16) for layers in (1, 2)]
    found = {}
    for method in methods:
        one, two = (trained(method, Material(model, rows), folder / method.id / model.name) for model in models)
        whole = None if one is None or two is None else one + (two - one) * (LAYERS - 1)
        found[method.id] = {"settings": method.resolve({}), "trained": whole}
        sys.stdout.write(f"{method.id}: {whole}\n")
    return found


def main() -> None:
    """Writes the file, in the order of the catalogue; methods that are gone leave it."""
    quiet()
    known = Facts.read().methods if FACTS.is_file() else {}
    methods = {method.id: method for method in all_methods()}
    named = sys.argv[1:] or [name for name, method in methods.items() if known.get(name, {}).get("settings") != method.resolve({})]
    with tempfile.TemporaryDirectory() as folder:
        facts = {**known, **measure([methods[name] for name in named], Path(folder))}
    body = {"model": MODEL, "methods": {name: facts[name] for name in methods}}
    FACTS.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    assert tests.environment.TEST_VAR
    main()
