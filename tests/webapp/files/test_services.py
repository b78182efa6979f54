"""Files as services know them: stored, read in the background, deleted by people and by their clock, results of a run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.errors import GraftError, UserError
from tests.webapp.cast import Cast
from tests.webapp.files.given import CHAT, PREFERENCE, WEIGHTS, lines, read_rows, stored
from tests.webapp.runs.rows import make_bench
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import AuditEvent
from webapp.accounts.services.delete_team import delete_team
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.files.models import File, Purpose
from webapp.files.services.delete import delete_file
from webapp.files.services.reconcile import reconcile
from webapp.files.services.results import results_csv, results_file
from webapp.runs.models import Record, Run
from webapp.runs.states import State
from webapp.work.models import OutboxMessage

Status = File.Status


def test_a_file_for_fine_tuning_is_a_dataset_of_the_team(cast: Cast) -> None:
    body = lines(CHAT, WEIGHTS)
    file = stored(cast.team, cast.bob, body)
    version = file.dataset_version
    assert version is not None
    assert (file.status, file.status_details, version.state) == (Status.UPLOADED, None, "validating")
    assert list(OutboxMessage.objects.values_list("task", "subject")) == [("datasets.validate", version.pk)]
    assert (version.dataset.name, version.dataset.team, version.dataset.created_by) == ("train", cast.team, cast.bob)
    assert file.upload is not None
    assert file.upload.path.read_bytes() == body

    file = read_rows(file)
    assert (file.status, file.status_details) == (Status.PROCESSED, None)
    assert file.dataset_version is not None
    assert [file.dataset_version.rows(split) for split in ("train", "validation", "test")] == [20, 0, 0]
    assert stored(cast.team, cast.bob, body).dataset_version.dataset.name.startswith("train ")  # type: ignore[union-attr]


def test_bad_rows_are_told_with_their_lines(cast: Cast) -> None:
    file = read_rows(stored(cast.team, cast.bob, lines(CHAT) + b'{"messages": [{"role": "user", "content": "and?"}]}\n'))
    assert file.status == Status.ERROR
    assert file.status_details is not None
    assert file.status_details.startswith("Line 11: ")


def test_rows_of_no_known_layout_are_an_error_that_names_the_keys(cast: Cast) -> None:
    file = stored(cast.team, cast.bob, lines({"alpha": 1, "beta": 2}))
    assert file.status == Status.ERROR
    assert file.status_details == "Expected every line to have the key 'messages'; the keys found are: 'alpha', 'beta'."
    assert not OutboxMessage.objects.exists()
    preferences = stored(cast.team, cast.bob, lines(PREFERENCE))
    assert (preferences.status, "dpo" in str(preferences.status_details)) == (Status.ERROR, True)


@pytest.mark.parametrize("body", [b"\x00\x01\x02\xff" * 50, b""])
def test_what_is_no_table_is_refused_and_nothing_is_kept(cast: Cast, body: bytes) -> None:
    with pytest.raises(GraftError):
        stored(cast.team, cast.bob, body)
    assert (File.objects.count(), Dataset.objects.count(), Upload.objects.count()) == (0, 0, 0)
    assert not list(Upload().path.parent.glob("*"))


def test_other_purposes_are_bytes_alone(cast: Cast) -> None:
    file = stored(cast.team, cast.bob, b"\x00\xff", name="../a\x07/picture.png", purpose=Purpose.VISION)
    assert (file.filename, file.bytes, file.status, file.dataset_version) == ("picture.png", 2, Status.PROCESSED, None)
    assert not Dataset.objects.exists()


def test_deleting_takes_bytes_and_dataset(cast: Cast) -> None:
    file = read_rows(stored(cast.team, cast.bob, lines(CHAT)))
    version = file.dataset_version
    assert version is not None
    assert file.upload is not None
    path = file.upload.path
    assert delete_file(file, cast.bob)
    assert not delete_file(file, cast.bob)
    row = File.objects.get(pk=file.pk)
    assert (row.deleted_at is not None, row.upload, row.dataset_version) == (True, None, None)
    assert not path.exists()
    assert not Dataset.objects.exists()
    assert AuditEvent.objects.get(action=Action.DATASET_DELETED).object_name == "train"


def test_what_a_run_was_made_of_stays_for_the_run(cast: Cast) -> None:
    bench = make_bench("dora")
    file = read_rows(stored(bench.team, bench.user, lines(CHAT)))
    assert file.upload is not None
    upload, version = file.upload, file.dataset_version
    bench.launch(dataset_version=version)
    assert delete_file(file, bench.user)
    assert upload.path.exists()
    assert DatasetVersion.objects.filter(pk=version.pk).exists()  # type: ignore[union-attr]
    assert not AuditEvent.objects.filter(action=Action.DATASET_DELETED).exists()
    upload.refresh_from_db()
    assert upload.expires_at <= timezone.now()


def test_the_clock_deletes_what_is_over_and_nothing_else(cast: Cast) -> None:
    kept = stored(cast.team, cast.bob, b"a", purpose=Purpose.USER_DATA)
    over = stored(cast.team, cast.bob, b"b", purpose=Purpose.USER_DATA, kept_seconds=3600)
    assert over.expires_at is not None
    assert abs(over.expires_at - timezone.now() - timedelta(hours=1)) < timedelta(seconds=20)
    reconcile()
    assert File.objects.filter(deleted_at=None).count() == 2
    File.objects.filter(pk=over.pk).update(expires_at=timezone.now())
    reconcile()
    assert list(File.objects.filter(deleted_at=None)) == [kept]
    assert Upload.objects.count() == 1


def test_results_are_the_curve_as_csv_once_for_each_end(cast: Cast) -> None:
    bench = make_bench("dora")
    run = bench.launch()
    steps = [(1, 1, 2.5), (1, 2, 2.25), (1, 3, 9.0), (2, 3, 2.0)]
    for seq, (attempt, step, loss) in enumerate(steps, 1):
        Record.objects.create(run=run, attempt=attempt, seq=seq, kind="step", step=step, at=0, data={"step": step, "loss": loss})
    measured = {"split": "validation", "model": "tuned", "loss": 1.5, "token_accuracy": 0.75}
    Record.objects.create(run=run, attempt=2, seq=9, kind="eval", step=3, at=0, data=measured)
    Record.objects.create(run=run, attempt=2, seq=10, kind="eval", step=3, at=0, data={**measured, "model": "base", "loss": 7})
    expected = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,2.5,,,\n2,2.25,,,\n3,2.0,,1.5,0.75\n"
    assert results_csv(run) == expected
    assert results_file(run) is None

    run.state, run.attempt = State.SUCCEEDED, 2
    Run.objects.filter(pk=run.pk).update(state=run.state, attempt=run.attempt)
    file = results_file(run)
    assert file is not None
    assert file == results_file(run)
    assert (file.purpose, file.status, file.filename) == (Purpose.RESULTS, Status.PROCESSED, f"{run.pk.hex}-results.csv")
    assert file.upload is not None
    assert file.upload.path.read_text() == expected
    delete_file(file, bench.user)
    assert results_file(run) is None
    run.attempt = 3
    assert results_file(run) is not None


def test_a_team_takes_its_files_with_it(cast: Cast) -> None:
    read_rows(stored(cast.team, cast.bob, lines(CHAT)))
    other = stored(cast.other_team, cast.charlie, b"a", purpose=Purpose.USER_DATA)
    delete_team(team=cast.team, actor=cast.alice)
    assert list(File.objects.all()) == [other]
    assert list(Upload.objects.all()) == [other.upload]


def test_a_full_team_is_told_so_and_keeps_nothing(cast: Cast) -> None:
    from webapp.quotas.models import Quota

    Quota.objects.create(team=cast.team, storage_bytes=10)
    with pytest.raises(UserError) as refused:
        stored(cast.team, cast.bob, b"x" * 11, purpose=Purpose.USER_DATA)
    assert refused.value.code == "quota_storage"
    assert (File.objects.count(), Upload.objects.count()) == (0, 0)
