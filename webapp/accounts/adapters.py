"""Where django-allauth asks the site: who may sign up, what a failed sign-in leaves behind, how secrets are stored."""

from __future__ import annotations

import base64
import hashlib
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailConfirmation
from allauth.core import context
from allauth.core.internal import ratelimit
from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import Fernet
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY
from django.http import HttpRequest
from django.urls import reverse

from webapp.accounts.audit_actions import Action
from webapp.accounts.models import User
from webapp.accounts.services.audit import record_of_person
from webapp.core.links import at_site


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Passwords, sign-in and mail."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Nobody makes an account alone: an invitation is needed (`views.join_team`)."""
        return False

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Refuses a try where there were too many (`settings.ACCOUNT_RATE_LIMITS`): few for a name from one address, so that nobody shuts
        another out from elsewhere; many for a name from anywhere. Raises `ValidationError`.
        """
        who = str(credentials.get("username", "")).lower()
        self._tries = []
        for action, key in (("login_failed", f"{who} {ratelimit.get_ip(request)}"), ("login_failed_anywhere", who)):
            usage = ratelimit.consume(request, app="allauth.account", action=action, key=key)
            if usage is None:
                raise self.validation_error("too_many_login_attempts")
            self._tries.append(usage)

    def _rollback_login_failed_rl_usage(self) -> None:
        # Called by `authenticate` for a right password, which is no failed try.
        for usage in self._tries:
            usage.rollback()

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        """A wrong password for a person whom there is stands in the audit log."""
        user = User.objects.filter(username=credentials.get("username", "")).first()
        if user is not None:
            record_of_person(Action.SIGN_IN_FAILED, user, detail={"step": "password"})

    def reauthenticate(self, user: User, password: str) -> bool:
        """Whether the password is right. Where checking it stored it anew, with more rounds than it had, the session goes on."""
        before = user.password
        if not super().reauthenticate(user, password):
            return False
        user.refresh_from_db(fields=["password"])
        if user.password != before:
            context.request.session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        return True

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Sends a mail that names the site by its own name: what the request calls it, port and all, is the sender's choice."""
        domain = urlsplit(at_site(self.request.build_absolute_uri("/"))).hostname
        super().send_mail(template_prefix, email, {**context, "current_site": SimpleNamespace(name="Graft", domain=domain)})

    def get_reset_password_from_key_url(self, key: str) -> str:
        """The link of a mail, at the site's own origin."""
        return at_site(super().get_reset_password_from_key_url(key))

    def get_email_confirmation_url(self, request: HttpRequest, emailconfirmation: EmailConfirmation) -> str:
        """Likewise."""
        return at_site(super().get_email_confirmation_url(request, emailconfirmation))

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        """Back to the profile."""
        return reverse("accounts:profile")


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Second factors. Their secrets are encrypted with a key made of the site's secret key, which is not in the database."""

    def encrypt(self, text: str) -> str:
        """What is stored of a secret."""
        return _box().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """The secret. Raises `cryptography.fernet.InvalidToken` where the site's secret key is another than the one it was stored with."""
        return _box().decrypt(encrypted_text.encode()).decode()


def _box() -> Fernet:
    key = hashlib.sha256(b"graft second factor\0" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
