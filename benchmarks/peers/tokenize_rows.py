"""`datasets.map` and the tokenizer's chat template, row by row or in batches. Runs in the peer's own environment."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any


def digest_of(rows: Iterable[tuple[list[int], list[bool]]]) -> str:
    """A SHA-256 over ids and marks."""
    digest = hashlib.sha256()
    for ids, trained in rows:
        digest.update(json.dumps([ids, [int(one) for one in trained]]).encode())
    return digest.hexdigest()


def main() -> None:
    """Prints how long the rows of the file took, and a digest of them. The last message of each chat is the answer."""
    path, model, way = sys.argv[1:]
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    def marked(whole: list[int], prompt: list[int]) -> list[int]:
        # The template ends a turn with a line break, which nobody wants to learn.
        end = len(whole) - 1 if tokenizer.decode(whole[-1:]) == "\n" else len(whole)
        return [int(len(prompt) <= place < end) for place in range(len(whole))]

    def each(row: dict[str, Any]) -> dict[str, Any]:
        whole = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
        prompt = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        return {"input_ids": whole, "trained": marked(whole, prompt)}

    def batched(rows: dict[str, Any]) -> dict[str, Any]:
        chats = rows["messages"]
        prompts = [chat[:-1] for chat in chats]
        whole = tokenizer.apply_chat_template(chats, return_dict=True)["input_ids"]
        before = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, return_dict=True)["input_ids"]
        return {"input_ids": whole, "trained": [marked(ids, prompt) for ids, prompt in zip(whole, before, strict=True)]}

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        rows = load_dataset("json", data_files=path, split="train", cache_dir=folder)
        rows = rows.map(batched if way == "batched" else each, batched=way == "batched", remove_columns=rows.column_names)
        seconds = time.perf_counter() - started
        pairs = [(row["input_ids"], row["trained"]) for row in rows]
    print(json.dumps({"seconds": seconds, "rows": len(pairs), "tokens": sum(len(ids) for ids, _ in pairs), "digest": digest_of(pairs)}))


if __name__ == "__main__":
    main()
