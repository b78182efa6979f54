"""Settings of the test suite: everything real, in a temporary `var` that tests/conftest.py makes before Django is loaded."""

from webapp.settings.base import *  # noqa: F403
from webapp.settings.base import DATABASES, GRAFT_VAR, STORAGES

SECRET_KEY = "for-tests-only"  # noqa: S105
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}

# A file, not memory: the processes that a test starts use the same database.
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["TEST"] = {"NAME": str(GRAFT_VAR / "test.sqlite3")}
