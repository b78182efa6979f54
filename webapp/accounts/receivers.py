"""What django-allauth tells by its signals, for the audit log."""

from __future__ import annotations

from typing import Any

from allauth.account.signals import password_changed, password_reset
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authentication_failed, authenticator_added, authenticator_removed, authenticator_reset
from django.dispatch import receiver

from webapp.accounts.audit_actions import Action
from webapp.accounts.models import User
from webapp.accounts.services.audit import record_of_person


@receiver([password_changed, password_reset])
def _password(user: User, **kwargs: Any) -> None:
    record_of_person(Action.PASSWORD_CHANGED, user)


@receiver(authenticator_added)
def _added(user: User, authenticator: Authenticator, **kwargs: Any) -> None:
    # Recovery codes come with the first factor and are no event of their own.
    if authenticator.type != Authenticator.Type.RECOVERY_CODES:
        record_of_person(Action.TWO_FACTOR_ON, user, detail={"type": authenticator.type})


@receiver(authenticator_removed)
def _removed(user: User, authenticator: Authenticator, **kwargs: Any) -> None:
    if authenticator.type != Authenticator.Type.RECOVERY_CODES:
        record_of_person(Action.TWO_FACTOR_OFF, user, detail={"type": authenticator.type})


@receiver(authenticator_reset)
def _reset(user: User, authenticator: Authenticator, **kwargs: Any) -> None:
    record_of_person(Action.TWO_FACTOR_CODES, user)


@receiver(authentication_failed)
def _wrong_code(user: User, **kwargs: Any) -> None:
    record_of_person(Action.SIGN_IN_FAILED, user, detail={"step": "code"})
