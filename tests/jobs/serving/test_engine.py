"""Answers of many at once equal those of one at a time: base and adapters, drawn and greedy, whatever joins and leaves meanwhile."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from jobs.commands.generate import prompt_ids
from jobs.errors import UserError
from jobs.evaluation.generation import answers
from jobs.models.opened import open_model
from jobs.serving import engine as serving
from jobs.serving.batch import Row, drawn
from jobs.serving.engine import Engine
from jobs.serving.spec import Ask, ModelRef, Reply
from jobs.serving.text import Writer
from tests.tiny import make_tiny_model, tiny_tokenizer

QUESTIONS = ["Hello", "What is the capital of France?", "a", "Tell me more about rows and columns, please; I do not know them well."]


def chat(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("serving.1") / "model")


@pytest.fixture(scope="module")
def adapters(folder: Path) -> list[Path]:
    """Two adapters that change what the model says."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = get_peft_model(open_model(folder, None).model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5)
        found.append(folder.parent / f"adapter-{seed}")
        model.save_pretrained(found[-1])
    return found


class Asked:
    """An engine, and what it has said by id."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.engine = Engine(lambda reply: self.replies.setdefault(reply.id, []).append(reply))

    def ask(self, key: str, folder: Path, **more: Any) -> None:
        adapter = str(more.pop("adapter", ""))
        self.engine.put(Ask(key, ModelRef(str(folder), adapter), **more))

    def turns(self, most: int = 10_000) -> None:
        while self.engine.busy and most:
            self.engine.turn()
            most -= 1

    def text(self, key: str) -> str:
        return "".join(reply.text for reply in self.replies[key])

    def end(self, key: str) -> Reply:
        return self.replies[key][-1]


@pytest.fixture
def asked() -> Asked:
    return Asked()


def alone(folder: Path, adapter: Path | None, question: str, tokens: int) -> str:
    opened = open_model(folder, adapter)
    (found,) = answers(opened.model, opened.tokenizer, [prompt_ids(chat(question), opened.tokenizer, raw=False)], max_new_tokens=tokens)
    return found.text


def test_greedy_answers_are_generates_own_whoever_joins_and_leaves(asked: Asked, folder: Path, adapters: list[Path]) -> None:
    models: list[Path | None] = [None, *adapters]
    for number, question in enumerate(QUESTIONS * 3):
        adapter = models[number % 3]
        asked.ask(
            str(number), folder, messages=chat(question), max_tokens=4 + 5 * (number % 4), **({"adapter": adapter} if adapter else {})
        )
        # Some begin while others are on their way.
        for _ in range(number % 4):
            asked.engine.turn()
    asked.turns()
    for number, question in enumerate(QUESTIONS * 3):
        expected = alone(folder, models[number % 3], question, 4 + 5 * (number % 4))
        assert asked.text(str(number)) == expected, (number, question)
        assert asked.end(str(number)).kind == "finished"
    assert len(asked.engine.loaded) == 1
    assert len({asked.text(str(number)) for number in (0, 1, 2)}) >= 2


def test_what_is_drawn_hangs_on_the_seed_alone(folder: Path) -> None:
    def draw(others: int) -> str:
        asked = Asked()
        for number in range(others):
            asked.ask(f"other{number}", folder, messages=chat(QUESTIONS[number % 4]), max_tokens=20, temperature=1.0, seed=number)
            asked.engine.turn()
        asked.ask("mine", folder, messages=chat("Hello"), max_tokens=24, temperature=0.9, top_p=0.95, seed=7)
        asked.turns()
        return asked.text("mine")

    assert draw(0) == draw(5)
    asked = Asked()
    asked.ask("a", folder, messages=chat("Hello"), max_tokens=24, temperature=0.9, seed=8)
    asked.turns()
    assert asked.text("a") != draw(0)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    counts = [0, 0, 0, 0]
    for seed in range(4000):
        counts[drawn(scores, Row([1], temperature=1.0, seed=seed))] += 1
    assert all(abs(count / 4000 - share) < 0.03 for count, share in zip(counts, (0.5, 0.3, 0.15, 0.05), strict=True)), counts
    assert {drawn(scores, Row([1], temperature=1.0, top_p=0.79, seed=seed)) for seed in range(300)} == {0, 1}
    assert {drawn(scores, Row([1], temperature=1.0, top_p=1e-9, seed=seed)) for seed in range(50)} == {0}


def test_stop_sequences_end_an_answer_wherever_they_are_cut(asked: Asked, folder: Path) -> None:
    whole = alone(folder, None, "Hello", 40)
    stop = whole[9:13]
    asked.ask("a", folder, messages=chat("Hello"), max_tokens=40, stop=["nowhere", stop])
    asked.turns()
    assert asked.text("a") == whole[: whole.index(stop)]
    assert (asked.end("a").reason, asked.end("a").answer_tokens < 40) == ("stop", True)
    assert all(stop not in reply.text for reply in asked.replies["a"])


def test_probabilities_are_those_of_the_model(asked: Asked, folder: Path) -> None:
    asked.ask("a", folder, messages=chat("Hello"), max_tokens=5, top=3)
    asked.turns()
    opened = open_model(folder, None)
    ids = prompt_ids(chat("Hello"), opened.tokenizer, raw=False)
    for reply in [reply for reply in asked.replies["a"] if reply.tokens]:
        with torch.no_grad():
            logs = opened.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        values, places = logs.topk(3)
        assert [one.logprob for one in reply.tops[0]] == pytest.approx(values.tolist(), abs=1e-4)
        assert reply.tokens[0].logprob == pytest.approx(float(values[0]), abs=1e-4)
        ids.append(int(places[0]))
    assert len(ids) > 5


def test_a_text_goes_on_as_it_stands(asked: Asked, folder: Path) -> None:
    asked.ask("a", folder, text="Once upon", max_tokens=6)
    asked.turns()
    opened = open_model(folder, None)
    (found,) = answers(opened.model, opened.tokenizer, [opened.tokenizer("Once upon")["input_ids"]], max_new_tokens=6)
    assert asked.text("a") == found.text
    assert asked.end("a").prompt_tokens == len("Once upon")


def test_what_cannot_be_answered_is_refused_and_the_others_go_on(asked: Asked, folder: Path, tmp_path: Path) -> None:
    asked.ask("good", folder, messages=chat("Hello"), max_tokens=4)
    asked.ask("long", folder, messages=chat("x" * 600), max_tokens=4)
    asked.ask("gone", tmp_path / "nothing", messages=chat("Hello"))
    asked.ask("bare", folder, messages=chat("Hello"), adapter=tmp_path)
    asked.turns()
    assert asked.end("good").kind == "finished"
    assert [(asked.end(key).kind, asked.end(key).code) for key in ("long", "gone", "bare")] == [
        ("refused", "prompt_too_long"), ("refused", "model_missing"), ("refused", "adapter_unusable"),
    ]  # fmt: skip


def test_a_fault_ends_its_own_batch_alone(asked: Asked, folder: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked.ask("a", folder, messages=chat("Hello"), max_tokens=30)
    asked.ask("b", folder, messages=chat("Hello"), max_tokens=30, adapter=adapters[0])
    asked.engine.turn()
    (loaded,) = asked.engine.loaded.values()
    monkeypatch.setattr(loaded.batches[""], "step", lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("no room")))
    asked.turns()
    assert (asked.end("a").code, asked.end("b").kind) == ("serving_memory", "finished")
    asked.ask("c", folder, messages=chat("Hello"), max_tokens=3)
    asked.turns()
    assert asked.end("c").kind == "finished"


def test_cancelled_answers_end_where_they_are(asked: Asked, folder: Path) -> None:
    asked.ask("a", folder, messages=chat("Hello"), max_tokens=300)
    asked.ask("b", folder, messages=chat("Hello"), max_tokens=6)
    asked.turns(3)
    asked.engine.cancel("a")
    asked.ask("later", folder, messages=chat("Hello"))
    asked.engine.cancel("later")
    asked.turns()
    assert [asked.end(key).reason for key in ("a", "later")] == ["cancelled", "cancelled"]
    assert asked.end("a").answer_tokens < 10
    assert asked.text("b") == alone(folder, None, "Hello", 6)


def test_more_than_fit_wait_for_their_turn(asked: Asked, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_ROWS", 2)
    for number in range(5):
        asked.ask(str(number), folder, messages=chat("Hello"), max_tokens=3)
    asked.engine.turn()
    assert sum(any(reply.kind == "started" for reply in replies) for replies in asked.replies.values()) == 2
    asked.turns()
    assert {asked.text(str(number)) for number in range(5)} == {alone(folder, None, "Hello", 3)}


def test_idle_models_are_let_go(asked: Asked, folder: Path) -> None:
    asked.ask("a", folder, messages=chat("Hello"), max_tokens=9)
    asked.engine.turn()
    assert asked.engine.unload() == 0
    asked.turns()
    assert (asked.engine.unload(3600), asked.engine.unload(), asked.engine.loaded) == (0, 1, {})


def test_no_piece_of_text_is_half_a_character() -> None:
    tokenizer = tiny_tokenizer()
    text = "naïve 日本語 ok"
    writer = Writer(tokenizer)
    pieces = [writer.add(token) for token in tokenizer(text)["input_ids"]]
    assert "".join(pieces) + writer.end() == text
    assert all("\ufffd" not in piece for piece in pieces)
    torn = Writer(tokenizer)
    assert "".join(torn.add(token) for token in tokenizer("日")["input_ids"][:2]) == ""
    assert torn.end() != ""


@pytest.mark.parametrize("seed", range(4))
def test_stops_are_found_in_any_cut(seed: int) -> None:
    tokenizer, chance = tiny_tokenizer(), random.Random(seed)  # noqa: S311
    text = "".join(chance.choice("abc") for _ in range(60))
    stops = ["abca", "ccc"]
    writer, said = Writer(tokenizer, stops), ""
    for token in tokenizer(text)["input_ids"]:
        said += writer.add(token)
        if writer.stopped:
            break
    said += writer.end()
    places = [text.find(stop) for stop in stops if stop in text]
    assert said == (text[: min(places)] if places else text)


def test_questions_are_read_strictly() -> None:
    ask = Ask("a", ModelRef("/m", "/a", 4), messages=chat("x"), stop=["y"], top=2)
    assert Ask.from_json(json.loads(json.dumps(ask.to_json()))) == ask
    for wrong in ({"temperature": 3}, {"max_tokens": 0}, {"top": 21}, {"unknown": 1}):
        with pytest.raises(UserError):
            Ask.from_json({**ask.to_json(), **wrong})


def test_the_process_answers_lines_and_ends_with_its_input(folder: Path) -> None:
    asks = [Ask(f"q{number}", ModelRef(str(folder)), messages=chat("Hello"), max_tokens=4).to_json() for number in range(2)]
    lines = [*({"do": "ask", **ask} for ask in asks), {"do": "ask", "id": "bad"}, "nonsense", {"do": "status"}]
    process = subprocess.Popen([sys.executable, "-m", "jobs", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
    process.stdin.flush()
    said: list[dict[str, Any]] = []
    while sum(line.get("kind") == "finished" for line in said) < 2:
        said.append(json.loads(process.stdout.readline()))
    process.stdin.close()
    assert process.wait(30) == 0
    assert said[0] == {"kind": "ready"}
    refused = {line["id"]: line["code"] for line in said if line["kind"] == "refused"}
    assert set(refused) == {"bad", ""}
    assert any(line["kind"] == "status" for line in said)
    texts = {key: "".join(line.get("text", "") for line in said if line.get("id") == key) for key in ("q0", "q1")}
    assert texts["q0"] == texts["q1"] == alone(folder, None, "Hello", 4)
