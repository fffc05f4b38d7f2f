"""A real headless Chromium, in which pages are opened, and a page that complains of what no page may do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="no Chromium: requirements/install_chromium.sh installs it where it may"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def careful_page(browser: Browser, *, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """Yield a page; complain at the end about script errors, CSP violations, dialogs and requests to other places."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(10_000)
    page = context.new_page()
    complaints: list[str] = []
    origins: set[str] = set()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security Policy" in line.text else None)
    page.on("request", lambda request: origins.add("/".join(request.url.split("/")[:3])))
    yield page
    context.close()
    assert complaints == []
    assert len({origin for origin in origins if origin.startswith("http")}) <= 1, origins
