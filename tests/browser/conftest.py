"""A real site (uvicorn, Redis, collected static files) and a real Chromium. A page that logs an error, throws, or breaks the content
security policy fails its test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.test import Client, override_settings
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.flow.site import Site, running_site, wait_for
from webapp.accounts.models import User
from webapp.operate.up.commands import web_process
from webapp.settings.env import PROJECT

AXE = Path(__file__).parent / "vendor" / "axe-core-4.14.1" / "axe.min.js"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]
REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`content security policy: ${event.violatedDirective} ${event.blockedURI}`));
"""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="session")
def collected_static() -> Iterator[Path]:
    """The static files as production serves them: collected, with hashed names."""
    var = Path(tempfile.mkdtemp(prefix="graft-static-"))
    environment = {
        **os.environ,
        "GRAFT_VAR": str(var),
        "GRAFT_SECRET_KEY": "for-tests-only",
        "DJANGO_SETTINGS_MODULE": "webapp.settings.base",
    }
    command = [sys.executable, "manage.py", "collectstatic", "--noinput", "-v", "0"]
    subprocess.run(command, cwd=PROJECT, env=environment, check=True)
    yield var / "static"
    shutil.rmtree(var, ignore_errors=True)


class LiveSite(Site):
    """A site whose pages a browser can open."""

    url: str


@pytest.fixture(scope="module")
def processes(django_db_setup: None, collected_static: Path) -> Iterator[LiveSite]:
    """A site with Redis and a web process, for all tests of a module."""
    # Within an override, what is set on the settings is forgotten at its end.
    with override_settings(), running_site(settings) as site:
        (site.var / "static").symlink_to(collected_static)
        start_web(site)
        yield site  # type: ignore[misc]


@pytest.fixture
def live_site(processes: LiveSite, transactional_db: None) -> LiveSite:
    """The site, with a database that is empty at the beginning of each test."""
    return processes


def start_web(site: Site) -> None:
    """Starts the web process on a free port and waits until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    site.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    process = site.start("web", *web_process("127.0.0.1", port).command)

    def answers() -> bool:
        assert process.poll() is None, site.log("web")
        try:
            with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    wait_for(answers, 30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium: the system's where there is one, without its windows if it can be had so, else Playwright's own. It lives for a module: its
    event loop would disturb other tests.
    """
    with sync_playwright() as playwright:
        program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


Opener = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, live_site: LiveSite) -> Iterator[Opener]:
    """`open_page(user, path, **context)` opens a page of the site, signed in as `user` (None: as nobody)."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def opener(user: User | None, path: str, **options: Any) -> Page:
        context = guarded_context(browser, live_site.url, problems, **options)
        contexts.append(context)
        if user is not None:
            sign_in(context, live_site, user)
        page = context.new_page()
        answer = page.goto(path)
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}\n{live_site.log('web')[-3000:]}"
        return page

    yield opener
    for context in contexts:
        context.close()
    assert not problems


def sign_in(context: BrowserContext, live_site: LiveSite, user: User) -> None:
    """Gives the browser a session of the user."""
    client = Client()
    client.force_login(user)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_site.url}])


def guarded_context(browser: Browser, url: str, problems: list[str], **options: Any) -> BrowserContext:
    """A fresh browser at the site `url`; what its pages must not do is collected in `problems`."""
    context = browser.new_context(**{"base_url": url, "timezone_id": "Europe/Helsinki", "locale": "en-GB", **options})
    context.add_init_script(REPORT_VIOLATIONS)

    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(f"{message.page.url if message.page else url}: {message.text}")

    context.on("console", said)
    context.on("weberror", lambda fault: problems.append(f"{fault.page.url if fault.page else url}: {fault.error}"))
    return context


def accessibility_faults(page: Page, rules: list[str] | None = None) -> list[str]:
    """What axe finds on the page, by rule and place; `rules` by their ids, all of WCAG 2.2 AA and good practice without."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    told = {"runOnly": rules or RULES, "resultTypes": ["violations"], "preload": False, "iframes": False}
    found = page.evaluate("told => axe.run(document, told)", told)
    return [
        f"{rule['id']}: {node['html'][:160]} {node['any'][0]['message'] if node['any'] else ''}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def scrolls_sideways(page: Page) -> bool:
    """Whether the page as a whole is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
