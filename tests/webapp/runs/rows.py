"""Rows that a run needs: a team with a person, a dataset version that is ready, a base model that is ready."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from webapp.accounts.models import Membership, Role, Team, User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.runs.models import Run
from webapp.runs.services.create import create_run
from webapp.runs.services.specs import Recipe

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Bench:
    """A team that can launch."""

    team: Team
    user: User
    version: DatasetVersion
    base_model: BaseModel

    def launch(self, **changes: Any) -> Run:
        """A queued run through the use case. `changes` are those of its recipe, or `team`, `user` and `kind`."""
        who = {name: changes.pop(name) for name in ("team", "user", "kind") if name in changes}
        return create_run(self.recipe(**changes), **{"team": self.team, "user": self.user, **who})

    def recipe(self, **changes: Any) -> Recipe:
        """A LoRA run with the defaults of everything but `changes`."""
        values = {"name": "tickets", "dataset_version": self.version, "base_model": self.base_model, "method": "lora"}
        return Recipe(**{**values, **changes})


def make_bench(name: str = "alice", rows: list[dict[str, Any]] | None = None) -> Bench:
    """A team of one person, who owns it, with everything ready. `rows` become the version's training file."""
    user = User.objects.create_user(username=name, password="secret")
    team = Team.objects.create(name=f"{name}'s team", slug=name)
    Membership.objects.create(team=team, user=user, role=Role.OWNER)
    upload = Upload.objects.create(team=team, created_by=user, filename="rows.jsonl", bytes_total=1, expires_at=LATER)
    dataset = Dataset.objects.create(team=team, name="tickets", created_by=user)
    version = DatasetVersion.objects.create(
        dataset=dataset, number=1, state=DatasetVersion.State.READY, train_upload=upload, created_by=user, manifest={}
    )
    body = "".join(json.dumps(row) + "\n" for row in rows or [{"prompt": "a", "completion": "b"}]).encode()
    version.folder.mkdir(parents=True)
    (version.folder / "train.jsonl").write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    version.manifest = {"train": {"file": "train.jsonl", "rows": len(rows or [0]), "bytes": len(body), "sha256": digest}}
    version.save()
    base = BaseModel.objects.create(name="Tiny", source="sample", state=BaseModel.State.READY, revision="1", licence="Apache-2.0")
    return Bench(team, user, version, base)
