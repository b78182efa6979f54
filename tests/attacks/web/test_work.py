"""Who reaches the broker, and who asks for more than a team may have."""

from __future__ import annotations

import base64
import json
import os
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from jobs.errors import UserError
from tests.attacks.web.state import changed, state
from tests.flow.site import Site, wait_for
from tests.webapp.cast import make_cast
from tests.webapp.test_every_url import make_things
from webapp.accounts.services.members import remove_member
from webapp.datasets.models import Upload
from webapp.datasets.services.create_upload import create_upload
from webapp.notices.services.webhooks import AT_MOST, add_webhook
from webapp.quotas.models import Quota
from webapp.quotas.services.use import use_of

pytestmark = pytest.mark.django_db(transaction=True)


def message(task: str, args: list[Any], *, kwargs: dict[str, Any] | None = None, kind: str = "application/json", body: bytes = b"") -> str:
    """A Celery message as it lies in Redis, made by hand."""
    content = body or json.dumps([args, kwargs or {}, {}]).encode()
    headers = {"lang": "py", "task": task, "id": str(uuid.uuid4()), "root_id": None, "parent_id": None, "group": None, "retries": 0}
    properties = {
        "correlation_id": headers["id"], "delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "short"}, "priority": 0,
        "body_encoding": "base64", "delivery_tag": str(uuid.uuid4()),
    }  # fmt: skip
    return json.dumps({
        "body": base64.b64encode(content).decode(), "content-encoding": "utf-8", "content-type": kind, "headers": headers,
        "properties": properties,
    })  # fmt: skip


class Opened:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mknod, (str(self.path),))


def test_a_message_in_the_broker_is_a_name_and_an_id_or_nothing(site: Site, tmp_path: Path) -> None:
    """Somebody writes into the queue: no code is run, no other row is touched, and the worker goes on."""
    import pickle

    make_things(make_cast())
    sentinel = tmp_path / "opened"
    site.start_worker("short", queue="short")
    before = state()
    hostile = [
        message("os.system", ["touch /tmp/x"]),
        message("celery.backend_cleanup", []),
        message("datasets.validate", ["../../etc/passwd"]),
        message("datasets.validate", [str(uuid.uuid4())]),
        message("datasets.validate", [], kwargs={"version_id": {"$ne": 1}}),
        message("catalog.fetch", [str(uuid.uuid4())]),
        message("notices.deliver", ["' OR 1=1 --"]),
        message("notices.tell", [str(uuid.uuid4()), "more", "than", "one"]),
        message("runs.train", [str(uuid.uuid4())]),
        message("x", [], kind="application/x-python-serialize", body=pickle.dumps(Opened(sentinel))),
        message("x", [], kind="application/x-yaml", body=b"!!python/object/apply:os.mknod ['" + str(sentinel).encode() + b"']"),
        message("notices.tell", [], body=b"[" * 100_000),
    ]
    for each in hostile:
        site.redis().lpush("graft:short", each)
    wait_for(lambda: site.redis().llen("graft:short") == 0, 20)
    site.redis().lpush("graft:short", message("notices.tell", [str(uuid.uuid4())]))
    wait_for(lambda: site.redis().llen("graft:short") == 0 and "succeeded" in site.log("short"), 20)
    assert site.processes["short"].poll() is None, site.log("short")
    assert not sentinel.exists()
    assert [name for name in changed(before) if name not in ("files", "runs.worker")] == []


def at_once(count: int, act: Any) -> list[str]:
    """Runs `act(number)` in so many threads together; the codes of those that were refused."""
    start, refused = threading.Barrier(count), []

    def one(number: int) -> None:
        start.wait()
        try:
            act(number)
        except UserError as error:
            refused.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused


def test_many_at_once_have_no_more_room_than_one(settings: Any, tmp_path: Path) -> None:
    settings.GRAFT_VAR = tmp_path
    cast = make_cast()
    Upload.objects.create(team=cast.team, created_by=cast.alice, filename="a", bytes_total=990, expires_at="2100-01-01T00:00Z")
    Quota.objects.create(team=cast.team, storage_bytes=1000)
    refused = at_once(12, lambda number: create_upload(team=cast.team, user=cast.alice, filename=f"{number}.csv", bytes_total=4))
    assert refused == ["quota_storage"] * 10
    assert sum(use_of([cast.team])[cast.team.pk].stored.values()) == 998


def test_many_at_once_have_no_more_webhooks_than_one(settings: Any, tmp_path: Path) -> None:
    settings.GRAFT_VAR = tmp_path
    cast = make_cast()
    ends = {"ended": True, "failed": True}
    refused = at_once(AT_MOST + 5, lambda number: add_webhook(team=cast.team, user=cast.alice, url=f"https://example.com/{number}", **ends))
    assert refused == ["webhooks_too_many"] * 5


def test_two_owners_who_remove_one_another_leave_one(settings: Any, tmp_path: Path) -> None:
    settings.GRAFT_VAR = tmp_path
    cast = make_cast()
    cast.team.memberships.filter(user=cast.max).update(role="owner")
    pair = [(cast.alice, cast.max), (cast.max, cast.alice)]
    mine = {person: cast.team.memberships.get(user=person).pk for person in (cast.alice, cast.max)}

    def remove(number: int) -> None:
        actor, other = pair[number]
        try:
            remove_member(team=cast.team, actor=actor, membership_id=mine[other])
        except Exception as error:
            raise UserError("last_owner", who="") from error

    assert at_once(2, remove) == ["last_owner"]
    assert cast.team.memberships.filter(role="owner").count() == 1
