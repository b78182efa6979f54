"""Settings of every site. Each value that differs between sites comes from the environment (`env.ENV`)."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONCE, NONE, SELF

from webapp.settings.env import ENV, PROJECT
from webapp.settings.mail import TIMEOUT_SECONDS, mail_from

GRAFT_VAR: Path = ENV.var.resolve()
DEBUG = ENV.debug


def _secret_key() -> str:
    """The key from the environment, else the one that `manage.py prepare` wrote; a site without one does not start (check graft.E001)."""
    file = GRAFT_VAR / "secret-key"
    return ENV.secret_key or (file.read_text().strip() if file.exists() else "")


def _redis_socket() -> Path:
    """The private socket of the embedded redis-server; a path too long for a socket gives way to a folder of our own under /tmp."""
    path = GRAFT_VAR / "redis" / "redis.sock"
    if len(str(path)) < 100:
        return path
    digest = hashlib.sha256(str(GRAFT_VAR).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"graft-{digest}" / "redis.sock"


SECRET_KEY = _secret_key() or "unset"
ALLOWED_HOSTS = ENV.split(ENV.hosts)
CSRF_TRUSTED_ORIGINS = ENV.split(ENV.trusted_origins)

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "csp",
    "template_partials",
    "django_htmx",
    "channels",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "webapp.core",
    "webapp.work",
    "webapp.accounts",
    "webapp.quotas",
    "webapp.notices",
    "webapp.datasets",
    "webapp.catalog",
    "webapp.checks",
    "webapp.runs",
    "webapp.artifacts",
    "webapp.files",
    "webapp.api",
    "webapp.serving",
    "webapp.operate",
]

MIDDLEWARE = [
    "webapp.core.health.probes",
    "webapp.api.middleware.api_answers",
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "webapp.accounts.middleware.TokenMiddleware",
    "webapp.accounts.locale.own_language",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "webapp.accounts.middleware.PersonMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "webapp.urls"
ASGI_APPLICATION = "webapp.asgi.application"
AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "account_login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PROJECT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "webapp.accounts.context.team",
                "webapp.accounts.context.mail",
            ],
            "builtins": ["webapp.core.templatetags.graft"],
        },
    }
]

# -- database: SQLite by default; the options cure "database is locked" under many writers ---------------------------
DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(
        ENV.database_url or f"sqlite:///{GRAFT_VAR / 'graft.sqlite3'}", conn_max_age=0, conn_health_checks=True
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA busy_timeout=20000;",
    }
else:
    # A server or a network that has gone silent: found out well before a worker's lease ends. What the address says goes before.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000,
        **DATABASES["default"].get("OPTIONS", {}),
    }  # fmt: skip

# -- Redis: the wire, never the record --------------------------------------------------------------------------------
GRAFT_REDIS_SOCKET = _redis_socket()
GRAFT_REDIS_EMBEDDED = not ENV.redis_url
GRAFT_REDIS_URL = ENV.redis_url or f"unix://{GRAFT_REDIS_SOCKET}?db=0"

# -- Celery: a doorbell. No result backend (publishing would block 19 s when Redis is down), early ack, no prefetch ----
CELERY_BROKER_URL = ENV.redis_url or f"redis+socket://{GRAFT_REDIS_SOCKET}?virtual_host=0"
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_WORKER_POOL = "prefork"
CELERY_WORKER_CONCURRENCY = 1
CELERY_WORKER_DISABLE_PREFETCH = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Not 1: the pool replaces a child that is used up only every five seconds, and the work itself is done in processes of its own.
CELERY_WORKER_MAX_TASKS_PER_CHILD = 200
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 0.0
CELERY_WORKER_PROC_ALIVE_TIMEOUT = 30
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_QUEUES: dict[str, dict[str, Any]] = {"train": {}, "short": {}, "serve": {}}
CELERY_TASK_DEFAULT_QUEUE = "short"
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 0}
CELERY_BROKER_CONNECTION_TIMEOUT = 2
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# A Redis without room refuses what a worker writes down of a message that it takes: the worker connects anew, it does not end.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "global_keyprefix": "graft:",
    "visibility_timeout": 3600,
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "socket_keepalive": True,
    # A connection that has fallen silent is found out by the second check, and given up when that has waited for its answer.
    "health_check_interval": 10,
}
CELERY_TIMEZONE = "UTC"

# The functions (import strings) that the dispatcher calls every `dispatch_seconds` to mend what processes left undone.
GRAFT_RECONCILERS = [
    "webapp.runs.services.reconcile:reconcile",
    "webapp.datasets.services.reconcile:reconcile",
    "webapp.catalog.services.reconcile:reconcile",
    "webapp.checks.services.survey:reconcile",
    "webapp.notices.services.reconcile:reconcile",
    "webapp.files.services.reconcile:reconcile",
    "webapp.api.services.reconcile:reconcile",
]

# The functions (import strings) that delete what an app keeps of a team, in this order (accounts.services.delete_team).
GRAFT_TEAM_DELETERS = [
    "webapp.api.services.delete_of_team:delete_of_team",
    "webapp.runs.services.delete_of_team:delete_of_team",
    "webapp.files.services.delete_of_team:delete_of_team",
    "webapp.datasets.services.delete_of_team:delete_of_team",
    "webapp.catalog.services.delete_of_team:delete_of_team",
]

# The function (import string) that says whether an Authorization header opens anything: only then a large body is read.
GRAFT_TOKEN_CHECK = "webapp.accounts.bearer.is_open"  # noqa: S105 no secret, a name

# -- pages -------------------------------------------------------------------------------------------------------------
STATIC_URL = "static/"
STATICFILES_DIRS = [PROJECT / "static"]
STATIC_ROOT = GRAFT_VAR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "servestatic.storage.CompressedManifestStaticFilesStorage"},
}
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "font-src": [SELF],
        "manifest-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = ENV.behind_tls
SECURE_HSTS_SECONDS = 31_536_000 if ENV.behind_tls else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENV.behind_tls else None
SESSION_COOKIE_SAMESITE = "Lax"
# A cookie whose name begins so is taken by browsers from this very host alone: no neighbour under the same domain can set it.
_PREFIX = "__Host-" if ENV.behind_tls else ""
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"{_PREFIX}sessionid", f"{_PREFIX}csrftoken"
DATA_UPLOAD_MAX_MEMORY_SIZE = ENV.request_limit_bytes
DATA_UPLOAD_MAX_NUMBER_FIELDS = 500
DATA_UPLOAD_MAX_NUMBER_FILES = 5
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]

# -- signing in (django-allauth): a name and a password, and a second factor for whoever has set one up; nobody signs up alone ------------
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
ACCOUNT_ADAPTER = "webapp.accounts.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*", "password2*"]
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_VERIFICATION = "optional" if ENV.email_url else "none"
ACCOUNT_EMAIL_NOTIFICATIONS = bool(ENV.email_url)
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[Graft] "
ACCOUNT_SESSION_REMEMBER = True
# Wrong passwords (webapp/accounts/adapters.py): from one address, of one name from one address, of one name from anywhere.
ACCOUNT_RATE_LIMITS = {"login_failed": "10/m/ip,5/300s/key", "login_failed_anywhere": "200/h/key"}
ACCOUNT_FORMS = {"reset_password": "webapp.accounts.reset.ResetForm"}
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_REAUTHENTICATION_TIMEOUT = 15 * 60
MFA_ADAPTER = "webapp.accounts.adapters.MFAAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Graft"
# A telephone's clock may be half a minute off.
MFA_TOTP_TOLERANCE = 1
# Accounts are made by invitation, so an address that is not confirmed says nothing about who somebody is.
MFA_ALLOW_UNVERIFIED_EMAIL = True

# The limits on tries to sign in are kept in the database: every web process sees them, and they hold while Redis is away.
# Entries are not thrown out before their time by somebody who fills the table.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "cache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}

# -- e-mail ------------------------------------------------------------------------------------------------------------
GRAFT_EMAIL = bool(ENV.email_url)
DEFAULT_FROM_EMAIL = SERVER_EMAIL = ENV.email_from
_MAIL = mail_from(ENV.email_url)
EMAIL_BACKEND, EMAIL_HOST, EMAIL_PORT, EMAIL_TIMEOUT = _MAIL.backend, _MAIL.host, _MAIL.port, TIMEOUT_SECONDS
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _MAIL.user, _MAIL.password
EMAIL_USE_TLS, EMAIL_USE_SSL = _MAIL.use_tls, _MAIL.use_ssl

LANGUAGE_CODE = "en"
# In their own words, as everybody finds theirs.
LANGUAGES = [("en", "English"), ("fi", "suomi"), ("uk", "українська"), ("ru", "русский"), ("ko", "한국어"), ("ja", "日本語")]
LOCALE_PATHS = [PROJECT / "locale"]
TIME_ZONE = ENV.time_zone
USE_TZ = True
USE_I18N = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"class": "webapp.core.logs.LineFormatter", "format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": ENV.log_level},
}
