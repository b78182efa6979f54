"""What a team uses, what it may, and that the limits are kept where something would go beyond."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from jobs.errors import UserError
from jobs.events import Event
from tests.webapp.runs.rows import LATER, Bench, make_bench
from webapp.accounts.models import AuditEvent, Team
from webapp.catalog.models import BaseModel
from webapp.datasets.models import Upload
from webapp.datasets.services.create_upload import create_upload
from webapp.datasets.services.receive_part import PartRefused, receive_part
from webapp.quotas.models import ComputeUse, Quota
from webapp.quotas.services.ledger import hours_of
from webapp.quotas.services.use import use_of
from webapp.runs import lease
from webapp.runs.ingest import Archive, bytes_in
from webapp.runs.models import Artifact, Run
from webapp.work.models import OutboxMessage

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def bench(db: None, settings: Any, tmp_path: Path) -> Bench:
    settings.GRAFT_VAR = tmp_path
    (tmp_path / "uploads").mkdir()
    return make_bench()


def used(team: Team) -> Any:
    return use_of([team])[team.pk]


def artifact(run: Run, size: int) -> Artifact:
    return Artifact.objects.create(run=run, attempt=1, kind="adapter", name=f"{size}.zip", path="x", bytes=size, sha256="0" * 64)


# -- use ---------------------------------------------------------------------------------------------------------------


def test_everything_that_a_team_stores_counts_once(bench: Bench) -> None:
    # One upload of 1 byte and one version are the bench's own; its base model is of the site and counts for nobody.
    version_bytes = bench.version.manifest["train"]["bytes"]
    Upload.objects.create(team=bench.team, created_by=bench.user, filename="x", bytes_total=1000, expires_at=LATER)
    first, second = bench.launch(name="a"), bench.launch(name="b")
    bench.version.manifest = {**bench.version.manifest, "validation": {"bytes": 500}, "test": None}
    bench.version.save()
    Run.objects.filter(pk=first.pk).update(checkpoint_bytes=70)
    Run.objects.filter(pk=second.pk).update(checkpoint_bytes=30)
    for size in (7, 8):
        artifact(first, size)
        artifact(second, size * 100)
    BaseModel.objects.create(team=bench.team, name="mine", source="hub", facts={"bytes": 4_000_000_000})
    BaseModel.objects.create(team=bench.team, name="on its way", source="hub")
    other = make_bench("charlie")
    artifact(other.launch(), 10**6)
    assert used(bench.team).stored == {
        "uploads": 1001, "datasets": version_bytes + 500, "checkpoints": 100, "artifacts": 1515, "models": 4_000_000_000,
    }  # fmt: skip
    assert used(bench.team).storage_bytes == 4_000_003_116 + version_bytes
    assert used(other.team).stored["artifacts"] == 10**6


def test_runs_that_hold_a_worker_and_runs_that_wait(bench: Bench) -> None:
    runs = [bench.launch(name=name) for name in "abc"]
    lease.claim(runs[0].id, "train0")
    assert (used(bench.team).running_runs, used(bench.team).queued_runs) == (1, 2)
    lease.move(runs[0].id, 1, to=lease.State.FAILED, frm=(lease.State.STARTING,), actor="train0")
    assert (used(bench.team).running_runs, used(bench.team).queued_runs) == (0, 2)


def test_hours_of_the_month_by_device_and_only_of_this_month(bench: Bench) -> None:
    def use(start: datetime, end: datetime | None, devices: int = 1) -> None:
        ComputeUse.objects.create(team=bench.team, run_id=uuid4(), attempt=1, devices=devices, started_at=start, ended_at=end)

    month = datetime(2026, 11, 1, tzinfo=UTC)
    use(NOON - timedelta(hours=3), NOON - timedelta(hours=1))
    use(NOON - timedelta(hours=5), NOON - timedelta(hours=4), devices=4)
    use(NOON - timedelta(minutes=30), None)
    use(month - timedelta(hours=10), month + timedelta(hours=1))
    use(month - timedelta(hours=10), month - timedelta(hours=1))
    assert hours_of([bench.team.pk], NOON) == {bench.team.pk: pytest.approx(2 + 4 + 0.5 + 1)}


def test_the_hours_of_a_deleted_run_are_not_given_back(bench: Bench) -> None:
    run = bench.launch()
    lease.claim(run.id, "train0")
    ComputeUse.objects.update(started_at=timezone.now() - timedelta(seconds=36))
    lease.move(run.id, 1, to=lease.State.FAILED, frm=(lease.State.STARTING,), actor="train0")
    before = hours_of([bench.team.pk])[bench.team.pk]
    Run.objects.filter(pk=run.pk).delete()
    assert hours_of([bench.team.pk])[bench.team.pk] == before > 0


def test_use_takes_as_many_queries_for_many_as_for_one(bench: Bench) -> None:
    def queries(teams: list[Team]) -> int:
        with CaptureQueriesContext(connection) as captured:
            use_of(teams)
        return len(captured)

    alone = queries([bench.team])
    teams = [bench.team, *(make_bench(f"team{number}").team for number in range(4))]
    for number in range(5):
        artifact(bench.launch(name=str(number)), number)
    assert queries(teams) == alone == 8


def test_checkpoints_are_measured_on_the_disk(bench: Bench) -> None:
    run = bench.launch()
    for number, name in enumerate(
        ("attempt-1/checkpoints/step-00000002/a", "attempt-2/checkpoints/step-00000004/b", "attempt-2/child.log"), 1
    ):
        path = run.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10**number)
    assert bytes_in(run.folder.glob("attempt-*/checkpoints/**/*")) == 110
    claimed = lease.claim(run.id, "train0")
    assert claimed is not None
    events = run.folder / "attempt-1" / "events.jsonl"
    events.write_text(Event(1, 0.0, "checkpoint", {"step": 4, "path": "x", "bytes": 1, "seconds": 0.1, "best": False}).to_line())
    Archive(claimed, events).ship()
    assert Run.objects.get(pk=run.pk).checkpoint_bytes == 110


# -- limits ------------------------------------------------------------------------------------------------------------


def test_an_upload_beyond_the_limit_is_refused_before_a_file_is_there(bench: Bench) -> None:
    Quota.objects.create(team=bench.team, storage_bytes=used(bench.team).storage_bytes + 1000)
    first = create_upload(team=bench.team, user=bench.user, filename="a.csv", bytes_total=600)
    with pytest.raises(UserError) as refusal:
        create_upload(team=bench.team, user=bench.user, filename="b.csv", bytes_total=401)
    assert refusal.value.code == "quota_storage"
    words = f"{refusal.value.message} {refusal.value.remedy}".replace("\u202f", " ")
    assert "401 B more do not fit" in words
    assert "administrator" in words
    assert "most is taken by uploads: 601 B" in words
    assert Upload.objects.filter(filename="b.csv").count() == 0
    assert [path.name for path in first.path.parent.iterdir()] == [str(first.pk)]
    create_upload(team=bench.team, user=bench.user, filename="c.csv", bytes_total=400)


def test_a_part_is_refused_where_the_limit_has_been_lowered(bench: Bench) -> None:
    upload = create_upload(team=bench.team, user=bench.user, filename="a.csv", bytes_total=600)
    receive_part(upload_id=upload.pk, offset=0, read=io.BytesIO(b"x" * 300).read)
    Quota.objects.create(team=bench.team, storage_bytes=100)
    with pytest.raises(PartRefused, match="do not fit") as refusal:
        receive_part(upload_id=upload.pk, offset=300, read=io.BytesIO(b"x" * 300).read)
    assert refusal.value.status == 413
    upload.refresh_from_db()
    assert upload.bytes_received == 300
    Quota.objects.update(storage_bytes=None)
    assert receive_part(upload_id=upload.pk, offset=300, read=io.BytesIO(b"x" * 300).read).state == "complete"


def test_tus_says_what_does_not_fit(bench: Bench, client: Client) -> None:
    Quota.objects.create(team=bench.team, storage_bytes=5)
    client.force_login(bench.user)
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "100", "Upload-Metadata": "filename YS5jc3Y="}
    answer = client.post(reverse("datasets:upload-create", args=[bench.team.slug]), headers=headers)
    assert answer.status_code == 413
    assert "ask an administrator" in answer.content.decode()


@pytest.mark.parametrize(
    ("limits", "code"),
    [({"queued_runs": 1}, "quota_queued"), ({"compute_hours": 0}, "quota_hours"), ({"storage_bytes": 0}, "quota_storage")],
)
def test_a_run_beyond_a_limit_is_not_queued(bench: Bench, limits: dict[str, int], code: str) -> None:
    bench.launch()
    Quota.objects.create(team=bench.team, **limits)
    with pytest.raises(UserError) as refusal:
        bench.launch(name="one more")
    assert refusal.value.code == code
    assert "administrator" in refusal.value.remedy
    assert (Run.objects.count(), OutboxMessage.objects.count()) == (1, 1)
    Quota.objects.all().delete()
    bench.launch(name="one more")


# -- pages -------------------------------------------------------------------------------------------------------------


def test_the_page_of_the_team(bench: Bench, client: Client) -> None:
    Quota.objects.create(team=bench.team, storage_bytes=2 * 10**9, running_runs=0)
    Upload.objects.create(team=bench.team, created_by=bench.user, filename="x", bytes_total=10**9, expires_at=LATER)
    client.force_login(bench.user)
    text = " ".join(client.get(reverse("quotas:usage", args=[bench.team.slug])).content.decode().split())
    assert "1.00 GB of 2.00 GB" in text
    assert 'value="0.5' in text
    assert "0 of 0" in text
    assert text.count("limit reached") == 1
    assert "0.0 h, no limit" in text
    assert "Change the limits" not in text


def test_only_administrators_set_limits(bench: Bench, client: Client) -> None:
    make_bench("charlie")
    client.force_login(bench.user)
    site, edit = reverse("quotas:site"), reverse("quotas:edit", args=["charlie"])
    for answer in (client.get(site), client.get(edit), client.post(edit, {"running_runs": "3"})):
        assert answer.status_code == 403
    assert not Quota.objects.exists()
    bench.user.is_superuser = True
    bench.user.save()
    assert "charlie&#x27;s team" in client.get(site).content.decode()
    assert client.post(edit, {"storage": "1.5", "running_runs": "3", "queued_runs": "", "compute_hours": "12.5"}).status_code == 302
    quota = Quota.objects.get()
    assert (quota.team.slug, quota.storage_bytes, quota.running_runs, quota.queued_runs, quota.compute_hours) == (
        "charlie",
        1_500_000_000,
        3,
        None,
        12.5,
    )
    event = AuditEvent.objects.get(action="quota.changed")
    assert (event.actor, event.detail["running_runs"]) == (bench.user, 3)
    assert 'value="1.5"' in client.get(edit).content.decode()
    refused = client.post(edit, {"storage": "-1", "running_runs": "many"})
    assert refused.status_code == 422
    assert 'value="many"' in refused.content.decode()


def test_the_page_of_all_teams_takes_as_many_queries_for_many_as_for_one(bench: Bench, client: Client) -> None:
    bench.user.is_superuser = True
    bench.user.save()
    client.force_login(bench.user)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            client.get(reverse("quotas:site"))
        return len(captured)

    queries()
    few = queries()
    for number in range(4):
        Quota.objects.create(team=make_bench(f"team{number}").team, running_runs=1)
    assert queries() == few
