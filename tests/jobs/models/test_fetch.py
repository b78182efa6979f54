"""`python -m jobs fetch` against a hub on loopback, in a process of its own as the site starts it."""

import json
import os
import subprocess
import sys

import pytest

from jobs.events import Event
from jobs.models.origin import Origin, read_origin
from tests.jobs.models.hub import Hub, serve
from tests.tiny import make_tiny_model, tiny_config

NAME = "acme/tiny"


@pytest.fixture
def model(tmp_path):
    """A repository as they are: the model, and much that is not wanted."""
    folder = make_tiny_model(tmp_path / "repository", shard_bytes=150_000)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "LICENSE").write_text("Apache License")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04pickled" * 3000)
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')")
    return folder


def fetch(hub, tmp_path, *arguments, repository=NAME, environment=()):
    command = [sys.executable, "-m", "jobs", "fetch", repository, "--out", str(tmp_path / "models" / "m"), "--endpoint", hub.url, "--json"]
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "HOME") if key in os.environ}
    env = {**kept, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf-home"), **dict(environment)}
    done = subprocess.run([*command, *arguments], env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    error = json.loads(done.stderr.splitlines()[-1])["error"] if done.returncode else None
    return done.returncode, done.stdout.splitlines(), error


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_model_comes_pinned_whole_and_without_what_it_does_not_need(model, tmp_path):
    with serve(Hub({NAME: model})) as hub:
        code, lines, _ = fetch(hub, tmp_path, "--revision", "v1.0")
    assert code == 0
    out = tmp_path / "models" / "m"
    unwanted = {"README.md", "pytorch_model.bin", "modeling_evil.py"}
    assert names(out) == (names(model) - unwanted) | {"graft.json"}
    for path in out.iterdir():
        assert path.name == "graft.json" or path.read_bytes() == (model / path.name).read_bytes()
    assert read_origin(out) == Origin(NAME, hub.commit(NAME), "apache-2.0", f"{hub.url}/{NAME}")
    assert names(out.parent) == {"m"}
    asked = {path for _, path, _ in hub.requests}
    assert not any(name in path for path in asked for name in unwanted)
    assert all(f"/resolve/{hub.commit(NAME)}/" in path for path in asked if "/resolve/" in path)

    events = [Event.from_line(line) for line in lines[:-1]]
    total = sum(path.stat().st_size for path in out.iterdir() if path.name != "graft.json")
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {event.kind for event in events} == {"phase"}
    assert events[-1].data == {"name": "downloading", "done": total, "total": total, "unit": "bytes"}
    done = [event.data["done"] for event in events]
    assert done == sorted(done)
    result = json.loads(lines[-1])["model"]
    assert (result["name"], result["revision"], result["layers"]) == (NAME, hub.commit(NAME), 2)


def test_a_download_that_breaks_off_is_resumed_where_it_stopped(tmp_path):
    # The client writes in chunks of 10 MiB, so the file must be larger for there to be something to resume.
    model = make_tiny_model(tmp_path / "repository", config=tiny_config(intermediate_size=16_384))
    with serve(Hub({NAME: model}, cut=1)) as hub:
        code, _, _ = fetch(hub, tmp_path)
    assert code == 0
    weights = f"/{NAME}/resolve/{hub.commit(NAME)}/model.safetensors"
    assert [(path, wanted) for method, path, wanted in hub.requests if wanted] == [(weights, f"bytes={10 * 2**20}-")]
    assert (tmp_path / "models" / "m" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_a_file_that_is_not_what_the_hub_said_is_not_kept(model, tmp_path):
    shard = next(model.glob("model-00001-*"))
    with serve(Hub({NAME: model}, lie_about=shard.name)) as hub:
        code, _, error = fetch(hub, tmp_path)
    assert (code, error["code"]) == (78, "download")
    assert f"{shard.name} is not what the hub says" in error["message"]
    assert list((tmp_path / "models").iterdir()) == []


def test_an_unknown_repository_is_said_to_be_unknown(model, tmp_path):
    with serve(Hub({NAME: model})) as hub:
        code, _, error = fetch(hub, tmp_path, repository="acme/nothing")
        assert (code, error["code"]) == (78, "download")
        assert "there is no model 'acme/nothing', or it is private" in error["message"]
        code, _, error = fetch(hub, tmp_path, "--revision", "v9")
        assert (code, error["message"]) == (78, f"The download failed: {NAME} has no such revision.")
        code, _, error = fetch(hub, tmp_path, repository="../../etc")
        assert (code, error["code"]) == (78, "download")
    assert not (tmp_path / "models").exists()


def test_a_repository_of_pickles_is_refused_before_a_byte_of_it(model, tmp_path):
    for path in [*model.glob("*.safetensors"), *model.glob("*.index.json")]:
        path.unlink()
    with serve(Hub({NAME: model})) as hub:
        code, _, error = fetch(hub, tmp_path)
    assert (code, error["code"]) == (78, "model_unusable")
    assert "no weights in safetensors" in error["message"]
    assert not any("/resolve/" in path for _, path, _ in hub.requests)
    assert not (tmp_path / "models").exists()


def test_a_model_that_would_run_code_is_refused_and_removed(model, tmp_path):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}))
    with serve(Hub({NAME: model})) as hub:
        code, _, error = fetch(hub, tmp_path)
    assert (code, error["code"]) == (78, "model_unusable")
    assert "auto_map" in error["message"]
    assert list((tmp_path / "models").iterdir()) == []


def test_a_private_model_needs_the_token_of_the_environment(model, tmp_path):
    with serve(Hub({NAME: model}, private=frozenset({NAME}), token="hf_secret")) as hub:
        code, _, error = fetch(hub, tmp_path)
        assert (code, error["code"]) == (78, "download")
        code, lines, _ = fetch(hub, tmp_path, environment={"HF_TOKEN": "hf_secret"}.items())
    assert code == 0
    assert "hf_secret" not in "".join(lines)


def test_no_hub_is_an_error_of_the_users_not_a_traceback(tmp_path):
    with serve(Hub({})) as hub:
        pass
    code, _, error = fetch(hub, tmp_path)
    assert (code, error["code"]) == (78, "hub_unreachable")
    assert hub.url in error["message"]
    assert "from a folder or by upload" in error["remedy"]
