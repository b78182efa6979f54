"""Downloads read in a process of its own: as a stranger reads them, with plain `peft` and no Graft, or as Graft reads them afresh.

The process serves many readings, since imports cost seconds. A line of JSON in is one request, a line of JSON out its answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch

from jobs.models.heads import Head

# Run with -I: nothing but what is installed. `graft` is the folder of the repository, empty for a stranger.
SERVER = """
import json, logging, sys, traceback
graft = sys.argv[1]
if graft:
    sys.path.insert(0, graft)
else:
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "jobs":
                raise ImportError("there is no Graft here")
    sys.meta_path.insert(0, Blocked())
out, sys.stdout = sys.stdout, sys.stderr
import torch, transformers
torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
def read(request):
    head, base, folder = getattr(transformers, request["auto"]), request["base"], request["folder"]
    options = {"dtype": torch.float32}
    if request["bits"] < 16:
        nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        nf4 |= {"bnb_4bit_compute_dtype": torch.float32}
        kind = {**(nf4 if request["bits"] == 4 else {"load_in_8bit": True}), "llm_int8_skip_modules": request["kept"]}
        options |= {"quantization_config": transformers.BitsAndBytesConfig(**kind), "device_map": {"": "cpu"}}
    if not request["adapter"]:
        return head.from_pretrained(folder, **options)
    model = head.from_pretrained(base, **request["config"], **options)
    for layer in model.modules():  # bitsandbytes' kernel for inference rounds to bfloat16, whatever the adapter
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    from peft import PeftModel
    if graft:
        from jobs.methods.registry import know_tuners
        know_tuners()
    return PeftModel.from_pretrained(model, folder)

for line in sys.stdin:
    request = json.loads(line)
    try:
        torch.manual_seed(len(line))
        model = read(request).eval()
        for layer in model.modules():  # on a CPU bitsandbytes rounds the inputs of 8-bit layers unless they train; Graft never does
            if hasattr(getattr(layer, "state", None), "SCB"):
                layer.training = True
        with torch.no_grad():
            found = [model(**{name: torch.tensor(value) for name, value in inputs.items()}) for inputs in request["inputs"]]
        answer = {"logits": [[output[name].float().tolist() for name in output if name.endswith("logits")] for output in found]}
    except Exception as failure:
        answer = {"fault": f"{type(failure).__name__}: {failure}", "trace": traceback.format_exc()}
    assert graft or "jobs" not in sys.modules
    out.write(json.dumps(answer) + "\\n")
    out.flush()
"""


Inputs = Mapping[str, torch.Tensor]


class ReadFault(Exception):
    """The download could not be read, in the words of who tried."""


class Outside:
    """The process; started by the first reading."""

    def __init__(self, *, graft: bool) -> None:
        """`graft`: whether Graft is installed there."""
        self.graft = graft
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Outside:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._process:
            self._process.stdin.close()  # type: ignore[union-attr]
            self._process.wait(30)
            self._process.stdout.close()  # type: ignore[union-attr]

    def logits(
        self, folder: Path, base: Path, inputs: Sequence[Inputs], *, head: Head, bits: int, adapter: bool
    ) -> list[torch.Tensor]:  # fmt: skip
        """What the model of `folder` (an adapter upon `base` with a task's head, or a model) makes of each batch of inputs: all of its
        outputs that are logits. Raises `ReadFault`.
        """
        request = {
            "folder": str(folder), "base": str(base), "auto": head.auto, "config": dict(head.config), "bits": bits,
            "kept": head.unquantised, "adapter": adapter,
            "inputs": [{name: tensor.tolist() for name, tensor in each.items()} for each in inputs],
        }  # fmt: skip
        process = self._started()
        process.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        line = process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise ReadFault(f"the reading process ended with {process.wait(30)}")
        answer = json.loads(line)
        if "fault" in answer:
            raise ReadFault(answer["fault"])
        return [torch.tensor(found) for outputs in answer["logits"] for found in outputs]

    def _started(self) -> subprocess.Popen[str]:
        if not self._process:
            graft = str(Path(__file__).parents[2]) if self.graft else ""
            command = [sys.executable, "-I", "-W", "ignore", "-c", SERVER, graft]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        return self._process
