"""Runs that are being trained and people who look on, as rows; nothing trains."""

from __future__ import annotations


def rows(runs: int, users: int) -> tuple[list[str], list[str]]:
    """Ids of so many running runs of one team, and the session cookies of so many of its members."""
    from django.test import Client

    from benchmarks.ui.rows import bench, running
    from webapp.accounts.models import Membership, Role, User

    team, user, version, base = bench("live")
    cookies = []
    for number in range(users):
        member = User.objects.create_user(username=f"reader-{number}")
        Membership.objects.create(team=team, user=member, role=Role.MEMBER)
        client = Client()
        client.force_login(member)
        cookies.append(client.cookies["sessionid"].value)
    return [str(running(team, user, version, base).pk) for _ in range(runs)], cookies
