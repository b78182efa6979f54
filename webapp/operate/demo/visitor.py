"""A person at a browser, as far as the server can tell."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

from webapp.operate.demo.forms import form_values

PART_BYTES = 64 * 1024
_TUS = {"Tus-Resumable": "1.0.0"}
_TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
# The socket is dropped and opened again once, after so many events: a page that was closed must miss nothing.
DROP_AFTER_EVENTS = 40
LAST_EVENT_SECONDS = 5.0
_READ_BYTES = 2**20


class DemoFailed(Exception):
    """The demonstration did not go as it must."""


@dataclass
class Followed:
    """What came over the socket of a run."""

    events: list[dict[str, Any]] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)
    connections: int = 0
    ended_at: float = 0.0

    @property
    def ids(self) -> list[tuple[int, int]]:
        """Attempt and number of each event, in the order they came."""
        return [(event["attempt"], event["seq"]) for event in self.events]

    def over(self) -> bool:
        """Whether the run has ended and its last event has come; a killed child writes none, and is waited for a little."""
        if self.run.get("state") not in _TERMINAL:
            return False
        self.ended_at = self.ended_at or time.monotonic()
        last = self.events[-1] if self.events else {}
        return last.get("kind") == "finished" or time.monotonic() - self.ended_at > LAST_EVENT_SECONDS

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The data of the events of one kind."""
        return [event["data"] for event in self.events if event["kind"] == kind]


class Visitor:
    """Signs in and does the main job. Raises `DemoFailed`, or `httpx.HTTPError` where the site does not answer."""

    def __init__(self, host: str, port: int, say: Callable[[str], None]) -> None:
        self.address = f"{host}:{port}"
        self.say = say
        self.http = httpx.Client(base_url=f"http://{self.address}", timeout=60)

    def sign_in(self, name: str, password: str) -> None:
        """Signs in by the form."""
        page = self._page("/login/")
        answer = self._post("/login/", {**form_values(page, "login"), "login": name, "password": password})
        self._redirected(answer, "sign in")

    def upload(self, team: str, file: Path) -> str:
        """Sends a file in parts by tus, asking in between how far it has come; gives the upload's id."""
        body = file.read_bytes()
        name = base64.b64encode(file.name.encode()).decode()
        headers = {**self._token(), **_TUS, "Upload-Length": str(len(body)), "Upload-Metadata": f"filename {name}"}
        created = self.http.post(f"/t/{team}/uploads/", headers=headers)
        self._expect(created, 201, "announce an upload")
        place = created.headers["Location"]
        while True:
            offset = int(self.http.head(place, headers=_TUS).headers["Upload-Offset"])
            if offset == len(body):
                return place.rstrip("/").rpartition("/")[2]
            part = body[offset : offset + PART_BYTES]
            digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
            sent = {**self._token(), **_TUS, "Upload-Offset": str(offset), "Upload-Checksum": f"sha256 {digest}"}
            answer = self.http.patch(place, content=part, headers={**sent, "Content-Type": "application/offset+octet-stream"})
            self._expect(answer, 204, "send a part")

    def make_dataset(self, team: str, name: str, files: dict[str, Path]) -> str:
        """Uploads the files, takes the mapping that the page proposes, and waits for the report; gives the version's id."""
        fields = {f"{split}_upload": self.upload(team, file) for split, file in files.items()}
        place = f"/t/{team}/datasets/new/"
        answer = self._post(place, {**form_values(self._page(place), "name"), "name": name, **fields})
        page = self._redirected(answer, "make a dataset")
        version = page.rstrip("/").rpartition("/")[2]
        mapping = form_values(self._page(page), "format")
        self.say(f"mapping: {mapping['format']}")
        self._redirected(self._post(f"{page}validate/", mapping), "validate")
        deadline = time.monotonic() + 120
        while f"?dataset={version}" not in (text := self._page(page)):
            if time.monotonic() > deadline:
                raise DemoFailed(f"the dataset did not become ready: {_words(text)[-600:]}")
            time.sleep(0.5)
        return version

    def launch(self, team: str, version: str, values: dict[str, str]) -> str:
        """Fills in the form of a new run and sends it; gives the run's id."""
        page = self._page(f"/t/{team}/runs/new/?dataset={version}")
        fields = form_values(page, "base_model")
        unknown = set(values) - set(fields)
        if unknown:
            raise DemoFailed(f"the form has no field {', '.join(sorted(unknown))}")
        answer = self._post(f"/t/{team}/runs/new/", {**fields, **values})
        return self._redirected(answer, "launch").rstrip("/").rpartition("/")[2]

    def follow(self, run_id: str, timeout_seconds: float) -> Followed:
        """Reads the run's socket to the end of the run; comes back with the cursor whenever the connection ends."""
        followed = Followed()
        deadline = time.monotonic() + timeout_seconds
        cursor = "0-0"
        while time.monotonic() < deadline:
            followed.connections += 1
            cursor, over = self._listen(run_id, cursor, followed, deadline)
            if over:
                return followed
        raise DemoFailed(f"the run did not end within {timeout_seconds:.0f} s; state {followed.run.get('state')}")

    def _listen(self, run_id: str, cursor: str, followed: Followed, deadline: float) -> tuple[str, bool]:
        """One connection; gives the cursor it ended at, and whether the run is over and all of it has come."""
        headers = {"Cookie": f"sessionid={self.http.cookies['sessionid']}"}
        url = f"ws://{self.address}/ws/runs/{run_id}/?after={cursor}"
        drop = followed.connections == 1
        with connect(url, additional_headers=headers, origin=Origin(f"http://{self.address}"), max_size=None) as socket:
            while time.monotonic() < deadline:
                try:
                    frame = json.loads(socket.recv(timeout=15))
                except (ConnectionClosed, TimeoutError):
                    return cursor, False
                if frame["type"] == "run":
                    self._tell(followed.run, frame["run"])
                    followed.run = frame["run"]
                elif frame["type"] == "events":
                    followed.events += frame["events"]
                    cursor = frame["cursor"]
                if drop and len(followed.events) >= DROP_AFTER_EVENTS:
                    return cursor, False
                if followed.over():
                    return cursor, True
        return cursor, False

    def _tell(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Says what has changed, where that is worth a line."""
        shown = ("label", "phase", "last_step")
        if [before.get(key) for key in shown] != [now[key] for key in shown]:
            phase = now["phase"] or {}
            done = f"{phase.get('name', '')} {phase.get('done', '')}"
            self.say(f"{now['label']}: {done}, step {now['last_step']} of {now['total_steps']}")

    def artifact_links(self, run_id: str) -> list[str]:
        """The download links on the run's page."""
        page = self._page(f"/runs/{run_id}/")
        return sorted(set(re.findall(r'href="(/artifacts/[0-9a-f-]{36}/download/)"', page)))

    def download(self, link: str) -> tuple[int, str]:
        """Downloads a file in two parts by Range; gives its bytes and SHA-256."""
        total = int(self.http.head(link).headers["Content-Length"])
        half = total // 2
        digest = hashlib.sha256()
        for first, last in ((0, half - 1), (half, total - 1)):
            with self.http.stream("GET", link, headers={"Range": f"bytes={first}-{last}"}) as part:
                self._expect(part, 206, "download a part")
                if part.headers["Content-Range"] != f"bytes {first}-{last}/{total}":
                    raise DemoFailed(f"asked for bytes {first}-{last}, got {part.headers['Content-Range']}")
                for block in part.iter_bytes(_READ_BYTES):
                    digest.update(block)
        return total, digest.hexdigest()

    def _token(self) -> dict[str, str]:
        return {"X-CSRFToken": self.http.cookies["csrftoken"]}

    def _page(self, place: str) -> str:
        answer = self.http.get(place)
        self._expect(answer, 200, f"open {place}")
        return answer.text

    def _post(self, place: str, fields: dict[str, str]) -> httpx.Response:
        return self.http.post(place, data=fields, headers=self._token())

    def _redirected(self, answer: httpx.Response, what: str) -> str:
        self._expect(answer, 302, what)
        return str(answer.headers["Location"])

    def _expect(self, answer: httpx.Response, status: int, what: str) -> None:
        if answer.status_code != status:
            answer.read()
            raise DemoFailed(f"could not {what}: {answer.status_code}, {_words(answer.text)[:1500]}")


def _words(page: str) -> str:
    """The text of a page."""
    return " ".join(re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL).split())
