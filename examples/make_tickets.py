"""Makes the sample data: support tickets in English, German and Spanish, each with its intent.

`python examples/make_tickets.py [FOLDER]` writes the same rows every time (how gzip packs them may differ by build). The test file is
built of other sentences than the training file, so that accuracy on it is not memory. The names of the intents stand in no prompt:
only training can teach them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.ticket_phrases import DATES, FRAMES, ITEMS, TEST, TRAIN, Phrases

SEED = 20_260
TRAIN_ROWS, TEST_ROWS, SMALL_ROWS = 600, 104, 60
# Half of the tickets are English.
LANGUAGES = ("en", "de", "en", "es")
TYPO_SHARE = 0.25
SYSTEM = "Name the intent of the support ticket."


@dataclass(frozen=True)
class Ticket:
    """One ticket and its intent."""

    text: str
    intent: str

    def chat(self) -> dict[str, Any]:
        """The ticket as a row of chat messages."""
        turns = (("system", SYSTEM), ("user", self.text), ("assistant", self.intent))
        return {"messages": [{"role": role, "content": content} for role, content in turns], "label": self.intent}


def tickets(rng: random.Random, phrases: Phrases, split: str, count: int) -> list[Ticket]:
    """`count` different tickets, as many of each intent, in random order."""
    intents = sorted(phrases)
    made: dict[str, Ticket] = {}
    for number, intent in enumerate(cycle(intents)):
        if len(made) == count:
            break
        language = LANGUAGES[number // len(intents) % len(LANGUAGES)]
        ticket = next(ticket for ticket in _attempts(rng, phrases, split, intent, language) if ticket.text not in made)
        made[ticket.text] = ticket
    rows = list(made.values())
    rng.shuffle(rows)
    return rows


def _attempts(rng: random.Random, phrases: Phrases, split: str, intent: str, language: str) -> Iterator[Ticket]:
    openings, closings = FRAMES[split][language]
    while True:
        order = f"{rng.choice('ABK')}{rng.randrange(1000, 9999)}"
        body = rng.choice(phrases[intent][language]).format(item=rng.choice(ITEMS[language]), order=order, date=rng.choice(DATES[language]))
        opening = rng.choice(openings)
        text = " ".join(part for part in (opening, body if opening else body[0].upper() + body[1:], rng.choice(closings)) if part)
        yield Ticket(_with_typo(rng, text) if rng.random() < TYPO_SHARE else text, intent)


def _with_typo(rng: random.Random, text: str) -> str:
    """One slip of the fingers: two letters swapped, one left out, or one doubled."""
    places = [place for place in range(1, len(text) - 1) if text[place : place + 2].isalpha() and text[place - 1].isalpha()]
    place = rng.choice(places)
    swapped = text[place + 1] + text[place]
    return text[:place] + rng.choice((swapped, text[place + 1], text[place] + text[place : place + 2])) + text[place + 2 :]


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _table(rows: list[Ticket]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("text", "label"))
    writer.writerows((row.text, row.intent) for row in rows)
    return text.getvalue().encode()


def _other_layouts(rows: list[Ticket]) -> dict[str, bytes]:
    alpaca = [{"instruction": SYSTEM, "input": row.text, "output": row.intent} for row in rows]
    turns = [(("system", SYSTEM), ("human", row.text), ("gpt", row.intent)) for row in rows]
    pairs = [{"prompt": f"{row.text}\nIntent:", "completion": f" {row.intent}"} for row in rows]
    return {
        "tickets.csv": _table(rows),
        "alpaca.json": json.dumps(alpaca, ensure_ascii=False, indent=1).encode() + b"\n",
        "sharegpt.jsonl": _jsonl([{"conversations": [{"from": name, "value": value} for name, value in one]} for one in turns]),
        "prompt_completion.jsonl.gz": gzip.compress(_jsonl(pairs), mtime=0),
        "text.txt": "".join(f"{row.text} [{row.intent}]\n" for row in rows).encode(),
    }


def make_files() -> dict[str, bytes]:
    """Every file by its name within the folder."""
    rng = random.Random(SEED)  # noqa: S311 - sample data, no secret
    train = tickets(rng, TRAIN, "train", TRAIN_ROWS)
    test = tickets(rng, TEST, "test", TEST_ROWS)
    files = {"train.jsonl": _jsonl([row.chat() for row in train]), "test.jsonl": _jsonl([row.chat() for row in test])}
    return files | _other_layouts(list(islice(train, SMALL_ROWS)))


def main(folder: Path) -> None:
    """Writes the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in make_files().items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "tickets")
