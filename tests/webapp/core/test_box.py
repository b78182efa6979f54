"""The box for real: programs that misbehave are stopped, see nothing, and take nothing else with them."""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import GraftError
from webapp.core import box
from webapp.core.box import MEBI, BoxRefusal, Limits, run_in_box
from webapp.core.processes import group_members

SMALL = Limits(memory_bytes=512 * MEBI, cpu_seconds=5, wall_seconds=20, file_bytes=MEBI)
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs Python in the box, in the place of the engine."""
    engine = tmp_path / "engine" / "jobs"
    engine.mkdir(parents=True)
    (engine / "__main__.py").write_text("import json, os, sys\nrequest = json.load(sys.stdin)\nexec(request['code'])\n")
    monkeypatch.setattr(box, "ENGINE", engine)

    def run(code: str, limits: Limits = SMALL, **options: Any) -> dict[str, Any]:
        return run_in_box([], request={"code": code}, limits=limits, **options)

    return run


def refusal(run: Run, code: str, limits: Limits = SMALL, **options: Any) -> BoxRefusal:
    with pytest.raises(BoxRefusal) as refused:
        run(code, limits, **options)
    return refused.value


@pytest.mark.parametrize("code", ["bytearray(2**30)", "x = []\nwhile True: x.append(bytearray(10**6))", "x = 'a' * 2**31"])
def test_a_memory_bomb(run: Run, code: str) -> None:
    error = refusal(run, code)
    assert (error.code, error.message) == ("box_memory", "Reading the file took more than 0.5 GiB of memory, so it was stopped.")


def test_an_endless_loop(run: Run) -> None:
    assert refusal(run, "while True: pass", replace(SMALL, cpu_seconds=1)).code == "box_time"


def test_a_program_that_waits(run: Run) -> None:
    started = time.monotonic()
    assert refusal(run, "import time; time.sleep(60)", replace(SMALL, wall_seconds=0.7)).code == "box_time"
    assert time.monotonic() - started < 5


def test_too_much_output_and_too_large_a_file(run: Run) -> None:
    assert refusal(run, "print('x' * 2**22)", replace(SMALL, output_bytes=MEBI)).code == "box_output"
    assert refusal(run, "open('big', 'wb').write(b'x' * 2**21)").code == "box_output"


def test_a_crash(run: Run) -> None:
    error = refusal(run, "os.kill(os.getpid(), 11)")
    assert error.code == "box_crashed"
    assert "SIGSEGV" in error.message


def test_a_refusal_of_the_engine_keeps_its_words(run: Run) -> None:
    body = {"error": {"code": "no_rows", "message": "Nothing {here}.", "remedy": "Look elsewhere.", "where": {"line": 7}}}
    error = refusal(run, f"print({json.dumps(body)!r}, file=sys.stderr); sys.exit(78)")
    assert error.to_json() == body["error"]


def test_a_fault_of_the_engine_is_ours(run: Run) -> None:
    with pytest.raises(GraftError) as failed:
        run("raise KeyError('name')")
    assert not isinstance(failed.value, BoxRefusal)
    assert (failed.value.code, "KeyError: 'name'" in failed.value.message) == ("internal", True)
    with pytest.raises(GraftError, match="no JSON object"):
        run("print('hello')")


def test_the_child_knows_no_secret_and_lies_in_an_empty_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_SECRET_KEY", "hush")
    seen = run("print(json.dumps({'names': sorted(os.environ), 'files': os.listdir('.'), 'cwd': os.getcwd()}))")
    assert not [name for name in seen["names"] if name.startswith(("GRAFT", "DATABASE", "REDIS", "HF_", "DJANGO"))]
    assert seen["files"] == ["jobs"]
    assert not Path(seen["cwd"]).exists()


def test_the_child_reads_what_is_named_and_nothing_else(run: Run, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("a")
    (tmp_path / "secret").write_text("b")
    read = "print(json.dumps({{'text': open({!r}).read()}}))"
    answer = run(read.format(str(tmp_path / "given")), readable=[tmp_path / "given"])
    assert answer["text"] == "a"
    if not answer["box"]["files"]:
        pytest.skip("this kernel has no Landlock")
    for hidden in (tmp_path / "secret", Path("/etc/passwd")):
        with pytest.raises(GraftError, match="Permission denied"):
            run(read.format(str(hidden)), readable=[tmp_path / "given"])


def test_the_child_writes_where_it_may_and_nowhere_else(run: Run, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    write = "open({0!r} + '/a', 'w').write('x'); os.rename({0!r} + '/a', {0!r} + '/b'); os.mkdir({0!r} + '/c'); print('{{}}')"
    answer = run(write.format(str(out)), writable=out)
    assert sorted(path.name for path in out.iterdir()) == ["b", "c"]
    if not answer["box"]["files"]:
        pytest.skip("this kernel has no Landlock")
    with pytest.raises(GraftError, match="Permission denied"):
        run(write.format(str(other)), writable=out, readable=[other])
    assert not list(other.iterdir())


def test_the_child_has_no_network(run: Run) -> None:
    if not run("print('{}')")["box"]["network"]:
        pytest.skip("this kernel gives no network namespace to a user")
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2); print('{{}}')"
        with pytest.raises(GraftError, match="Network is unreachable"):
            run(reach)
        assert run(reach, network=True)["box"]["network"] is False


@pytest.mark.parametrize("network", [False, True])
def test_no_socket_of_the_host_is_in_reach(run: Run, network: bool) -> None:
    """A path keeps no socket away, as Landlock knows nothing of them: Redis listens on one."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/redis.sock")
        server.listen()
        reach = f"import socket; socket.socket(socket.AF_UNIX).connect({folder + '/redis.sock'!r}); print('{{}}')"
        if not run("print('{}')")["box"]["calls"]:
            pytest.skip("no filter of system calls for this machine")
        with pytest.raises(GraftError, match="Permission denied" if network else "Network is unreachable"):
            run(reach, network=network)


def test_no_link_is_left_for_whoever_reads_the_folder_later(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    if not run("print('{}')")["box"]["files"]:
        pytest.skip("this kernel has no Landlock")
    for call in ("symlink('/etc/passwd', {0!r})", "mkfifo({0!r})", "link('/etc/passwd', {0!r})"):
        with pytest.raises(GraftError, match=r"Permission denied|Invalid cross-device"):
            run(f"os.{call.format(str(tmp_path / 'out' / 'train.jsonl'))}; print('{{}}')", writable=tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "code",
    [
        "ctypes.CDLL(None, use_errno=True).ptrace(16, {pid}, 0, 0)",  # PTRACE_ATTACH
        "ctypes.CDLL(None, use_errno=True).unshare(0x10000000)",
        "ctypes.CDLL(None, use_errno=True).syscall(425, 8, 0)",  # io_uring_setup
        "os.kill({pid}, 0)",
        "open('/proc/{pid}/environ').read()",
    ],
)
def test_no_other_process_is_in_reach(run: Run, code: str) -> None:
    answer = run("print('{}')")["box"]
    if not (answer["calls"] and answer["files"]):
        pytest.skip("this kernel has no Landlock, or no filter for this machine")
    tried = (
        "import ctypes\ntry:\n    done = " + code.format(pid=os.getpid()) + "\n"
        "    number = ctypes.get_errno() if done == -1 else 0\n"
        "except OSError as refused:\n    number = refused.errno\nprint(json.dumps({'errno': number}))"
    )
    assert run(tried)["errno"] in (errno.EPERM, errno.EACCES)


def test_nothing_is_left_running(run: Run) -> None:
    fork = "print(json.dumps({'group': os.getpgrp()}))\nif os.fork() == 0:\n    import time; time.sleep(60)\n"
    started = time.monotonic()
    answer = run(fork)
    assert time.monotonic() - started < 5
    assert group_members(answer["group"]) == []


def test_the_child_dies_with_whoever_started_it(run: Run, tmp_path: Path) -> None:
    marker = tmp_path / "group"
    parent = os.fork()
    if parent == 0:
        try:
            run(f"open({str(marker)!r}, 'w').write(str(os.getpgrp())); import time; time.sleep(60)", writable=tmp_path)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 10
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    group = int(marker.read_text())
    assert group_members(group)
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert group_members(group) == []


def test_paths_of_the_host_come_back_as_names(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "0123.bin"
    file.write_text("a")
    answer = run(f"print(json.dumps({{'file': {str(file)!r}}}))", readable={file: 'my "rows".csv'})
    assert answer["file"] == 'my "rows".csv'


def test_progress_line_by_line(run: Run) -> None:
    lines: list[dict[str, Any]] = []
    answer = run("for n in range(4): print(json.dumps({'n': n}), flush=True)", on_line=lines.append)
    assert lines == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert answer["n"] == 3


def test_a_bracket_bomb_for_the_real_engine(tmp_path: Path) -> None:
    bomb = tmp_path / "deep.jsonl"
    bomb.write_text('{"messages":' + "[" * 100_000 + "\n")
    answer = run_in_box(["sniff", str(bomb), "--json"], readable=[bomb])
    assert [problem["code"] for problem in answer["problems"]] == ["json_too_deep"]


def test_who_finds_every_box_taken_is_told_so_in_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "_WAIT_SECONDS", 0.05)
    slots = threading.BoundedSemaphore(1)
    monkeypatch.setattr(box, "_SLOTS", slots)
    with slots:
        assert refusal(run, "print('{}')").code == "box_busy"
    assert run("print('{}')")["box"]
