"""`manage.py prepare`: makes a site ready to start. It runs at every start; what is done is not done again, what was removed stays away."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from jobs.errors import UserError
from webapp.accounts.models import Team, User
from webapp.accounts.services.create_team import create_team
from webapp.catalog.models import BaseModel
from webapp.catalog.services.register_sample import register_sample
from webapp.core.redis import server_config
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.services.register_files import create_dataset_from_files
from webapp.runs.services.create import create_run
from webapp.runs.services.specs import Recipe
from webapp.settings.env import ENV, PROJECT

ADMINISTRATOR = "admin"
FIRST_TEAM = "Graft"
SAMPLE_DATASET = "Support tickets"
SAMPLE_FILES = {"train": PROJECT / "examples" / "tickets" / "train.jsonl", "test": PROJECT / "examples" / "tickets" / "test.jsonl"}
# Few steps, so a higher rate than the method's default: the first run is there to show an effect soon.
FIRST_RUN: dict[str, Any] = {"epochs": 2, "learning_rate": 5e-4}
_FOLDERS = ("redis", "uploads", "datasets", "models", "runs", "logs", "locks", "static")
_KEY_BYTES = 48
_PASSWORD_BYTES = 12


class Command(BaseCommand):
    """Folders, secret key, database, static files; at the first start an administrator, a team, the samples and a first run."""

    help = "Make the site ready to start. Safe to run again."
    # It makes what the checks look for.
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Does what has not been done yet."""
        os.umask(0o077)
        make_folders()
        write_secret_key()
        if settings.GRAFT_REDIS_EMBEDDED:
            write_redis_config()
        call_command("migrate", interactive=False, verbosity=0)
        call_command("createcachetable", verbosity=0)
        if not settings.DEBUG and not static_is_fresh():
            self._say("collecting static files")
            call_command("collectstatic", interactive=False, verbosity=0)
        self._first_start()

    def _first_start(self) -> None:
        """Each step is noted when it is done, so that an interrupted first start goes on where it stopped."""
        steps: dict[str, Callable[[], str]] = {"administrator": self._administrator, "team": self._team}
        if (ENV.sample_model / "graft.json").exists():
            steps |= {"sample_model": self._sample_model, "sample_dataset": self._sample_dataset}
            if ENV.first_run:
                steps["first_run"] = self._first_run
        else:
            self._say(f"no sample model at {ENV.sample_model} (make setup makes it): the first run is left out")
        done = prepared()
        for name, step in steps.items():
            if name in done:
                continue
            try:
                done[name] = step()
            except UserError as failure:
                raise CommandError(f"{name}: {failure.message} {failure.remedy}") from failure
            _write_private(_notes(), json.dumps(done, indent=2) + "\n")

    def _administrator(self) -> str:
        known = User.objects.filter(is_superuser=True).first()
        if known is not None:
            return str(known.pk)
        password = ENV.admin_password or secrets.token_urlsafe(_PASSWORD_BYTES)
        administrator = User.objects.create_superuser(ADMINISTRATOR, password=password)
        shown = "from GRAFT_ADMIN_PASSWORD" if ENV.admin_password else f"{password}   (shown this once)"
        self._say(f"user name: {ADMINISTRATOR}   password: {shown}")
        return str(administrator.pk)

    def _team(self) -> str:
        team = Team.objects.order_by("created_at").first() or create_team(creator=_owner(), name=FIRST_TEAM)
        return str(team.pk)

    def _sample_model(self) -> str:
        self._say("registering the sample model")
        return str(register_sample(ENV.sample_model).pk)

    def _sample_dataset(self) -> str:
        self._say("registering the sample dataset")
        team = Team.objects.get(pk=prepared()["team"])
        # One that a first start left behind when it was interrupted has no ready version and is made anew.
        samples = Dataset.objects.filter(team=team, name=SAMPLE_DATASET)
        samples.exclude(versions__state=DatasetVersion.State.READY).delete()
        version = DatasetVersion.objects.filter(dataset__in=samples).first()
        return str((version or create_dataset_from_files(team, _owner(), SAMPLE_DATASET, SAMPLE_FILES)).pk)

    def _first_run(self) -> str:
        done = prepared()
        recipe = Recipe(
            name="First run",
            dataset_version=DatasetVersion.objects.get(pk=done["sample_dataset"]),
            base_model=BaseModel.objects.get(pk=done["sample_model"]),
            method="lora",
            training=FIRST_RUN,
        )
        run = create_run(recipe, team=Team.objects.get(pk=done["team"]), user=_owner())
        self._say("queued a first LoRA run")
        return str(run.pk)

    def _say(self, line: str) -> None:
        self.stdout.write(f"{'prepare':<10} | {line}")
        self.stdout.flush()


def make_folders() -> None:
    """The folders of the site, each for its owner alone. Raises `CommandError` where the socket's folder belongs to somebody else."""
    var: Path = settings.GRAFT_VAR
    sockets = [settings.GRAFT_REDIS_SOCKET.parent] if settings.GRAFT_REDIS_EMBEDDED else []
    for folder in (var, *(var / name for name in _FOLDERS), *sockets):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise CommandError(f"{folder} belongs to another user; remove it, or set GRAFT_VAR to a folder of your own.")
        folder.chmod(0o700)


def write_secret_key() -> None:
    """Writes a random key, unless there is one."""
    file = settings.GRAFT_VAR / "secret-key"
    if not ENV.secret_key and not file.exists():
        _write_private(file, secrets.token_urlsafe(_KEY_BYTES))


def write_redis_config() -> None:
    """Writes the configuration of the embedded redis-server, anew at each start."""
    folder = settings.GRAFT_VAR / "redis"
    _write_private(folder / "redis.conf", server_config(folder, settings.GRAFT_REDIS_SOCKET))


def static_is_fresh() -> bool:
    """Whether what was collected is newer than every file it was collected from."""
    manifest = settings.STATIC_ROOT / "staticfiles.json"
    if not manifest.exists():
        return False
    collected = manifest.stat().st_mtime
    sources = (storage.path(name) for finder in get_finders() for name, storage in finder.list([]))
    return all(os.stat(path).st_mtime < collected for path in sources)


def prepared() -> dict[str, str]:
    """What the first start has done: the name of each step, and the id of what it made."""
    notes = _notes()
    return dict(json.loads(notes.read_text())) if notes.exists() else {}


def _notes() -> Path:
    return Path(settings.GRAFT_VAR) / "prepared.json"


def _owner() -> User:
    return User.objects.filter(is_superuser=True).order_by("date_joined")[0]


def _write_private(file: Path, text: str) -> None:
    """Writes a file of mode 0600, whole or not at all."""
    partial = file.with_name(file.name + ".part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.rename(partial, file)
