"""What the probe says, without torch where there is no GPU; and what a device refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from jobs.device import Device, choose_precision
from jobs.errors import UserError
from jobs.methods.registry import get_method
from jobs.models.device import memory, probe

CPU = Device(kind="cpu", name="a CPU", memory_bytes=1, threads=1, bfloat16=False, count=1)
OLD_GPU = Device(kind="cuda", name="an old GPU", memory_bytes=1, threads=1, bfloat16=False, count=1)


def test_the_command_says_it_as_json():
    answer = subprocess.run([sys.executable, "-m", "jobs", "device", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout)
    assert set(found) == {"kind", "name", "memory_bytes", "threads", "bfloat16", "count"}
    assert found["threads"] == len(os.sched_getaffinity(0))
    assert found["memory_bytes"] > 0


@pytest.mark.skipif(probe()["kind"] == "cuda", reason="a GPU is asked through torch")
def test_on_a_cpu_the_probe_needs_no_torch():
    program = "import sys; from jobs.models.device import probe; found = probe(); assert 'torch' not in sys.modules; print(found['kind'])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "cpu\n"


@pytest.mark.parametrize(
    ("asked", "device", "chosen"),
    [
        ("auto", CPU, "float32"),
        ("auto", {**CPU, "bfloat16": True}, "bfloat16"),
        ("bfloat16", CPU, "bfloat16"),
        ("float32", {**CPU, "bfloat16": True}, "float32"),
        ("auto", OLD_GPU, "float32"),
        ("float16", OLD_GPU, "float16"),
    ],
)
def test_precision(asked, device, chosen):
    assert choose_precision(asked, device) == chosen


@pytest.mark.parametrize(("asked", "device"), [("bfloat16", OLD_GPU), ("float16", CPU)])
def test_a_device_refuses_what_it_has_no_arithmetic_for(asked, device):
    with pytest.raises(UserError) as refused:
        choose_precision(asked, device)
    assert (refused.value.code, refused.value.where) == ("device_cannot", {"field": "training.precision"})


def test_a_method_for_gpus_is_refused_on_a_cpu():
    lora = get_method("lora")
    lora.check_device(CPU)
    with pytest.raises(UserError, match="needs cuda"):
        replace(lora, capabilities=replace(lora.capabilities, devices=("cuda",))).check_device(CPU)


def test_memory_of_this_process():
    resident = psutil.Process().memory_info().rss
    assert memory("cpu")["resident_bytes"] == pytest.approx(resident, rel=0.1)
