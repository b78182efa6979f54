"""Accounts in a browser: signing in with a second factor, a token that opens a curve, an invitation that is passed on."""

from __future__ import annotations

import httpx
import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.urls import reverse
from playwright.sync_api import Page, expect

from tests.browser.conftest import LiveSite, Opener, accessibility_faults, scrolls_sideways
from tests.webapp.cast import PASSWORD, Cast, make_cast
from tests.webapp.test_every_url import make_things
from webapp.accounts.models import User

pytestmark = pytest.mark.browser
PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.fixture
def cast(live_site: LiveSite) -> Cast:
    """The people, with passwords as the site itself keeps them: the suite's own hashes are none that it takes."""
    made = make_cast()
    hasher = PBKDF2PasswordHasher()
    for person in (made.alice, made.max, made.vera):
        person.password = hasher.encode(PASSWORD, hasher.salt(), iterations=1000)
        person.save()
    return made


def code_now(secret: str) -> str:
    return str(format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time())))))


def sign_in(page: Page, name: str) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def confirm(page: Page) -> None:
    """Gives the password that is asked for again."""
    expect(page.get_by_role("heading", level=1)).to_have_text("Confirm that it is you")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Go on").click()


def check(page: Page) -> None:
    assert accessibility_faults(page) == []
    assert not scrolls_sideways(page)


def test_a_second_factor_is_set_up_and_asked_for(cast: Cast, open_page: Opener) -> None:
    page = open_page(None, reverse("account_login"), **PHONE)
    check(page)
    sign_in(page, "alice")
    page.goto(reverse("mfa_index"))
    page.get_by_role("link", name="Set up").click()
    confirm(page)
    picture = page.locator("img.qr")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
    check(page)
    page.get_by_label("Authenticator code").fill(code_now(page.get_by_label("Key", exact=True).input_value()))
    page.get_by_role("button", name="Turn on").click()
    codes = page.locator("#codes li")
    expect(codes).to_have_count(10)
    check(page)
    recovery = codes.first.inner_text()
    other = open_page(None, reverse("account_login"), java_script_enabled=False)
    sign_in(other, "alice")
    expect(other.get_by_role("heading", level=1)).to_have_text("Second factor")
    other.get_by_label("Code").fill(recovery)
    other.get_by_role("button", name="Sign in", exact=True).click()
    other.goto(reverse("usersessions_list"))
    expect(other.locator("tbody tr")).to_have_count(2)
    other.get_by_role("button", name="Sign out all others").click()
    expect(other.locator("tbody tr")).to_have_count(1)
    page.goto(reverse("accounts:profile"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_token_opens_a_curve_until_it_is_revoked(cast: Cast, live_site: LiveSite, open_page: Opener) -> None:
    run = make_things(cast).run
    page = open_page(cast.vera, reverse("accounts:tokens", args=["night"]))
    check(page)
    page.get_by_label("Name", exact=True).fill("notebook")
    page.get_by_label("Read runs").check()
    page.get_by_role("button", name="Make the token").click()
    confirm(page)
    secret = page.locator("#secret").inner_text()
    check(page)
    curve, headers = live_site.url + reverse("runs:series", args=[run.pk]), {"Authorization": f"Bearer {secret}"}
    assert httpx.get(curve, headers=headers).status_code == 200
    page.get_by_role("button", name="Revoke notebook").click()
    expect(page.get_by_text("No token stands.")).to_be_visible()
    assert httpx.get(curve, headers=headers).status_code == 401


def test_an_invitation_is_passed_on_as_a_link(cast: Cast, open_page: Opener) -> None:
    page = open_page(cast.max, reverse("accounts:members", args=["night"]))
    page.get_by_role("button", name="Invite").click()
    link = page.locator("#invite-link").inner_text()
    check(page)
    guest = open_page(None, link)
    check(guest)
    guest.get_by_label("Username").fill("nora")
    for label in ("Password", "Password confirmation"):
        guest.get_by_label(label, exact=True).fill("an-uncommon-passphrase")
    guest.get_by_role("button", name="Make an account and join").click()
    guest.goto(reverse("accounts:profile"))
    guest.get_by_label("Language").select_option("fi")
    guest.get_by_label("Time zone").select_option("Asia/Tokyo")
    guest.locator("main button[type=submit]").click()
    expect(guest.locator("html")).to_have_attribute("lang", "fi")
    page.goto(reverse("accounts:audit", args=["night"]))
    expect(page.locator("tbody tr").first).to_contain_text("Member joined")
    check(page)
    joined = page.locator("tbody time").first
    here = joined.inner_text()
    User.objects.filter(pk=cast.max.pk).update(time_zone="Asia/Tokyo")
    page.reload()
    assert joined.inner_text() != here
