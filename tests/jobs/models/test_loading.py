"""Bases come from safetensors in a local folder, in the right type, and 4-bit ones keep their gradients after an evaluation."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import Gemma2Config

from jobs.errors import UserError
from jobs.methods.lora.apply import apply
from jobs.methods.setup import Setup
from jobs.models.loading import load_model, load_tokenizer
from tests.tiny import CHATML, VOCABULARY, make_tiny_model, tiny_config

LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"), config=tiny_config(initializer_range=0.15), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("precision", "trains_base", "dtype"),
    [("float32", False, torch.float32), ("bfloat16", False, torch.bfloat16), ("bfloat16", True, torch.float32)],
)
def test_trained_weights_are_float32_whatever_the_precision(precision, trains_base, dtype, folder):
    model = load_model(folder, precision=precision, trains_base=trains_base)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.config._attn_implementation == "sdpa"
    assert not model.training


def test_soft_capped_scores_need_the_eager_form(tmp_path):
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    make_tiny_model(tmp_path, config=Gemma2Config(vocab_size=VOCABULARY, head_dim=16, **shape))
    assert load_model(tmp_path, precision="float32", trains_base=False).config._attn_implementation == "eager"


def test_pickled_weights_are_refused(tmp_path, folder):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError) as refused:
        load_model(tmp_path, precision="float32", trains_base=False)
    assert refused.value.code == "model_unusable"


def test_an_absent_model_is_named(tmp_path):
    with pytest.raises(UserError, match="no model at"):
        load_model(tmp_path / "absent", precision="float32", trains_base=False)


def test_code_of_the_model_is_never_run(tmp_path, folder):
    make_tiny_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "their_own", "auto_map": {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError):
        load_model(tmp_path, precision="float32", trains_base=False)
    assert not (tmp_path / "ran").exists()


def test_a_chat_template_is_the_tokenizer_s_own_or_none(tmp_path):
    make_tiny_model(tmp_path)
    assert load_tokenizer(tmp_path).chat_template == CHATML
    (tmp_path / "chat_template.jinja").unlink()
    assert load_tokenizer(tmp_path).chat_template is None


def test_a_tokenizer_of_an_absent_model_is_named(tmp_path):
    with pytest.raises(UserError, match="no model at"):
        load_tokenizer(tmp_path / "absent")


def test_a_4_bit_base_keeps_its_gradients_after_an_evaluation(folder):
    """Without the switch, bitsandbytes re-packs the weights on a CPU with AVX512-BF16, and the second gradient is a wrong one."""
    ids = torch.randint(VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))

    def gradients(*, evaluation: bool) -> torch.Tensor:
        model = apply(load_model(folder, precision="bfloat16", trains_base=False, bits=4), LORA, Setup(seed=0))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # B is zero at first, and with it the gradient of A
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        if evaluation:
            model.eval()
            with torch.no_grad():
                model(input_ids=ids)
        model.train()
        model(input_ids=ids, labels=ids).loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])

    plain = gradients(evaluation=False)
    assert float(plain.norm()) > 0
    assert torch.equal(plain, gradients(evaluation=True))


def test_lora_is_the_base_at_first_and_its_draw_hangs_on_the_seed(folder):
    ids = torch.arange(10)[None]
    with torch.no_grad():
        expected = load_model(folder, precision="float32", trains_base=False)(input_ids=ids).logits
        drawn = []
        for seed in (0, 0, 1):
            model = apply(load_model(folder, precision="float32", trains_base=False), LORA, Setup(seed=seed))
            assert torch.equal(model.eval()(input_ids=ids).logits, expected)
            trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
            assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
            drawn.append(torch.cat([parameter.flatten() for parameter in trained.values()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_attention_only_reaches_attention_alone(folder):
    model = apply(load_model(folder, precision="float32", trains_base=False), {**LORA, "targets": "attention"}, Setup(seed=0))
    names = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}
