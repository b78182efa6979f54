"""Adapters of one base made one: by the rules of PEFT, into files that plain PEFT loads, measured and exported as a run."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from jobs.__main__ import main
from jobs.composition.combinations import COMBINATIONS
from jobs.composition.low_rank import combine
from jobs.composition.parts import read_parts
from jobs.composition.spec import CompositionSpec, load_composition
from jobs.errors import ExitCode, UserError
from jobs.events import read_events
from jobs.export.parity import logits_of
from jobs.models.opened import open_model
from tests.jobs.methods.test_block_sparse_overlap import made as made_of_blocks
from tests.jobs.training.reference import CONFIGS
from tests.tiny import VOCABULARY, make_tiny_model

ROWS = [list(b"the quick brown fox"), list(b"a lazy dog")]
WEIGHTS = (0.7, -0.4)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A base, rows, and adapters upon it: `a` and `b` alike, `c` of rsLoRA with ranks and modules of its own, `d` DoRA."""
    folder = tmp_path_factory.mktemp("compose")
    make_tiny_model(folder / "model")
    everywhere = ["q_proj", "v_proj", "down_proj"]
    adapter(folder, "a", 1, r=4, lora_alpha=8, target_modules=everywhere)
    adapter(folder, "b", 2, r=4, lora_alpha=4, target_modules=everywhere)
    adapter(folder, "c", 3, r=6, lora_alpha=5, use_rslora=True, rank_pattern={"layers.1.self_attn.q_proj": 3},
            target_modules=["q_proj", "embed_tokens"])  # fmt: skip
    adapter(folder, "d", 4, r=4, use_dora=True, target_modules=["q_proj"])
    chats = [[{"role": "user", "content": f"row {n}"}, {"role": "assistant", "content": "yes" if n % 2 else "no"}] for n in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return folder


def base(place: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(place / "model")


def adapter(place: Path, name: str, seed: int, **config: Any) -> None:
    torch.manual_seed(seed)
    model = get_peft_model(base(place), LoraConfig(task_type="CAUSAL_LM", **config))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.peft_config["default"].base_model_name_or_path = "acme/tiny"
    model.save_pretrained(place / name, save_embedding_layers=False)


def spec_of(place: Path, names: str, **given: Any) -> CompositionSpec:
    adapters = [{"path": str(place / name), "weight": weight} for name, weight in zip(names, WEIGHTS, strict=False)]
    return CompositionSpec.from_json({"model": {"path": str(place / "model")}, "adapters": adapters, **given})


def composed(place: Path, out: Path, names: str, **given: Any) -> tuple[Any, dict[str, Any]]:
    spec = spec_of(place, names, **given)
    found = combine(read_parts(spec, out / "parts"), spec, out / "adapter", lambda _done, _total: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of missing or unexpected weights
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(base(place), out / "adapter"), found


def merged(place: Path, *weighted: tuple[str, float]) -> dict[str, torch.Tensor]:
    """The base's weights with each adapter's change added by PEFT's own merge, times a weight."""
    start = {name: weight.clone() for name, weight in base(place).state_dict().items()}
    total = {name: weight.clone() for name, weight in start.items()}
    for name, weight in weighted:
        tuned = PeftModel.from_pretrained(base(place), place / name).merge_and_unload().state_dict()
        for key, before in start.items():
            total[key] += weight * (tuned[key] - before)
    return total


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float = 2e-6) -> None:
    assert found.keys() == wanted.keys()
    assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) < tolerance


def test_the_sum_is_exact_whatever_scales_ranks_and_modules(place, tmp_path):
    model, found = composed(place, tmp_path, "ac")
    assert found == {"modules": 7, "rank": 10, "lost": 0.0}
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 4, False)
    ranks = {
        "model.layers.0.self_attn.q_proj": 10, "model.layers.1.self_attn.q_proj": 7, "model.embed_tokens": 6,
    }  # fmt: skip
    assert config["rank_pattern"] == config["alpha_pattern"] == ranks
    assert_same(model.merge_and_unload().state_dict(), merged(place, ("a", WEIGHTS[0]), ("c", WEIGHTS[1])))


def test_a_rank_that_holds_the_sum_loses_nothing_and_a_smaller_one_says_how_much(place, tmp_path):
    wanted = merged(place, ("a", WEIGHTS[0]), ("b", WEIGHTS[1]))
    model, found = composed(place, tmp_path / "8", "ab", combination="svd", rank=8)
    assert (found["rank"], found["lost"] < 1e-6) == (8, True)
    assert_same(model.merge_and_unload().state_dict(), wanted)
    model, found = composed(place, tmp_path / "3", "ab", combination="svd", rank=3)
    before, after = base(place).state_dict(), model.merge_and_unload().state_dict()
    square = {name: ((wanted[name] - after[name]).square().sum(), (wanted[name] - before[name]).square().sum()) for name in wanted}
    left, whole = (float(sum(pair[side] for pair in square.values())) for side in (0, 1))
    assert found["lost"] == pytest.approx((left / whole) ** 0.5, rel=1e-3)
    assert 0.1 < found["lost"] < 0.9


@pytest.mark.parametrize("combination", [each.id for each in COMBINATIONS.values() if not each.draws])
def test_a_combination_gives_what_peft_gives(combination, place, tmp_path):
    ours, _ = composed(place, tmp_path, "ab", combination=combination, density=0.6)
    theirs = PeftModel.from_pretrained(base(place), place / "a", adapter_name="a")
    theirs.load_adapter(place / "b", adapter_name="b")
    theirs.add_weighted_adapter(["a", "b"], list(WEIGHTS), "both", combination_type=combination, density=0.6)
    theirs.set_adapter("both")
    assert_same(ours.merge_and_unload().state_dict(), theirs.merge_and_unload().state_dict(), 1e-5)


@pytest.mark.parametrize("combination", [each.id for each in COMBINATIONS.values() if each.draws])
def test_what_is_drawn_follows_from_the_seed(combination, place, tmp_path):
    made = [
        composed(place, tmp_path / str(number), "ab", combination=combination, density=0.5, seed=seed)[0].merge_and_unload().state_dict()
        for number, seed in enumerate((3, 3, 4))
    ]
    name = "model.layers.0.mlp.down_proj.weight"
    assert torch.equal(made[0][name], made[1][name])
    assert float((made[0][name] - made[2][name]).abs().max()) > 1e-3
    whole = composed(place, tmp_path / "whole", "ab", combination=combination, density=1.0)[0].merge_and_unload().state_dict()
    plain = combination.replace("dare_linear", "linear").replace("dare_ties", "ties").replace("linear_svd", "svd")
    assert_same(whole, composed(place, tmp_path / "plain", "ab", combination=plain, density=1.0)[0].merge_and_unload().state_dict(), 1e-5)


def refused(place: Path, tmp_path: Path, names: str, **given: Any) -> str:
    spec = spec_of(place, names, **given)
    with pytest.raises(UserError) as caught:
        combine(read_parts(spec, tmp_path / "parts"), spec, tmp_path / "out", lambda _done, _total: None)
    assert caught.value.code == "composition_unfit"
    assert not (tmp_path / "out").exists()
    return caught.value.message


def test_what_cannot_be_combined_is_refused(place, tmp_path):
    assert "TIES needs equal ranks, and those of model.layers.0.self_attn.q_proj are 4, 6" in refused(
        place, tmp_path, "ac", combination="ties"
    )
    assert "d has trained more than low-rank updates" in refused(place, tmp_path, "ad")
    assert "different bases (the base model given: acme/other, a: acme/tiny" in refused(
        place, tmp_path, "ab", model={"path": str(place / "model"), "name": "acme/other"}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "b is an adapter of the kind LOHA"),
        ({"peft_type": "BLOCK_SPARSE"}, "different kinds (a is LORA, b is BLOCK_SPARSE)"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "different tasks"),
        ({"modules_to_save": ["lm_head"]}, "b brings a head or a module that was trained whole"),
        ({"loftq_config": {"loftq_bits": 4}}, "b (LoftQ) makes up for the base's rounding"),
        ({"init_lora_weights": "pissa"}, "the initialisation pissa changed the base"),
    ],
)
def test_adapters_of_another_kind_are_refused(changes, message, place, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / name / file).write_bytes((place / name / file).read_bytes())
    config = tmp_path / "b/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    assert message in refused(tmp_path, tmp_path, "ab")


def run(tmp_path: Path, body: dict[str, Any]) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """`python -m jobs compose` in this process; its exit code and its events' data by kind."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    assert "bitsandbytes" in sys.modules, "nothing is hidden from the tests that follow"
    (tmp_path / "compose.json").write_text(json.dumps(body))
    command = ["compose", str(tmp_path / "compose.json"), "--out", str(tmp_path / "out"), "--token-cache", str(tmp_path / "tokens")]
    try:
        with patch.dict(os.environ):  # left as it was
            code = main(command)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    events: dict[str, list[dict[str, Any]]] = {}
    for event in read_events(tmp_path / "out/events.jsonl"):
        events.setdefault(event.kind, []).append(event.data)
    return code, events


def test_a_composition_is_measured_and_exported_as_a_run(place, tmp_path):
    code, events = run(tmp_path, {
        "name": "Both", "model": {"path": str(place / "model"), "name": "acme/tiny"}, "precision": "float32",
        "adapters": [{"path": str(place / "a"), "weight": 0.7, "name": "tickets"}, {"path": str(place / "c"), "weight": -0.4}],
        "data": {"train": str(place / "rows.jsonl"), "test": str(place / "rows.jsonl")},
        "evaluation": {"generate": False, "retention": False, "samples": 0}, "export": {"merge": "original"},
    })  # fmt: skip
    assert (code, events["finished"][0]["outcome"]) == (ExitCode.DONE, "succeeded")
    losses = {data["model"]: data["loss"] for data in events["eval"]}
    assert list(losses) == ["base", "adapter 1", "adapter 2", "tuned", "merged"]
    assert losses["merged"] == pytest.approx(losses["tuned"], rel=1e-5)
    assert len(set(losses.values())) >= 4
    assert events["method"][0]["facts"] == {
        "combination": "cat", "adapter 1": "tickets x 0.7", "adapter 2": "c x -0.4", "modules": 7, "rank": 10, "lost": 0.0,
    }  # fmt: skip
    names = [data["name"] for data in events["artifact"]]
    assert names == ["both-adapter.zip", "both-merged.zip"]
    assert events["artifact"][1]["details"]["merge_max_difference"] < 1e-4
    with zipfile.ZipFile(tmp_path / "out/artifacts/both-adapter.zip") as packed:
        packed.extractall(tmp_path / "download")
    card = (tmp_path / "download/README.md").read_text()
    assert "An adapter for acme/tiny, composed of 2 adapters (tickets, c)." in card
    assert "| `adapter 2` | c x -0.4 |" in card
    assert str(place) not in card + (tmp_path / "download/adapter_config.json").read_text()
    again = PeftModel.from_pretrained(base(place), tmp_path / "download")
    expected = base(place)
    expected.load_state_dict(merged(place, ("a", 0.7), ("c", -0.4)))
    for found, wanted in zip(logits_of(again, ROWS, "float32"), logits_of(expected, ROWS, "float32"), strict=True):
        assert float((found - wanted).abs().max()) < 1e-4
    for name, folder in (("base", None), ("adapter 1", place / "a"), ("tuned", tmp_path / "download")):
        assert losses[name] == pytest.approx(loss_alone(place, folder), rel=1e-5), name
    assert not (tmp_path / "out/.composition").exists()
    assert load_composition(tmp_path / "out/spec.json").adapters[0].name == "tickets"


def loss_alone(place: Path, adapter: Path | None) -> float:
    """The loss of a model that is loaded by itself, by plain transformers, on the rows' answers."""
    opened = open_model(place / "model", adapter, precision="float32")
    total = count = 0.0
    for line in (place / "rows.jsonl").read_text().splitlines():
        chat = json.loads(line)["messages"]
        asked = opened.tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, tokenize=False)
        ids = opened.tokenizer(opened.tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)["input_ids"]
        first = len(opened.tokenizer(asked, add_special_tokens=False)["input_ids"])
        ids = ids[: ids.index(opened.tokenizer.eos_token_id, first) + 1]
        logits = logits_of(opened.model, [ids], "float32")[0]
        total += float(torch.nn.functional.cross_entropy(logits[first - 1 : -1], torch.tensor(ids[first:]), reduction="sum"))
        count += len(ids) - first
    return total / count


def test_blocks_are_added_and_their_conflicts_told(tmp_path):
    config = deepcopy(CONFIGS["llama"])
    config.vocab_size = VOCABULARY  # the tokenizer's; the adapters are of layers alone
    make_tiny_model(tmp_path / "model", config=config)
    for seed, name in enumerate("ab"):
        made_of_blocks(tmp_path / name, seed)
    body = {
        "model": {"path": "model"}, "adapters": [{"path": "a"}, {"path": "b", "weight": 0.5}], "precision": "float32",
        "evaluation": {"retention": False},
    }  # fmt: skip
    code, events = run(tmp_path, body)
    assert (code, [data["name"] for data in events["artifact"]]) == (ExitCode.DONE, ["run-adapter.zip"])
    facts = events["method"][0]["facts"]
    assert facts["blocks"] + facts["conflicts"] == 14 * 2 * 16
    assert 0 < facts["conflict_share"] == facts["conflicts"] / facts["blocks"]
    assert "eval" not in events
    code, events = run(tmp_path, {**body, "combination": "ties"})
    assert (code, events["finished"][-1]["code"]) == (ExitCode.BAD_INPUT, "composition_unfit")
    assert len(events["artifact"]) == 1, "nothing new"
