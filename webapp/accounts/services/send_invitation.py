"""Use case: send an invitation's link by e-mail, where the site can."""

from __future__ import annotations

import logging
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import send_mail
from django.utils.translation import gettext as _

from webapp.accounts.models import Team, User
from webapp.core.formats import one_line

log = logging.getLogger(__name__)


def send_invitation(*, team: Team, inviter: User, email: str, link: str) -> bool:
    """Whether the link is on its way to `email`; where it is not, whoever invites passes it on."""
    if not settings.GRAFT_EMAIL or not email:
        return False
    subject = one_line(_("%(who)s invites you to the team %(team)s on Graft") % {"who": inviter.username, "team": team.name})
    body = _(
        "%(who)s invites you to the team %(team)s on Graft.\n\nOpen this link to join. It works once, for 72 hours:\n%(link)s\n\n"
        "If you do not know %(who)s, do nothing: the link then ends by itself."
    ) % {"who": inviter.username, "team": team.name, "link": link}
    try:
        return send_mail(subject, body, None, [email]) == 1
    except (SMTPException, OSError) as failure:
        log.warning("An invitation could not be sent: %s", failure)
        return False
