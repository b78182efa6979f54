"""Merging a LoRA adapter into its base: `python -m jobs merge` against peft's `merge_and_unload` + `save_pretrained`.

Each run is a process of its own, in turn, from the start of the interpreter to the files in the folder; the base's files are in the page
cache, for both. `python -m jobs merge` forces its files to the disk and copies the tokenizer too; peft's process does neither, so
its time is given without and with the time that it then takes to force its files to the disk. Memory is the process's peak resident set
(`VmHWM`, mapped file pages included) and the highest anonymous part of it (`RssAnon`), asked of the kernel every 10 ms; not `ru_maxrss`,
which begins with what this process held when it started the other. The results are compared byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers import ROOT

WORK = ROOT / "var" / "bench" / "merge"
SAMPLE = Path(os.environ.get("GRAFT_SAMPLE_MODEL") or ROOT / "var" / "sample-model")
# The shape of TinyLlama-1.1B (Zhang et al. 2024, arXiv:2401.02385).
LARGE = {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
    "num_key_value_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip
LARGE_SHARD_BYTES = 600_000_000
RANK = 16
CASES = ("SmolLM2-135M", "random Llama 1.1B")
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Run:
    """One merge: seconds of the process, seconds to force its files to the disk afterwards, peak bytes."""

    seconds: float
    sync_seconds: float
    rss_bytes: int
    anonymous_bytes: int


def main() -> int:
    """Runs the command: prints a table and writes `merge.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--prepare", action="store_true", help="make the models and adapters, and stop")
    parser.add_argument("--make", nargs=2, metavar=("CASE", "DIR"), help=argparse.SUPPRESS)
    parser.add_argument("--peft", nargs=3, metavar=("BASE", "ADAPTER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make[0], Path(arguments.make[1]))
    elif arguments.peft:
        merge_with_peft(*map(Path, arguments.peft))
    else:
        cases = [arguments.only] if arguments.only else CASES
        for case in cases:
            prepare(case)
        if not arguments.prepare:
            results = [measure(case, arguments.runs) for case in cases]
            (WORK.parent / "merge.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            for case in cases:
                shutil.rmtree(folders(case)[1].parent)
    return 0


def folders(case: str) -> tuple[Path, Path]:
    """Base and adapter of a case."""
    place = WORK / case.replace(" ", "-")
    return SAMPLE if case == CASES[0] else place / "base", place / "adapter"


def prepare(case: str) -> None:
    """Makes what a case needs, unless it is there; in a process of its own, whose memory goes with it."""
    base, adapter = folders(case)
    if not adapter.exists():
        shutil.rmtree(adapter.parent, ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.merge", "--make", case, str(adapter.parent)]
        subprocess.run(command, cwd=ROOT, check=True)
    if not base.exists():
        raise SystemExit(f"There is no model at {base}: make setup")


def make(case: str, place: Path) -> None:
    """The random model where the case has one, and a LoRA adapter on all linear layers with random matrices."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    if case == CASES[1]:
        model = AutoModelForCausalLM.from_config(LlamaConfig(**LARGE), dtype=torch.bfloat16)
        model.save_pretrained(place / "base", max_shard_size=LARGE_SHARD_BYTES)
    else:
        model = AutoModelForCausalLM.from_pretrained(SAMPLE, dtype="auto", local_files_only=True)
    tuned = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
    tuned.save_pretrained(str(place / "adapter"))


def merge_with_peft(base: Path, adapter: Path, out: Path) -> None:
    """What everybody does."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(out, max_shard_size=LARGE_SHARD_BYTES)


def measure(case: str, runs: int) -> dict[str, Any]:
    """Both ways in turn, `runs` times; prints and returns the medians and their ratios."""
    base, adapter = folders(case)
    outs = {"graft": WORK / "out-graft", "peft": WORK / "out-peft"}
    chosen = ["--base", str(base), "--adapter", str(adapter), "--out", str(outs["graft"]), "--shard-bytes", str(LARGE_SHARD_BYTES)]
    commands = {
        "graft": ["-m", "jobs", "merge", *chosen],
        "peft": ["-m", "benchmarks.merge", "--peft", str(base), str(adapter), str(outs["peft"])],
    }
    found: dict[str, list[Run]] = {"graft": [], "peft": []}
    for _ in range(runs):
        for way, command in commands.items():
            shutil.rmtree(outs[way], ignore_errors=True)
            os.sync()
            found[way].append(run(command, outs[way]))
    equal = same_bytes(outs["graft"], outs["peft"])
    for out in outs.values():
        shutil.rmtree(out)
    result = {"case": case, "bitwise_equal": equal, **summary(found), "runs": {way: [asdict(one) for one in found[way]] for way in found}}
    show(result)
    return result


def run(command: list[str], out: Path) -> Run:
    """One process, watched until it ends; then its files are forced to the disk."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = anonymous = 0
    while child.poll() is None:
        now = memory(child.pid)
        peak, anonymous = max(peak, now.get("VmHWM", 0)), max(anonymous, now.get("RssAnon", 0))
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - started
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {child.returncode}")
    started = time.perf_counter()
    for path in out.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return Run(seconds, time.perf_counter() - started, peak, anonymous)


def memory(process: int) -> dict[str, int]:
    """What the kernel says of a process's memory now, in bytes; nothing where it has just ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.split() for line in status.splitlines() if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields}


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same tensors, byte for byte, however they are spread over files."""
    import numpy as np

    from jobs.export.shards import StoredTensor, read_checkpoint

    def content(tensor: StoredTensor) -> bytes:
        raw = np.empty(tensor.size, np.uint8)
        with tensor.reader() as read:
            read(0, raw)
        return raw.tobytes()

    left, right = ({tensor.name: tensor for tensor in read_checkpoint(folder)} for folder in (one, other))
    return left.keys() == right.keys() and all(
        (left[name].dtype, left[name].shape) == (right[name].dtype, right[name].shape) and content(left[name]) == content(right[name])
        for name in left
    )


def summary(found: dict[str, list[Run]]) -> dict[str, Any]:
    """Medians, and the ratios that are quoted."""

    def middle(way: str, name: str) -> float:
        return float(median(getattr(one, name) for one in found[way]))

    synced = median(one.seconds + one.sync_seconds for one in found["peft"])
    return {
        "seconds": {way: round(middle(way, "seconds"), 3) for way in found},
        "peft_seconds_on_disk": round(synced, 3),
        "rss_bytes": {way: int(middle(way, "rss_bytes")) for way in found},
        "anonymous_bytes": {way: int(middle(way, "anonymous_bytes")) for way in found},
        "speed_ratio": round(middle("peft", "seconds") / middle("graft", "seconds"), 2),
        "speed_ratio_on_disk": round(synced / middle("graft", "seconds"), 2),
        "rss_ratio": round(middle("graft", "rss_bytes") / middle("peft", "rss_bytes"), 3),
    }


def show(result: dict[str, Any]) -> None:
    """Prints a case."""
    print(f"{result['case']} (LoRA r {RANK}, all linear layers; {len(result['runs']['graft'])} runs each, medians)")
    for way in ("graft", "peft"):
        rss, anonymous = (result[name][way] / 1e6 for name in ("rss_bytes", "anonymous_bytes"))
        print(f"  {way:6} {result['seconds'][way]:8.2f} s   peak RSS {rss:8.0f} MB   anonymous {anonymous:8.0f} MB")
    print(f"  peft's files forced to the disk: {result['peft_seconds_on_disk']:.2f} s (graft's are)")
    print(f"  speed_ratio {result['speed_ratio']}   speed_ratio_on_disk {result['speed_ratio_on_disk']}   rss_ratio {result['rss_ratio']}")
    print(f"  bitwise equal: {result['bitwise_equal']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
