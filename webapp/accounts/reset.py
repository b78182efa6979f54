"""A forgotten password: the answer, and how long it takes, says nothing about whose the address is."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.forms import ResetPasswordForm, default_token_generator
from allauth.account.internal.flows.password_reset import request_password_reset
from allauth.account.internal.userkit import filter_users_by_email
from allauth.core.context import request_context
from django.db import connections
from django.http import HttpRequest
from django.utils.translation import get_language, override

log = logging.getLogger(__name__)
_SENDERS = ThreadPoolExecutor(2, thread_name_prefix="password-reset")


class ResetForm(ResetPasswordForm):  # type: ignore[misc]
    """Takes an address. Looking for its person, writing the mail and sending it are done after the answer, by another thread."""

    def clean_email(self) -> str:
        """The address, in small letters."""
        return str(get_adapter().clean_email(self.cleaned_data["email"].lower()))

    def save(self, request: HttpRequest, **kwargs: Any) -> str:
        """Has the mail sent, if there is anybody to send it to; gives the address."""
        email = str(self.cleaned_data["email"])
        _SENDERS.submit(_send, request, email, get_language())
        return email


def _send(request: HttpRequest, email: str, language: str | None) -> None:
    try:
        with request_context(request), override(language):
            users = filter_users_by_email(email, is_active=True, prefer_verified=True, for_login=True)
            if users:
                request_password_reset(request, email, users, default_token_generator)
    except Exception:
        log.exception("A mail for a new password could not be sent")
    finally:
        connections.close_all()
