"""A web server that loses its patience after a second, and what one says to it."""

from __future__ import annotations

import socket
import sys

import psutil

from tests.flow.site import wait_for
from tests.webapp.runs.live import HOST, Web
from webapp.operate.up.commands import web_process
from webapp.operate.up.site import web_answers


class HastyWeb(Web):
    """A web server that loses its patience after a second."""

    def start(self) -> None:
        options = web_process(HOST, self.port).command[3:]
        # The settings of tests, whose pages need no collected files: a page that is not there is a page.
        command = (sys.executable, "-m", "tests.attacks.web.hasty", *options)
        self.site.start("web", *command, DJANGO_SETTINGS_MODULE="webapp.settings.test")
        wait_for(lambda: web_answers(HOST, self.port), 30)

    def connect(self) -> socket.socket:
        client = socket.create_connection((HOST, self.port), timeout=15)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def say(self, request: bytes) -> bytes:
        """What comes back for these bytes, until the server closes or has said it."""
        with self.connect() as client:
            client.sendall(request)
            client.settimeout(15)
            found = b""
            try:
                while piece := client.recv(65536):
                    found += piece
                    client.settimeout(0.4)
            except OSError:
                pass
            return found

    @property
    def connections(self) -> int:
        process = psutil.Process(self.site.processes["web"].pid)
        return sum(1 for each in process.net_connections("tcp") if each.raddr)
