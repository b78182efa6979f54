"""The images and compose files, as far as they can be checked without an engine: that they agree with the program they run."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.commands import warm
from tests.settings_names import settings_names
from webapp.operate.up.commands import site_processes
from webapp.runs.environment import child_environment
from webapp.settings.env import ENV

PROJECT = Path(__file__).resolve().parents[2]
DOCKER = PROJECT / "docker"
COMPOSE_FILES = sorted(DOCKER.glob("compose*.yml"))
DOCKERFILE = (DOCKER / "Dockerfile").read_text()


def compose(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def services() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path.name, name, body) for path in COMPOSE_FILES for name, body in compose(path)["services"].items()]


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", DOCKERFILE)
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith(("#", " ")))
    return [(word, rest) for word, rest in pairs]


def stages() -> list[str]:
    return [rest.split(" AS ")[1] for word, rest in instructions() if word == "FROM"]


def test_there_are_compose_files_for_cpu_gpu_and_several_hosts():
    assert [path.name for path in COMPOSE_FILES] == ["compose.cpu.yml", "compose.gpu.yml", "compose.yml"]


def test_images_are_made_by_make_setup():
    runs = [rest for word, rest in instructions() if word == "RUN"]
    assert any(re.search(r"\bmake setup$", run) for run in runs)
    assert "pip install" not in DOCKERFILE
    # The cached layer is a step of `make setup` itself.
    makefile = (PROJECT / "Makefile").read_text()
    assert any("make .venv/.runtime" in run for run in runs)
    assert re.search(r"^\$\(VENV\)/\.runtime: requirements\.txt", makefile, re.MULTILINE)
    assert re.search(r"^setup: \$\(VENV\)/\.runtime", makefile, re.MULTILINE)


def test_images_run_without_rights_and_say_how_they_are():
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users == ["graft"]
    assert stages() == ["base", "web", "worker"]
    for stage in ("web", "worker"):
        body = DOCKERFILE.split(f"AS {stage}\n")[1].split("\nFROM ")[0]
        assert "HEALTHCHECK" in body, stage
        assert "CMD [" in body, stage


@pytest.mark.parametrize(("file", "name", "body"), services())
def test_services_name_things_that_exist(file: str, name: str, body: dict[str, Any]):
    if "build" in body:
        assert body["build"]["target"] in stages()
        assert (PROJECT / body["build"]["dockerfile"]).is_file()
    command = body.get("command", [])
    if command[:3] == ["python", "manage.py", "process"]:
        assert command[3] in {process.name for process in site_processes("127.0.0.1", 8000)}
    known = settings_names() | {"GRAFT_WORKER_NAME"}
    unknown = [key for key in body.get("environment", {}) if key.startswith("GRAFT_") and key not in known]
    assert unknown == []


def test_dockerfile_sets_only_settings_that_exist():
    named = set(re.findall(r"\b(GRAFT_[A-Z_]+)=", DOCKERFILE))
    assert named - settings_names() - {"GRAFT_WORKER_NAME"} == set()


def test_the_distributed_site_has_every_process_and_waits_for_what_it_needs():
    site = compose(DOCKER / "compose.yml")["services"]
    commands = {tuple(body["command"]) for body in site.values() if "command" in body}
    for process in site_processes("127.0.0.1", 8000):
        assert ("python", "manage.py", "process", process.name) in commands
    for name, body in site.items():
        for other, how in body.get("depends_on", {}).items():
            wanted = how["condition"]
            assert wanted in ("service_healthy", "service_completed_successfully"), (name, other)
            assert wanted != "service_healthy" or "healthcheck" in site[other], (name, other)
        if "build" in body:
            assert body["security_opt"] == ["no-new-privileges:true"]
            assert body["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("file", ["compose.yml", "compose.cpu.yml"])
def test_the_first_start_makes_the_compiled_parts_where_trainings_look_for_them(file: str):
    """For this host's processor, on the volume, once, and behind everything else; what the image has is only copied."""
    body = compose(DOCKER / file)["services"]["warm"]
    assert body["command"][:7] == ["nice", "-n", "19", "python", "-m", "jobs", "warm"]
    parser = argparse.ArgumentParser()
    warm.add_arguments(parser)
    arguments = parser.parse_args(body["command"][7:])
    image = dict(pair.split("=", 1) for word, rest in instructions() if word == "ENV" for pair in rest.split())
    workdir = next(rest for word, rest in instructions() if word == "WORKDIR")
    makefile = (PROJECT / "Makefile").read_text()
    made = re.search(r"^REGIONS := (\S+)$", makefile, re.MULTILINE)
    assert made
    assert str(arguments.model) == image["GRAFT_SAMPLE_MODEL"]
    assert str(arguments.made) == f"{workdir}/{made[1]}"
    looked_in = Path(child_environment(Path("home"))["GRAFT_REGIONS"]).relative_to(ENV.var)
    assert arguments.regions == Path(image["GRAFT_VAR"]) / looked_in
    assert body["restart"] == "no"
    assert body["volumes"] == [f"data:{image['GRAFT_VAR']}"]
    packages = next(rest for word, rest in instructions() if "apt-get install" in rest).split()
    assert "g++" in packages


def test_on_gpus_nothing_is_compiled():
    assert compose(DOCKER / "compose.gpu.yml")["services"]["warm"] == {"profiles": ["cpu"]}


def test_the_example_environment_names_every_variable_that_compose_wants():
    wanted = set()
    for path in COMPOSE_FILES:
        text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        wanted |= set(re.findall(r"\$\{([A-Z_]+)", text))
    offered = set(re.findall(r"^([A-Z_]+)=", (DOCKER / "env.example").read_text(), re.MULTILINE))
    assert wanted <= offered
