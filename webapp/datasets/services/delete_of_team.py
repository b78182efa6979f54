"""The datasets' part in the deletion of a team."""

from __future__ import annotations

from pathlib import Path

from webapp.accounts.models import Team
from webapp.datasets.models import Dataset, DatasetVersion, Upload


def delete_of_team(team: Team) -> list[Path]:
    """Deletes the team's datasets and uploads, whose runs are gone, and names their files."""
    versions = DatasetVersion.objects.filter(dataset__team=team)
    uploads = Upload.objects.filter(team=team)
    paths = [path for version in versions.only("id") for path in (version.folder, version.check_folder)]
    paths += [upload.path for upload in uploads.only("id")]
    versions.delete()
    Dataset.objects.filter(team=team).delete()
    uploads.delete()
    return paths
