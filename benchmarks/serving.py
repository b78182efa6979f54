"""`make bench-serving`: chats asked at the same time of the serving process, and of a plain `generate` loop that answers one by one.

Both have the sample model in the same precision, with as many threads that wait in the same way (left to itself the loop would spin, and
take several times as long on a busy machine). They answer the same chats greedily with at most `--tokens` tokens and take turns, `--runs`
times; each answers once uncounted before. All chats of a round are asked at once: the time to the first token counts from there, so that
in the loop it has the wait for the chats before. The serving process is asked as the site asks it, JSON lines through pipes. `same_answers`
is the share of chats that both answered with the same text: rounding may part them where two tokens are all but equally likely.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers import ROOT
from jobs.commands.train import prepare_environment
from jobs.data.records import read_records
from jobs.device import choose_precision
from jobs.serving.spec import Ask, ModelRef

ROWS = ROOT / "examples" / "tickets" / "test.jsonl"
Chat = list[dict[str, Any]]


@dataclass(frozen=True)
class Round:
    """What one round took: `seconds` for all answers, `first_seconds` to the first token of each, the new `tokens` of all, the `texts`."""

    seconds: float
    first_seconds: list[float]
    tokens: int
    texts: list[str]

    @property
    def rate(self) -> float:
        """New tokens a second, of all chats together."""
        return self.tokens / self.seconds


Way = Callable[[Sequence[Chat]], Round]


def main() -> None:
    """Runs both ways in turn and prints a JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(os.environ.get("GRAFT_SAMPLE_MODEL") or ROOT / "var" / "sample-model"))
    parser.add_argument("--chats", default="1,8,32", help="how many at once, by commas (%(default)s)")
    parser.add_argument("--tokens", type=int, default=48, help="of an answer, at most (%(default)s)")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    prepare_environment()
    counts = [int(count) for count in arguments.chats.split(",")]
    asked = questions(max(counts))
    plain = Plain(arguments.model, arguments.tokens)
    with Served(arguments.model, arguments.tokens) as served:
        ways: dict[str, Way] = {"serving": served, "generate": plain}
        for way in ways.values():
            way(asked[:2])
        found = {count: measure(ways, asked[:count], arguments.runs) for count in counts}
    print(json.dumps({**plain.device, "tokens": arguments.tokens, "runs": arguments.runs, "chats": found}, indent=2))


def questions(count: int) -> list[Chat]:
    """The first tickets as chats, without the instruction that asks for a label: the answers are to be long."""
    return [[message for message in row["messages"] if message["role"] == "user"] for _, row in read_records(ROWS, None)][:count]


def measure(ways: dict[str, Way], chats: Sequence[Chat], runs: int) -> dict[str, Any]:
    """The medians of each way, and serving's beside the loop's."""
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            rounds[name].append(way(chats))
            print(json.dumps({"way": name, "chats": len(chats), "tokens_per_second": rounds[name][-1].rate}), file=sys.stderr, flush=True)
    return summary(rounds)


def summary(rounds: dict[str, list[Round]]) -> dict[str, Any]:
    """By way: tokens a second, the median and the longest time to a first token, each the median of the rounds; and the ratios."""
    found = {
        name: {
            "tokens_per_second": statistics.median(one.rate for one in each),
            "first_token_seconds": statistics.median(statistics.median(one.first_seconds) for one in each),
            "last_first_token_seconds": statistics.median(max(one.first_seconds) for one in each),
            "answer_tokens": each[0].tokens,
        }
        for name, each in rounds.items()
    }
    served, plain = found["serving"], found["generate"]
    texts = list(zip(rounds["serving"][0].texts, rounds["generate"][0].texts, strict=True))
    return {
        **found,
        "times_the_throughput": served["tokens_per_second"] / plain["tokens_per_second"],
        "times_sooner": plain["first_token_seconds"] / served["first_token_seconds"],
        "same_answers": sum(mine == theirs for mine, theirs in texts) / len(texts),
    }


class Served:
    """`python -m jobs serve`, asked through its pipes."""

    def __init__(self, model: Path, tokens: int) -> None:
        self._model, self._tokens, self._count = ModelRef(str(model.resolve())), tokens, 0
        command = [sys.executable, "-m", "jobs", "serve"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def __call__(self, chats: Sequence[Chat]) -> Round:
        """Raises `RuntimeError` where a chat is refused or the process ends."""
        assert self._process.stdin is not None
        first: dict[str, float] = {}
        texts: dict[str, list[str]] = {}
        started, tokens, open_answers = time.perf_counter(), 0, len(chats)
        for chat in chats:
            self._count += 1
            texts[str(self._count)] = []
            ask = Ask(str(self._count), self._model, messages=chat, max_tokens=self._tokens)
            self._process.stdin.write(json.dumps({"do": "ask", **ask.to_json()}) + "\n")
        self._process.stdin.flush()
        while open_answers:
            reply = self._reply()
            if reply["kind"] == "token":
                first.setdefault(reply["id"], time.perf_counter() - started)
                texts[reply["id"]].append(reply.get("text", ""))
            elif reply["kind"] == "finished":
                # An answer may be without any text.
                first.setdefault(reply["id"], time.perf_counter() - started)
                tokens, open_answers = tokens + reply.get("answer_tokens", 0), open_answers - 1
        seconds = time.perf_counter() - started
        return Round(seconds, list(first.values()), tokens, ["".join(pieces) for pieces in texts.values()])

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the serving process ended: {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if reply["kind"] == "refused":
            raise RuntimeError(f"refused: {reply}")
        return reply


class Plain:
    """transformers' own model and `generate`, one chat after another."""

    def __init__(self, model: Path, tokens: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from jobs.models.device import probe

        found = probe()
        torch.set_num_threads(found["threads"])
        self._tokens, precision, place = tokens, choose_precision("auto", found), "cuda" if found["kind"] == "cuda" else "cpu"
        self.device = {"name": found["name"], "threads": torch.get_num_threads(), "precision": precision}
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, precision)).to(place).eval()

    def __call__(self, chats: Sequence[Chat]) -> Round:
        """The answers, one by one."""
        started = time.perf_counter()
        first, texts, tokens = [], [], 0
        for chat in chats:
            inputs = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            clock = _Clock()
            output = self._model.generate(**inputs.to(self._model.device), max_new_tokens=self._tokens, do_sample=False, streamer=clock)
            new = output[0, inputs["input_ids"].shape[1] :].tolist()
            new = new[:-1] if new and new[-1] == self._tokenizer.eos_token_id else new
            first.append(clock.first_at - started)
            texts.append(str(self._tokenizer.decode(new, skip_special_tokens=True)))
            tokens += len(new)
        return Round(time.perf_counter() - started, first, tokens, texts)


class _Clock:
    """A streamer of transformers that tells when the first token came: `generate` puts the prompt first, then each token."""

    def __init__(self) -> None:
        self.first_at = 0.0
        self._puts = 0

    def put(self, _value: Any) -> None:
        """Sees the second of them."""
        self._puts += 1
        if self._puts == 2:
            self.first_at = time.perf_counter()

    def end(self) -> None:
        """Nothing to do."""


if __name__ == "__main__":
    main()
