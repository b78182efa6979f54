"""A site in a temporary folder with an empty database, within this process: nothing of the site at hand is touched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_site() -> Iterator[Path]:
    """Sets Django up for it, migrates, and gives its folder. Once in a process, before anything of `webapp` that has models is imported."""
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        os.environ |= {
            "GRAFT_VAR": folder,
            "GRAFT_SECRET_KEY": "only-for-the-time-of-this-measurement",
            "GRAFT_HOSTS": "testserver",
            "DATABASE_URL": f"sqlite:///{folder}/graft.sqlite3",
            "DJANGO_SETTINGS_MODULE": "webapp.settings.base",
        }
        import django
        from django.conf import settings

        # Names of static files without their hashes, which only `collectstatic` makes.
        settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        yield Path(folder)
