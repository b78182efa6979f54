"""How many parameters a run would train, told beside its form."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse
from safetensors.numpy import save_file

from jobs.methods.registry import get_method
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from tests.webapp.runs.test_views import form_data
from webapp.core.formats import THIN
from webapp.runs.forms import RunForm
from webapp.runs.models import Artifact
from webapp.runs.trained import trained_by

WIDTH, INNER, WORDS, LAYERS = 8, 16, 32, 2
SIZES = {"q_proj": (WIDTH, WIDTH), "k_proj": (4, WIDTH), "v_proj": (4, WIDTH), "o_proj": (WIDTH, WIDTH)}
INNER_SIZES = {"gate_proj": (INNER, WIDTH), "up_proj": (INNER, WIDTH), "down_proj": (WIDTH, INNER)}
# LoRA of rank 16 on all of them.
LORA = LAYERS * 16 * sum(map(sum, [*SIZES.values(), *INNER_SIZES.values()]))


def write_base(folder: Path) -> None:
    """A Llama's files, all zeros."""
    tensors = {"model.embed_tokens.weight": np.zeros((WORDS, WIDTH), np.float32), "model.norm.weight": np.zeros(WIDTH, np.float32)}
    for layer in range(LAYERS):
        for part, sizes in (("self_attn", SIZES), ("mlp", INNER_SIZES)):
            tensors |= {f"model.layers.{layer}.{part}.{name}.weight": np.zeros(size, np.float32) for name, size in sizes.items()}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER, "vocab_size": WORDS,
        "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    save_file(tensors, folder / "model.safetensors")


@pytest.fixture
def ready(bench: Bench) -> Bench:
    write_base(bench.base_model.folder)
    return bench


@pytest.fixture
def alice(ready: Bench, client: Client) -> Client:
    client.force_login(ready.user)
    return client


def ask(client: Client, bench: Bench, **changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(reverse("runs:trained", args=[bench.team.slug]), form_data(bench, **changes)).json()
    return answer


def thin(number: int) -> str:
    return f"{number:,}".replace(",", THIN)


def test_the_page_tells_it_without_a_script(alice: Client, ready: Bench) -> None:
    page = alice.get(reverse("runs:whole", args=[ready.team.slug])).text
    assert f"Trains {thin(LORA)} parameters" in page
    assert f'data-trained="prompt_tuning">{20 * WIDTH} parameters' in page


def test_it_follows_what_is_typed(alice: Client, ready: Bench) -> None:
    assert f"Trains {thin(LORA // 2)} parameters" in ask(alice, ready, settings_lora_rank="8")["words"]
    assert f"Trains {thin(LORA)} parameters" in ask(alice, ready, settings_lora_rank="")["words"]
    base = WORDS * WIDTH + WIDTH + LAYERS * sum(a * b for a, b in [*SIZES.values(), *INNER_SIZES.values()])
    assert ask(alice, ready, method="full")["words"].startswith(f"Trains {thin(base)} parameters, 100.000{THIN}%")


def test_nothing_is_told_where_nothing_can_be(alice: Client, ready: Bench) -> None:
    assert ask(alice, ready, settings_lora_rank="many")["words"] == ""
    assert ask(alice, ready, method="bitfit")["words"] == "", "this base has no biases"
    assert "eva" not in ask(alice, ready)["cards"]
    assert "hangs on the rows" in ask(alice, ready, method="eva")["words"]


def test_a_head_is_counted_for_each_label(ready: Bench) -> None:
    told = trained_by(get_method("lora"), {}, ready.base_model.folder, "sequence_classification")
    assert told is not None
    assert (told.count, told.per_label) == (LORA, WIDTH)
    assert told.words.endswith(f"and {WIDTH} for each label.")


def test_a_fusion_is_told_by_the_adapters_that_are_chosen(ready: Bench) -> None:
    ends = [f"model.layers.{layer}.mlp.down_proj" for layer in range(LAYERS)]
    runs = [stories.finished(ready.launch(method="bottleneck_adapter", name=name)) for name in ("one", "two")]
    for run in runs:
        archive = Artifact.objects.get(run=run, kind=Artifact.Kind.ADAPTER).file
        archive.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(archive, "w") as members:
            members.writestr("adapter_config.json", json.dumps({"target_modules": ends}))
    told = trained_by(get_method("adapter_fusion"), {}, ready.base_model.folder, "causal_lm", runs)
    assert told is not None
    assert told.count == LAYERS * 3 * WIDTH * WIDTH


def test_others_may_not_ask(ready: Bench, client: Client) -> None:
    other = make_bench("bob")
    client.force_login(other.user)
    assert client.post(reverse("runs:trained", args=[ready.team.slug]), form_data(other)).status_code == 404


def test_obstacles_are_looked_for_once_a_page(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr("webapp.runs.forms.method_obstacles", lambda *_: calls.append(1) or {})
    form = RunForm(ready.team)
    assert form.families()
    assert form.obstacles == form.obstacles == {}
    assert calls == [1]
