"""The whole export on a tiny model, and what a stranger makes of the downloads in a process without Graft."""

import hashlib
import json
import math
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.export.context import ExportContext
from jobs.export.export import export_run
from jobs.export.parity import compare, logits_of, reference
from jobs.methods.hooks import Hooks
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.models.loading import load_model
from jobs.spec import DataSpec, ExportSpec, MethodSpec, ModelSpec, RunSpec
from jobs.training import fused_lora
from tests.tiny import make_tiny_model, tiny_config, tiny_tokenizer

HELD_OUT = [list(b"the quick brown fox jumps over it"), list(b"a lazy dog sleeps"), list(b"seven of nine")]

# Run with -I in an empty folder: no jobs, no PYTHONPATH, only what a user has installed.
STRANGER = """
import json, sys
import torch
assert "jobs" not in sys.modules
try:
    import jobs
    raise SystemExit("jobs is importable")
except ImportError:
    pass
from transformers import AutoModelForCausalLM, AutoTokenizer
kind, folder, base, dtype, rows = json.loads(sys.argv[1])
if kind == "adapter":
    from peft import PeftModel
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype)), folder)
else:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
tokenizer = AutoTokenizer.from_pretrained(folder)
chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False)
with torch.no_grad():
    logits = [model.eval()(input_ids=torch.tensor([row])).logits[0].float().tolist() for row in rows]
print(json.dumps({"logits": logits, "chat": chat}))
"""


class Recorder:
    """Keeps the events, and measures a model as the run would: here by its loss on the held-out rows."""

    def __init__(self):
        self.events = []
        self.fail_on = None

    def emit(self, kind, /, **data):
        if (kind, data.get("name")) == self.fail_on:
            raise OSError(28, "No space left on device")
        json.dumps(data, allow_nan=False)  # what is emitted must fit into an event
        self.events.append((kind, data))

    def reevaluate(self, model, name):
        losses = [
            torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(row[1:])).item()
            for row, logits in zip(HELD_OUT, logits_of(model, HELD_OUT, "float32"), strict=True)
        ]
        data = {"loss": sum(losses) / len(losses), "exact_match": None, "model": name}
        self.emit("eval", **data)
        return data

    def of(self, kind):
        return [data for found, data in self.events if found == kind]


def tuned_context(tmp_path, method_id, *, merge="original", stored="base", precision="float32", dtype=torch.float32, scale=0.05):
    """A model that differs from its base by a random update, as after a training."""
    base = make_tiny_model(tmp_path / "base" / "secret-place", config=tiny_config(initializer_range=0.15), dtype=dtype)
    method = get_method(method_id)
    settings = method.resolve({"rank": 4} if method.capabilities.adapter else {})
    full = method_id == "full"
    model = load_model(base, precision=precision, trains_base=full, bits=method.base_bits(settings))
    if not full:
        from jobs.methods.lora.apply import apply

        model = apply(model, settings, Setup(seed=0))
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or (full and parameter.ndim == 2):
                parameter.add_(torch.randn_like(parameter) * scale)
    recorder = Recorder()
    context = ExportContext(
        model=model, tokenizer=tiny_tokenizer(), method=method, settings=settings, hooks=Hooks(model),
        base_folder=base, out=tmp_path / "out",
        spec=RunSpec(
            model=ModelSpec(path=str(base), name="acme/Tiny-1", revision="a" * 40, licence="Apache-2.0"),
            data=DataSpec(train="train.jsonl"),
            method=MethodSpec(id=method_id, settings={}), export=ExportSpec(merge=merge, dtype=stored), name="Tickets: v2!", seed=7,
        ),
        results={"base": {"loss": 3.5, "exact_match": 0.125}, "tuned": {"loss": 1.25, "exact_match": 0.75}},
        facts={"data": {"train.jsonl": "f" * 64}, "epochs": 3.0}, held_out=HELD_OUT, precision=precision,
        emit=recorder.emit, reevaluate=recorder.reevaluate,
    )  # fmt: skip
    return context, recorder


def unpack(context, event, target):
    """The artifact's files as a user gets them, each checked against its row: sha256, and the bytes of the zip at its offset."""
    whole = (context.out / event["path"]).read_bytes()
    assert (len(whole), hashlib.sha256(whole).hexdigest()) == (event["bytes"], event["sha256"])
    with zipfile.ZipFile(context.out / event["path"]) as zipped:
        zipped.extractall(target)
    for member in event["files"]:
        stored = whole[member["offset"] : member["offset"] + member["bytes"]]
        assert stored == (target / member["name"]).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == member["sha256"]
    assert {path.name for path in target.iterdir()} == {member["name"] for member in event["files"]}
    return target


def as_a_stranger(tmp_path, kind, folder, base, dtype="float32"):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    request = json.dumps([kind, str(folder), str(base), dtype, HELD_OUT])
    done = subprocess.run([sys.executable, "-I", "-c", STRANGER, request], cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def largest_difference(expected, found):
    return max((ours - torch.tensor(theirs)).abs().max().item() for ours, theirs in zip(expected, found, strict=True))


def test_lora_downloads_load_without_graft_and_answer_as_measured(tmp_path):
    context, recorder = tuned_context(tmp_path, "lora", dtype=torch.bfloat16)
    expected = logits_of(context.model, HELD_OUT, "float32")
    adapter, merged = export_run(context)
    assert recorder.of("artifact") == [adapter, merged]
    assert [event["name"] for event in (adapter, merged)] == ["tickets-v2-adapter.zip", "tickets-v2-merged.zip"]
    assert [event["kind"] for event in (adapter, merged)] == ["adapter", "merged"]
    assert merged["path"] == "artifacts/tickets-v2-merged.zip"
    assert not (context.out / ".export").exists()

    loaded = as_a_stranger(tmp_path, "adapter", unpack(context, adapter, tmp_path / "a"), context.base_folder)
    assert largest_difference(expected, loaded["logits"]) < 1e-4
    assert loaded["chat"] == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"

    loaded = as_a_stranger(tmp_path, "merged", unpack(context, merged, tmp_path / "m"), context.base_folder)
    details = merged["details"]
    assert largest_difference(expected, loaded["logits"]) == pytest.approx(details["merge_max_difference"], abs=1e-5)
    assert 0 < details["merge_max_difference"] < 0.2  # weights rounded to bfloat16, and nothing else
    assert details["top1_agreement"] > 0.9
    assert (details["merge_into"], details["merged"], details["dtype"]) == ("original", "streamed", "float32")
    assert details["stored_dtype"] == "bfloat16"
    assert (details["compared_rows"], details["compared_positions"]) == (3, sum(map(len, HELD_OUT)))
    (measured,) = recorder.of("eval")
    assert (measured["model"], measured["loss"]) == ("merged", details["loss"])


def test_the_card_states_facts_and_no_place_of_this_machine(tmp_path):
    context, _ = tuned_context(tmp_path, "lora")
    adapter, merged = export_run(context)
    folder = unpack(context, adapter, tmp_path / "a")
    card = (folder / "README.md").read_text()
    for fact in (
        "base_model: acme/Tiny-1",
        "license: apache-2.0",
        "library_name: peft",
        "# Tickets: v2!",
        "a" * 40,
        "f" * 64,
        "| `rank` | 4 |",
    ):
        assert fact in card
    assert "| Exact match | 0.125 | 0.75 |" in card
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/Tiny-1", "a" * 40)
    merged_card = (unpack(context, merged, tmp_path / "m") / "README.md").read_text()
    assert "0.75" not in merged_card  # the trained model's figures are not the merged one's
    assert f"{merged['details']['loss']:.6g}" in merged_card
    for path in [*(tmp_path / "a").iterdir(), *(tmp_path / "m").iterdir()]:
        assert b"secret-place" not in path.read_bytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_full_model_loads_without_graft(tmp_path, precision):
    context, recorder = tuned_context(tmp_path, "full", dtype=torch.bfloat16, precision=precision)
    (event,) = export_run(context)
    folder = unpack(context, event, tmp_path / "m")
    assert (event["name"], event["kind"]) == ("tickets-v2-model.zip", "model")
    loaded = as_a_stranger(tmp_path, "model", folder, context.base_folder)
    expected = logits_of(context.model, HELD_OUT, "float32")
    details = event["details"]
    assert details["dtype"] == "float32"
    assert largest_difference(expected, loaded["logits"]) == pytest.approx(details["merge_max_difference"], abs=1e-4)
    assert 0 < details["merge_max_difference"] < 0.5  # weights trained in float32, stored in bfloat16 as the base was
    assert details["top1_agreement"] > 0.9
    base_bytes = sum(path.stat().st_size for path in context.base_folder.glob("*.safetensors"))
    assert sum(member["bytes"] for member in event["files"] if member["name"].endswith(".safetensors")) == pytest.approx(
        base_bytes, rel=0.01
    )
    assert details["stored_dtype"] == "bfloat16"
    (measured,) = recorder.of("eval")
    assert (measured["model"], measured["loss"]) == ("stored", details["loss"])
    card = (folder / "README.md").read_text()
    assert "0.75" not in card  # the trained model's figures are not the stored one's
    assert "| stored_dtype | bfloat16 |" in card


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("dtype", "stored"), [(torch.bfloat16, "float32"), (torch.float32, "base")])
def test_a_full_model_in_float32_is_the_trained_one(tmp_path, precision, dtype, stored):
    context, recorder = tuned_context(tmp_path, "full", dtype=dtype, precision=precision, stored=stored)
    (event,) = export_run(context)
    folder = unpack(context, event, tmp_path / "m")
    weights, trained = load_file(folder / "model.safetensors"), context.model.state_dict()
    assert all(torch.equal(weights[name], value) and value.dtype == torch.float32 for name, value in trained.items())
    details = event["details"]
    assert (details["merge_max_difference"], details["top1_agreement"], details["stored_dtype"]) == (0, 1, "float32")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert recorder.of("eval") == []  # it was measured as `tuned`
    assert "| Exact match | 0.125 | 0.75 |" in (folder / "README.md").read_text()


@pytest.mark.parametrize("stored", ["base", "float32"])
def test_a_full_model_whose_files_have_other_names_is_left_to_transformers(tmp_path, stored):
    context, _ = tuned_context(tmp_path, "full", dtype=torch.bfloat16, stored=stored)
    weights = context.base_folder / "model.safetensors"
    renamed = {name.removeprefix("model."): tensor for name, tensor in load_file(weights).items()}
    save_file(renamed, weights, metadata={"format": "pt"})
    (event,) = export_run(context)
    dtype = {"base": "bfloat16", "float32": "float32"}[stored]
    assert event["details"]["stored_dtype"] == dtype
    found = load_file(unpack(context, event, tmp_path / "m") / "model.safetensors")
    expected = {name: value.to(getattr(torch, dtype)) for name, value in context.model.state_dict().items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) and value.dtype == expected[name].dtype for name, value in found.items())


@pytest.mark.parametrize(("method", "merge"), [("lora", "original"), ("qlora", "dequantised")])
def test_a_merge_in_float32_rounds_nothing(tmp_path, method, merge):
    context, recorder = tuned_context(tmp_path, method, merge=merge, precision="bfloat16", dtype=torch.bfloat16, stored="float32")
    adapter, merged = export_run(context)
    details = merged["details"]
    assert details["merge_max_difference"] < 1e-4
    assert (details["top1_agreement"], details["stored_dtype"], details["dtype"]) == (1, "float32", "float32")
    (measured,) = recorder.of("eval")
    assert measured["loss"] == details["loss"]
    folder = unpack(context, merged, tmp_path / "m")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}
    plain, _ = tuned_context(tmp_path / "plain", method, merge="none", precision="bfloat16", dtype=torch.bfloat16)
    unaffected = {member["name"]: member["sha256"] for member in export_run(plain)[0]["files"]}
    assert {member["name"]: member["sha256"] for member in adapter["files"]} == unaffected


def test_qlora_dequantised_is_faithful_and_original_is_another_model(tmp_path):
    context, recorder = tuned_context(tmp_path, "qlora", merge="both", precision="bfloat16", dtype=torch.bfloat16)
    adapter, original, dequantised = export_run(context)
    names = ["tickets-v2-adapter.zip", "tickets-v2-merged-original.zip", "tickets-v2-merged-dequantised.zip"]
    assert [event["name"] for event in (adapter, original, dequantised)] == names
    assert original["details"]["merge_into"] == "original"
    assert dequantised["details"]["merge_into"] == "dequantised"
    assert dequantised["details"]["mean_kl"] < 0.1 * original["details"]["mean_kl"]
    assert dequantised["details"]["top1_agreement"] > original["details"]["top1_agreement"]
    assert [data["model"] for data in recorder.of("eval")] == ["merged", "dequantised"]
    loaded = as_a_stranger(tmp_path, "merged", unpack(context, dequantised, tmp_path / "d"), context.base_folder)
    expected = logits_of(context.model, HELD_OUT, "float32")
    assert largest_difference(expected, loaded["logits"]) == pytest.approx(dequantised["details"]["merge_max_difference"], abs=1e-4)
    assert {event["details"]["dtype"] for event in (original, dequantised)} == {"float32"}


def test_without_memory_for_float32_the_comparison_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.export.parity._room_for_float32", lambda model: False)
    context, _ = tuned_context(tmp_path, "qlora", merge="dequantised", precision="bfloat16", dtype=torch.bfloat16)
    _, dequantised = export_run(context)
    loaded = as_a_stranger(tmp_path, "merged", unpack(context, dequantised, tmp_path / "d"), context.base_folder, "bfloat16")
    expected = logits_of(context.model, HELD_OUT, "bfloat16")
    assert dequantised["details"]["dtype"] == "bfloat16"
    assert largest_difference(expected, loaded["logits"]) == pytest.approx(dequantised["details"]["merge_max_difference"], rel=1e-3)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_widening_leaves_the_model_as_it_was(tmp_path, method):
    context, _ = tuned_context(tmp_path, method, precision="bfloat16", dtype=torch.bfloat16)
    state = {name: value.clone() for name, value in context.model.state_dict().items()}
    before = logits_of(context.model, HELD_OUT, "bfloat16")
    wide = logits_of(context.model, HELD_OUT, "float32")
    assert 0 < largest_difference(before, [logits.tolist() for logits in wide]) < 1
    assert all(torch.equal(value, state[name]) and value.dtype == state[name].dtype for name, value in context.model.state_dict().items())
    assert largest_difference(before, [logits.tolist() for logits in logits_of(context.model, HELD_OUT, "bfloat16")]) == 0


def test_one_block_is_widened_at_a_time_and_its_weights_are_the_same_tensors_afterwards(tmp_path):
    context, _ = tuned_context(tmp_path, "lora", precision="bfloat16", dtype=torch.bfloat16)
    joined, weights = fused_lora.fuse(context.model, lambda: logits_of(context.model, HELD_OUT[:1], "bfloat16"), packed_weights=True), []
    places = {name: weight.data_ptr() for name, weight in context.model.named_parameters()}
    blocks = context.model.get_base_model().model.layers

    def note(layer, _given):
        weights.append([block.mlp.up_proj.base_layer.weight.dtype for block in blocks])

    hooks = [block.mlp.register_forward_pre_hook(note) for block in blocks]
    logits_of(context.model, HELD_OUT[:1], "float32")
    for hook in hooks:
        hook.remove()
    assert weights == [[torch.float32, torch.bfloat16], [torch.bfloat16, torch.float32]]
    assert {name: weight.data_ptr() for name, weight in context.model.named_parameters()} == places
    views = {base.weight.untyped_storage().data_ptr() for group in joined.groups for base in group.bases}
    assert views == {group.joined.untyped_storage().data_ptr() for group in joined.groups}


def test_an_error_on_the_way_leaves_no_weight_widened(tmp_path):
    context, _ = tuned_context(tmp_path, "lora", precision="bfloat16", dtype=torch.bfloat16)
    before = {name: weight.dtype for name, weight in context.model.named_parameters()}
    hook = context.model.get_base_model().model.layers[1].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logits_of(context.model, HELD_OUT[:1], "float32")
    hook.remove()
    assert {name: weight.dtype for name, weight in context.model.named_parameters()} == before
    assert set(before.values()) == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize(("method", "merge", "names"), [("lora", "none", ["adapter"]), ("lora", "both", ["adapter", "merged"])])
def test_what_is_made_follows_the_spec(tmp_path, method, merge, names):
    context, _ = tuned_context(tmp_path, method, merge=merge)
    assert [event["name"] for event in export_run(context)] == [f"tickets-v2-{name}.zip" for name in names]


def test_a_merge_that_went_wrong_is_not_offered_and_the_adapter_is(tmp_path, monkeypatch):
    context, recorder = tuned_context(tmp_path, "lora")
    monkeypatch.setattr("jobs.export.updates.lora.scale", lambda adapter, module, rank: -300.0)
    (adapter,) = export_run(context)
    assert adapter["kind"] == "adapter"
    (warning,) = recorder.of("warning")
    assert warning["code"] == "merge_refused"
    assert "likeliest token" in warning["message"]
    assert [path.name for path in (context.out / "artifacts").iterdir()] == ["tickets-v2-adapter.zip"]


def test_infinite_logits_are_refused(tmp_path):
    context, _ = tuned_context(tmp_path, "lora")
    trained = reference(context.model, HELD_OUT, "float32")
    broken = replace(trained, logits=[*trained.logits[:-1], trained.logits[-1].clone().fill_(math.nan)])
    assert compare(context.model, trained).max_difference == 0
    assert compare(context.model, broken).max_difference == math.inf


def test_a_full_disk_leaves_nothing_half_made(tmp_path):
    context, recorder = tuned_context(tmp_path, "lora")
    recorder.fail_on = ("phase", "merging")
    with pytest.raises(OSError, match="No space left"):
        export_run(context)
    assert [path.name for path in context.out.iterdir()] == ["artifacts"]
    assert [path.name for path in (context.out / "artifacts").iterdir()] == ["tickets-v2-adapter.zip"]


def test_phases_tell_the_progress(tmp_path):
    context, recorder = tuned_context(tmp_path, "lora")
    export_run(context)
    phases = recorder.of("phase")
    assert {(phase["name"], phase["unit"]) for phase in phases} == {("saving", "bytes"), ("merging", "tensors")}
    merging = [phase for phase in phases if phase["name"] == "merging"]
    assert merging[-1]["done"] == merging[-1]["total"] == 2 * 9 + 3  # two blocks of nine tensors, two embeddings, the last norm
